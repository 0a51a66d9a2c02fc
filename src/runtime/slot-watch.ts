import { setTimeout as wait } from 'node:timers/promises'
import type { PostgresSource } from '../postgres/source.ts'
import { type ErrorReport, errorReport, type GapReport, gapReports, type SlotReport, slotReport } from './status.ts'

/** The slot as it was seen last, for status and metrics: whoever asks is answered soon, also while the database is away. */
export interface SlotWatch {
  look(): Promise<{
    readonly slot: SlotReport | null
    readonly gaps: readonly GapReport[]
    readonly problem: ErrorReport | null
  }>
}

/** what was seen is good for this long (ms) */
const FRESH = 2_000
/** what takes longer is shown the next time (ms) */
const PATIENCE = 1_000

export function watchSlot(source: () => PostgresSource | null, now: () => number): SlotWatch {
  let slot: SlotReport | null = null
  let gaps: readonly GapReport[] = []
  let problem: ErrorReport | null = null
  let seenAt = Number.NEGATIVE_INFINITY
  let looking: Promise<void> | null = null

  async function refresh(from: PostgresSource): Promise<void> {
    try {
      slot = await slotReport(from)
      gaps = await gapReports(from)
      problem = null
    } catch (error) {
      // what was true before is not known to be true any more
      slot = null
      problem = errorReport(error as Error)
    }
    seenAt = now()
    looking = null
  }

  return {
    async look() {
      const from = source()
      if (from !== null && now() - seenAt > FRESH) {
        looking ??= refresh(from)
        const timer = new AbortController()
        await Promise.race([looking, wait(PATIENCE, undefined, { signal: timer.signal }).catch(() => {})])
        timer.abort()
      }
      return { slot, gaps, problem }
    },
  }
}
