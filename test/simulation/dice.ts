/**
 * Seeded chance. Each label has a row of its own, so that leaving one step out of a schedule changes as little as
 * possible of what happens to the others: a failure stays one while its schedule is shortened.
 */
export class Dice {
  readonly #seed: number
  readonly #rows = new Map<string, { readonly hash: number; count: number }>()

  constructor(seed: number) {
    this.#seed = seed | 0
  }

  /** [0, 1) */
  roll(label: string): number {
    let row = this.#rows.get(label)
    if (row === undefined) {
      row = { hash: hashOf(label, this.#seed), count: 0 }
      this.#rows.set(label, row)
    }
    return mix(row.hash + Math.imul(++row.count, 0x9e3779b1)) / 4294967296
  }

  /** 0 … n-1 */
  below(n: number, label: string): number {
    return Math.floor(this.roll(label) * n)
  }

  chance(probability: number, label: string): boolean {
    return this.roll(label) < probability
  }

  between(low: number, high: number, label: string): number {
    return low + this.roll(label) * (high - low)
  }

  pick<T>(of: readonly T[], label: string): T {
    return of[this.below(of.length, label)] as T
  }
}

/** FNV-1a */
export function hashOf(text: string, start = 0x811c9dc5): number {
  let hash = start ^ 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash
}

/** murmur3's finalizer */
function mix(value: number): number {
  let h = value | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
