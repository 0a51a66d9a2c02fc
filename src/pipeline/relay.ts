import { backoff } from '../core/backoff.ts'
import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import { codeOf, type ErrorCode } from '../core/errors.ts'
import { isRetried, policyFor } from '../core/policy.ts'
import type { Lsn, Position } from '../core/position.ts'
import type { Queue } from '../core/queue.ts'
import type { Source, SourceSession } from '../core/source.ts'
import type { Failpoint } from './failpoint.ts'
import { runSession } from './relay-session.ts'

/**
 * The relay: source → queue. A row of sessions; each begins from durable state, so that what ends one is never more
 * than a delay. It gives up only where a person must decide (`halted`).
 *
 * starting → running → waiting (backoff after a failure) → starting …
 *     └──→ standby (another process holds the slot) → starting …
 * any → halted | stopped
 */
export interface RelayOptions {
  readonly source: Source
  readonly queue: Queue
  readonly topicTemplate: string
  readonly fingerprint: string
  readonly sinkTopics: readonly string[]
  readonly log: Log
  readonly clock: Clock
  readonly random: () => number
  /** tests kill the process here */
  readonly failpoint?: (name: Failpoint) => Promise<void> | void
}

export type RelayPhase = 'starting' | 'standby' | 'running' | 'waiting' | 'halted' | 'stopped'

export interface RelayStatus {
  readonly phase: RelayPhase
  /** what ended the last session; null while all is well */
  readonly error: Error | null
  /** failures in a row */
  readonly attempts: number
  readonly confirmed: Lsn | null
  /** how far the server has sent */
  readonly walEnd: Lsn | null
  /** when the server was last heard, ms */
  readonly heardAt: number | null
  /** events published since the start, by topic */
  readonly published: ReadonlyMap<string, number>
  readonly position: Position | null
}

export interface Relay {
  status(): RelayStatus
  /** resolves when stopped, rejects with the reason when halted */
  readonly done: Promise<void>
  /** drains: stops reading, awaits what is under way, records, confirms and gives the slot back */
  stop(): Promise<void>
}

const STANDBY_INTERVAL = 1_000
/** a session that ran for so long was well (ms): one that fails at once, again and again, must not be tried in haste */
const STEADY = 10_000
const SLOW_RETRY = { base: 5_000, cap: 60_000 }

export function startRelay(options: RelayOptions): Relay {
  const { log, clock, random } = options
  const drain = new AbortController()
  const published = new Map<string, number>()
  let phase: RelayPhase = 'starting'
  let error: Error | null = null
  let attempts = 0
  let runningSince: number | null = null
  let suspected: ErrorCode | null = null
  let confirmed: Lsn | null = null
  let position: Position | null = null
  let current: SourceSession | null = null

  const report = {
    running(session: SourceSession) {
      phase = 'running'
      error = null
      suspected = null
      runningSince = clock.elapsed()
      current = session
      confirmed ??= session.identity.confirmed
    },
    published(topic: string, count: number, last: Position) {
      published.set(topic, (published.get(topic) ?? 0) + count)
      if (position === null || last > position) position = last
    },
    confirmed(lsn: Lsn) {
      confirmed = lsn
    },
  }

  const run = async (): Promise<void> => {
    while (!drain.signal.aborted) {
      phase = phase === 'standby' ? 'standby' : 'starting'
      try {
        await runSession({
          ...options,
          failpoint: options.failpoint ?? (() => {}),
          newWriter: () => writerName(random),
          report,
          drain: drain.signal,
        })
      } catch (caught) {
        error = caught as Error
        current = null
        if (runningSince !== null && clock.elapsed() - runningSince >= STEADY) attempts = 0
        runningSince = null
        const policy = policyFor(error)
        const code = codeOf(error)
        // what a session heard of the server may be older than what it read in the queue: believed when it is heard again
        if (!isRetried(policy) && (code !== 'MILLRACE_SOURCE_CHANGED' || code === suspected)) {
          // asked to stop while it was in doubt: the next start will tell
          if (drain.signal.aborted) break
          phase = 'halted'
          throw error
        }
        suspected = code
        let delay = STANDBY_INTERVAL
        if (codeOf(error) === 'MILLRACE_SLOT_IN_USE') {
          if (phase !== 'standby') log.info({ code: codeOf(error) }, `${error.message}; standing by`)
          phase = 'standby'
        } else {
          attempts++
          phase = 'waiting'
          delay = backoff(attempts, random, policy === 'retry-slowly' ? SLOW_RETRY : {})
          log.warn({ err: error, code: codeOf(error), attempts, delay }, 'relay session ended; trying again')
        }
        await clock.wait(delay, drain.signal)
      }
    }
    phase = 'stopped'
  }

  const done = run()
  done.catch(() => {})
  return {
    status: () => ({
      phase,
      error,
      attempts: phase === 'running' ? 0 : attempts,
      confirmed,
      walEnd: current?.walEnd ?? null,
      heardAt: current?.heardAt ?? null,
      published,
      position,
    }),
    done,
    async stop() {
      drain.abort()
      await done.catch(() => {})
    },
  }
}

function writerName(random: () => number): string {
  return Math.floor(random() * 2 ** 48)
    .toString(16)
    .padStart(12, '0')
}
