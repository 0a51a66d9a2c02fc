import type { Clock } from '../core/clock.ts'

/** Bounds how fast something goes: so many a second, in pieces small enough that a pause is never waited for long. */
export interface Pace {
  /** to be taken at once at most */
  readonly piece: number
  /** Resolves when so many may go; at once when the signal is aborted. */
  take(count: number, signal: AbortSignal): Promise<void>
}

const PIECES_A_SECOND = 4

/** @param perSecond null: as fast as it goes */
export function paceOf(perSecond: number | null, clock: Clock): Pace {
  if (perSecond === null) return { piece: Number.POSITIVE_INFINITY, take: async () => {} }
  /** when all that was taken has had its time */
  let free = clock.elapsed()
  return {
    piece: Math.max(1, Math.floor(perSecond / PIECES_A_SECOND)),
    async take(count, signal) {
      const now = clock.elapsed()
      const from = Math.max(free, now)
      free = from + (count * 1_000) / perSecond
      if (from > now) await clock.wait(from - now, signal)
    },
  }
}
