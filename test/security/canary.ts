import { randomBytes } from 'node:crypto'
import { inspect } from 'node:util'

/** A secret that is found again wherever it went, with what quoting, URLs and JSON would change in it. */
export const canary = (what: string): string => `${what}-"${randomBytes(9).toString('hex')}/+`

/** Everything that a run said, and which of the secrets stands in it, however it was encoded. */
export class Ears {
  #heard: { readonly where: string; readonly text: string }[] = []

  hear(where: string, what: unknown): void {
    if (typeof what === 'string') return void this.#heard.push({ where, text: what })
    for (let error: unknown = what, depth = 0; error !== undefined && depth < 10; depth++, error = (error as Error).cause) {
      const { message = '', stack = '' } = error as Error
      this.#heard.push({
        where,
        text: [message, stack, JSON.stringify(error), String(error), inspect(error, { depth: 20 })].join('\n'),
      })
    }
  }

  get bytes(): number {
    return this.#heard.reduce((sum, { text }) => sum + text.length, 0)
  }

  /** where each secret was said since the last time; empty when none was */
  leaks(secrets: Readonly<Record<string, string>>): readonly string[] {
    const heard = this.#heard
    this.#heard = []
    return Object.entries(secrets).flatMap(([name, secret]) =>
      heard
        .filter(({ text }) => forms(secret).some((form) => text.includes(form)))
        .map(({ where, text }) => {
          const at = Math.min(
            ...forms(secret)
              .map((form) => text.indexOf(form))
              .filter((place) => place >= 0),
          )
          return `${name} in ${where}: …${text.slice(Math.max(0, at - 200), at + 60)}…`
        }),
    )
  }
}

/** as it is, in JSON, in JSON within JSON, in a URL, in base64 at each of its three places; and its heart, for what cuts it up */
function forms(secret: string): readonly string[] {
  const json = JSON.stringify(secret).slice(1, -1)
  const bytes = Buffer.from(secret)
  const base64 = [0, 1, 2].map((skip) =>
    bytes.subarray(skip, skip + 3 * Math.floor((bytes.length - skip) / 3)).toString('base64'),
  )
  const heart = /[0-9a-f]{18}/.exec(secret)?.[0] ?? secret
  return [secret, json, JSON.stringify(json).slice(1, -1), encodeURIComponent(secret), ...base64, heart]
}
