/**
 * The secrets that a config was found to hold, so that whatever leaves the process as text (log lines, errors, the
 * status page) can be searched for them. The second line of defence: the first is never to put one into a message.
 */
export class Secrets {
  readonly #values = new Set<string>()

  /** remembers the value if its name, a private key or the password of a URL inside it makes it a secret */
  learn(name: string, value: string): void {
    if (isSecretName(name)) this.#add(value)
    // line by line too: an inspected text is broken into them
    if (value.includes('PRIVATE KEY-----')) for (const part of [value, ...value.split(/\r?\n/).filter(isKeyLine)]) this.#add(part)
    const password = /^[a-z][a-z0-9+.-]*:\/\/[^/?#@]*?:([^/?#@]+)@/i.exec(value)?.[1]
    if (password === undefined) return
    this.#add(password)
    try {
      this.#add(decodeURIComponent(password))
    } catch {
      // not percent-encoded, then: the plain form is known
    }
  }

  /** the text without any secret, and without the password of any URL */
  scrub(text: string): string {
    let clean = text.replace(/([a-z][a-z0-9+.-]*:\/\/[^/?#@\s:]*):[^/?#@\s]+@/gi, `$1:${REDACTED}@`)
    for (const value of this.#values) clean = clean.replaceAll(value, REDACTED)
    return clean
  }

  #add(value: string): void {
    // a short or plain word cannot be told from ordinary text: hiding each "postgres" would make every message unreadable
    if (value.length < 8 || /^[a-z]{1,12}$/.test(value)) return
    for (const form of [value, JSON.stringify(value).slice(1, -1), percentEncoded(value), base64(value)]) this.#values.add(form)
  }
}

/** a line of a key in PEM that is long enough to tell something */
const isKeyLine = (line: string): boolean => line.length >= 16 && !line.startsWith('-----')

const percentEncoded = (value: string): string => encodeURIComponent(value.toWellFormed())
const base64 = (value: string): string => Buffer.from(value).toString('base64').replace(/=+$/, '')

const REDACTED = '[redacted]'

/** the names whose values are never shown */
export function isSecretName(name: string): boolean {
  return /passw|secret|token|passphrase|credential|api_?key|access_?key|private_?key|authorization/i.test(name)
}

/** a copy for people's eyes: secrets and the passwords of URLs are gone, functions are named as such */
export function redacted(value: unknown, secrets: Secrets, name = ''): unknown {
  if (typeof value === 'function') return '[function]'
  if (typeof value === 'string') return isSecretName(name) ? REDACTED : secrets.scrub(value)
  if (typeof value === 'bigint') return String(value)
  if (Array.isArray(value)) return value.map((item) => redacted(item, secrets, name))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, redacted(item, secrets, key)]))
}
