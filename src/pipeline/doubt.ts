import type { Clock } from '../core/clock.ts'
import { codeOf, type ErrorCode } from '../core/errors.ts'

/** for how long the queue must say that something is missing, and how often it is asked (ms) */
const DOUBT = 4_000
const DOUBT_PAUSE = 400
/** and how often at least: a process that was stopped meanwhile has not asked */
const DOUBT_ASKS = 5
const DOUBTED = new Set<ErrorCode>([
  'MILLRACE_STATE_MISSING',
  'MILLRACE_QUEUE_LOST_END',
  'MILLRACE_QUEUE_NOT_READY',
  'MILLRACE_QUEUE_OFFSET_GONE',
])

/**
 * A halt is for a person, so what the queue lacks is believed only when it says so again and again: a broker that has
 * just restarted, or lost its leadership without knowing, may not know better yet; retention may move while we read.
 */
export async function insisted<T>(ask: () => Promise<T>, clock: Clock, signal: AbortSignal): Promise<T> {
  const until = clock.elapsed() + DOUBT
  for (let asked = 1; ; asked++)
    try {
      return await ask()
    } catch (error) {
      if (!DOUBTED.has(codeOf(error)) || signal.aborted || (asked >= DOUBT_ASKS && clock.elapsed() > until)) throw error
      await clock.wait(DOUBT_PAUSE, signal)
    }
}
