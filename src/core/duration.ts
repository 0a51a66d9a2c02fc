const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** what is expected where a duration is read; part of error messages */
export const DURATION = 'a duration such as "30s", "12h" or "7d", or a number of milliseconds'

/** `30s`, `12h`, `7d` (ms, s, m, h, d; whole numbers), or a number of ms, in ms; null for anything else */
export function parseDuration(value: unknown): number | null {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : null
  if (typeof value !== 'string') return null
  const match = /^(\d{1,9})(ms|s|m|h|d)$/.exec(value.trim())
  if (!match) return null
  const ms = Number(match[1]) * (UNITS[match[2] as string] as number)
  return Number.isSafeInteger(ms) ? ms : null
}
