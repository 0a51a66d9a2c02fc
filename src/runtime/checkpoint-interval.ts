import { backoff } from '../core/backoff.ts'
import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import { codeOf } from '../core/errors.ts'
import type { StateStore } from '../core/queue.ts'
import { automaticName, checkpointKey, checkpointOf, encodeCheckpoint, outlived } from '../core/saved-checkpoint.ts'
import { relayedState, storedCheckpoints } from './checkpoint.ts'

export interface IntervalOptions {
  readonly state: StateStore
  readonly source: string
  /** ms */
  readonly every: number
  /** ms */
  readonly keep: number
  /** whether the relay beside it is at work: a standby takes none */
  readonly running: () => boolean
  readonly log: Log
  readonly clock: Clock
  readonly random: () => number
  readonly signal: AbortSignal
}

/** how often to look whether the relay is at work, and one is due (ms) */
const TICK = 1_000
const RETRY = { base: 1_000, cap: 60_000 }

/**
 * Takes a checkpoint on the interval and lets go of those that outlived their time, beside the relay and out of its way:
 * what fails is tried again later, and halts nothing. The interval goes on over restarts and from one relay to the next:
 * what is in the queue tells when the last one was. Resolves after the signal.
 */
export async function takeCheckpoints(options: IntervalOptions): Promise<void> {
  const { running, log, clock, random, signal } = options
  let due = clock.elapsed()
  let failures = 0
  while (!signal.aborted) {
    if (running() && clock.elapsed() >= due)
      try {
        due = clock.elapsed() + (await takeIfDue(options))
        failures = 0
      } catch (error) {
        // the queue is closed under what was begun before
        if (signal.aborted) return
        const delay = backoff(++failures, random, RETRY)
        due = clock.elapsed() + delay
        log.warn({ err: error, code: codeOf(error), delay }, 'the automatic checkpoint could not be taken; trying again')
      }
    await clock.wait(TICK, signal)
  }
}

/** @returns in how many ms the next one is due */
async function takeIfDue({ state, source, every, keep, log, clock, signal }: IntervalOptions): Promise<number> {
  const stored = await storedCheckpoints(state, source)
  const now = clock.now()
  const latest = stored.findLast(({ checkpoint }) => checkpoint.automatic)?.checkpoint.at ?? null
  // one from the future: the clock was set back
  const wait = latest === null || latest > now ? 0 : Math.max(0, latest + every - now)
  if (wait === 0) {
    const checkpoint = checkpointOf(await relayedState(state, source), automaticName(now), now, true)
    const text = encodeCheckpoint(checkpoint)
    await state.write(checkpointKey(source, checkpoint.name), text)
    stored.push({ checkpoint, bytes: text.length })
  }
  const gone = outlived(stored, keep, now)
  for (const { name, at } of gone) {
    if (signal.aborted) break
    if (at >= now - keep)
      log.warn({ checkpoint: name }, 'an automatic checkpoint is dropped before its time: all of them together are too large')
    await state.remove(checkpointKey(source, name))
  }
  return wait === 0 ? every : wait
}
