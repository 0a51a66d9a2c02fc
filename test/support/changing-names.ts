import dns from 'node:dns'
import { readFileSync } from 'node:fs'

/**
 * From now on this process resolves the names that the file holds (JSON: name to IPv4 address, null where there is none now)
 * as the file says at that moment; others as ever. It is what a resolver does whose records change.
 */
export function believeNames(path: string): void {
  const real = dns.lookup
  const changed = (name: string, options: unknown, callback: unknown): void => {
    const names = JSON.parse(readFileSync(path, 'utf8')) as Record<string, string | null>
    const address = names[name]
    if (address === undefined) {
      ;(real as (...args: unknown[]) => void)(name, options, callback)
      return
    }
    const answer = (typeof options === 'function' ? options : callback) as (...args: unknown[]) => void
    if (address === null) answer(Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: 'ENOTFOUND', hostname: name }))
    else if ((options as { all?: boolean } | null)?.all === true) answer(null, [{ address, family: 4 }])
    else answer(null, address, 4)
  }
  dns.lookup = changed as typeof dns.lookup
}
