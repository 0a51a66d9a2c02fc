import { setTimeout as wait } from 'node:timers/promises'
import type { ParkedTotals, Parking } from '../core/sink.ts'

/** What is parked, as it was seen last: whoever asks is answered soon, also while the sink is away. */
export interface ParkedWatch {
  /** null: the sink parks nothing, or it is not known */
  look(): Promise<ParkedTotals | null>
}

/** what was seen is good for this long (ms) */
const FRESH = 2_000
/** what takes longer is shown the next time (ms) */
const PATIENCE = 1_000

export function watchParked(parking: () => Parking | null, now: () => number): ParkedWatch {
  let totals: ParkedTotals | null = null
  let seenAt = Number.NEGATIVE_INFINITY
  let looking: Promise<void> | null = null

  async function refresh(from: Parking): Promise<void> {
    // what was true before is not known to be true any more
    totals = await from.totals().catch(() => null)
    seenAt = now()
    looking = null
  }

  return {
    async look() {
      const from = parking()
      if (from !== null && now() - seenAt > FRESH) {
        looking ??= refresh(from)
        const timer = new AbortController()
        await Promise.race([looking, wait(PATIENCE, undefined, { signal: timer.signal }).catch(() => {})])
        timer.abort()
      }
      return totals
    },
  }
}
