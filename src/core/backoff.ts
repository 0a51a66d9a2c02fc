/** Exponential backoff with full jitter, in ms. `attempt` counts from 1; `random` gives [0, 1). */
export function backoff(attempt: number, random: () => number, { base = 100, cap = 10_000 } = {}): number {
  const ceiling = Math.min(cap, base * 2 ** Math.min(attempt - 1, 30))
  return Math.ceil(ceiling / 2 + (random() * ceiling) / 2)
}
