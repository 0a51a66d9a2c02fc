import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import type { Lsn } from '../core/position.ts'
import type { Queue } from '../core/queue.ts'
import { copiedOf, latestState, type RelayState, stateKey, statePrefix } from '../core/relay-state.ts'
import type { Source, SourceSession } from '../core/source.ts'
import { decodeState, encodeState } from '../core/state-text.ts'
import { beginSearch } from '../core/tail.ts'
import { insisted } from './doubt.ts'
import type { Failpoint } from './failpoint.ts'
import type { RelayPlan } from './relay-plan.ts'

export interface KeeperOptions {
  readonly source: Source
  readonly queue: Queue
  readonly log: Log
  readonly clock: Clock
  /** names the session's record apart from a zombie's of the same number */
  readonly newWriter: () => string
  readonly failpoint: (name: Failpoint) => Promise<void> | void
  readonly report: { confirmed(lsn: Lsn): void }
  readonly drain: AbortSignal
}

/** the state is written, and the slot confirmed, at least this often while events flow (ms) */
const STATE_INTERVAL = 1_000
/** … and this often when only an idle database's WAL end moves */
const IDLE_STATE_INTERVAL = 10_000
const COPY_INTERVAL = 10_000
const LOG_END_INTERVAL = 60_000
/** how often the session looks whether any of these is due */
const TICK = 50
/** Keeps the relay's state durable and the slot confirmed: intent first, then the confirm, the copy in its own time. */
export interface StateKeeper {
  readonly session: number
  readonly confirmed: Lsn
  /** everything that ends at or below this LSN is durable in the queue */
  covered(end: Lsn, withEvents: boolean): void
  /**
   * Writes the state as it is, without confirming more. After a failure every further write fails as well: the one that
   * failed may arrive yet, and would replace what a later one confirmed.
   */
  record(): Promise<void>
  /**
   * Resolves when nobody else has recorded a session since ours, nor partitions of these topics. To be asked before the count of
   * a topic's partitions is recorded, and again before anything is published by it: of two sessions that take a topic, one of
   * which was replaced and does not know it, at least the second to write sees the other, and its count may be another one.
   * @throws MILLRACE_STREAM_BROKEN when somebody has: the next session goes on with what is recorded
   */
  alone(topics: readonly string[]): Promise<void>
  /** writes the state, then confirms what it covers */
  write(session: SourceSession): Promise<void>
  copy(): Promise<void>
  /** does all this when it is due, until stopped; rejects when any of it fails */
  run(session: SourceSession): Promise<void>
  stop(): Promise<void>
}

export function createKeeper(options: KeeperOptions, plan: RelayPlan, begun: RelayState, confirmedAtStart: Lsn): StateKeeper {
  const { source, queue, clock, failpoint, report, log } = options
  const key = stateKey(source.name, begun.session, options.newWriter())
  let state = begun
  let safe = confirmedAtStart
  let confirmed = confirmedAtStart
  let eventsSinceWrite = false
  let eventsSinceCopy = false
  let writtenAt = clock.elapsed()
  let copiedAt = clock.elapsed()
  let lookedAt = clock.elapsed()
  const stopped = new AbortController()
  let tick: Promise<void> = Promise.resolve()
  let writing: Promise<void> = Promise.resolve()

  const keeper: StateKeeper = {
    get session() {
      return state.session
    },
    get confirmed() {
      return confirmed
    },
    covered(end, withEvents) {
      if (end > safe) safe = end
      if (withEvents) {
        eventsSinceWrite = true
        eventsSinceCopy = true
      }
    },
    record() {
      // one at a time: of two writes under way the older could land last, and the state would fall behind the confirm
      writing = writing.then(async () => {
        state = { ...state, topics: plan.topics }
        await queue.state.write(key, encodeState(state))
        writtenAt = clock.elapsed()
      })
      return writing
    },
    async alone(topics) {
      const records = new Map(await queue.state.read(statePrefix(source.name)))
      records.delete(key)
      const other = latestState(records)
      if (other === null) return
      const taken = other.drained === null ? topics.find((topic) => other.topics.has(topic)) : undefined
      if (other.session < state.session && taken === undefined) return
      throw new MillraceError(
        'MILLRACE_STREAM_BROKEN',
        `another relay has recorded ${taken === undefined ? 'a session' : `the topic ${taken}`} meanwhile: this one was replaced, or replaces it`,
      )
    },
    async write(session) {
      if (safe <= confirmed) return
      const intent = safe
      eventsSinceWrite = false
      await session.intact()
      // a slot that rewound begins below what an earlier session intended
      if (intent > state.intent) state = { ...state, intent }
      await keeper.record()
      await failpoint('state-written')
      session.confirm(intent)
      confirmed = intent
      report.confirmed(intent)
      await failpoint('confirmed')
    },
    async copy() {
      if (!eventsSinceCopy) return
      eventsSinceCopy = false
      copiedAt = clock.elapsed()
      try {
        const kept = await source.stateCopy.read()
        // another session has taken over, and keeps the copy
        if (kept !== null && decodeState(kept).session > state.session) return
        const copy = state
        if (await source.stateCopy.write(encodeState(copy), kept)) state = { ...state, copied: copiedOf(copy) }
      } catch (error) {
        log.warn({ err: error }, "the copy of the relay's state could not be written")
      }
    },
    async run(session) {
      const due = async (): Promise<void> => {
        const at = clock.elapsed()
        const interval = eventsSinceWrite ? STATE_INTERVAL : IDLE_STATE_INTERVAL
        if (session.wantsConfirm || at - writtenAt >= interval) await keeper.write(session)
        if (at - copiedAt >= COPY_INTERVAL) await keeper.copy()
        if (at - lookedAt >= LOG_END_INTERVAL) {
          lookedAt = at
          await insisted(lookAtLogEnds, clock, options.drain)
        }
      }
      while (!stopped.signal.aborted) {
        tick = due()
        await tick
        await clock.wait(TICK, stopped.signal)
      }
    },
    async stop() {
      stopped.abort()
      await tick.catch(() => {})
    },
  }

  /** (i) while running: a log that ends below what it acknowledged has lost it */
  async function lookAtLogEnds(): Promise<void> {
    for (const [topic, tails] of plan.topics) {
      const logs = await queue.ranges(topic)
      for (const [partition, tail] of tails.entries()) {
        const range = logs[partition]
        if (range !== undefined) beginSearch({ topic, partition }, source.name, tail, range)
      }
    }
  }

  return keeper
}
