import type { Clock } from '../core/clock.ts'
import type { Lsn } from '../core/position.ts'
import type { OffsetRange, Queue } from '../core/queue.ts'
import { fromRecord } from '../core/record.ts'
import type { RelayState } from '../core/relay-state.ts'
import type { Pace } from './pace.ts'

/**
 * Whether each row that the outbox retains is an event in the queue, by id: a loss between the two shows, whatever the
 * chains say. Runs beside services and relay; rows that the relay has not come to are waited for, and are not missing.
 */
export interface VerifyingOutbox {
  /** the pipeline's own */
  readonly source: string
  readonly queue: Pick<Queue, 'ranges' | 'read' | 'offsetAt'>
  readonly rows: OutboxIds
  /** empty; as large as the outbox, so not in memory */
  readonly ids: IdSet
  /** the relay's, as it is recorded now; null: there is none */
  readonly state: () => Promise<RelayState | null>
  readonly pace: Pace
  readonly clock: Clock
  readonly signal: AbortSignal
  /** Told now and then with how many rows were looked at; what it throws ends it. */
  readonly note: (rows: number) => Promise<void>
}

/** See `src/postgres/outbox-walk.ts`. */
export interface OutboxIds {
  chunks(): AsyncIterable<readonly { readonly id: string; readonly createdAt: number | null }[]>
  committedUpTo(): Promise<Lsn>
}

export interface IdSet {
  add(rows: readonly { readonly id: string; readonly createdAt: number | null }[]): void
  remove(ids: readonly string[]): void
  readonly size: number
  /** how many are created at or after the time (ms), or at no known time where `time` is null; and the first of them */
  since(time: number | null, limit: number): { readonly count: number; readonly ids: readonly string[] }
}

export interface OutboxVerdict {
  readonly rows: number
  /** in the outbox, relayed as far as the relay's record goes, and not in the queue */
  readonly missing: number
  /** the first of them */
  readonly missingIds: readonly string[]
  /** not in the queue, and older than it retains */
  readonly unverifiable: number
  /** not in the queue, and nobody can say whether the relay has come to them: it did not get there in time */
  readonly waiting: number
}

/** by how much the clocks of database and queue may differ (ms) */
const CLOCK_MARGIN = 600_000
/** for how long the relay may stand before it is no longer waited for (ms) */
const PATIENCE = 20_000
const POLL = 250
const NAMED = 20
const IDS = 1_000

export async function verifyOutbox(verifying: VerifyingOutbox): Promise<OutboxVerdict> {
  const { rows, ids, pace, signal, note, queue } = verifying
  let count = 0
  let oldest: number | null = null
  let dated = true
  for await (const chunk of rows.chunks()) {
    ids.add(chunk)
    count += chunk.length
    for (const { createdAt } of chunk)
      if (createdAt === null) dated = false
      else if (oldest === null || createdAt < oldest) oldest = createdAt
    await pace.take(chunk.length, signal)
    await note(count)
  }
  const upTo = await rows.committedUpTo()
  const logs = await logsOf(verifying)
  const since = dated && oldest !== null ? oldest - CLOCK_MARGIN : null
  for (const log of logs) log.from = since === null ? log.range.start : await queue.offsetAt(log.topic, log.partition, since)
  for (const log of logs) await takeKnown(verifying, log, { start: log.from, end: log.range.end })

  const relayed = ids.size === 0 || (await comesTo(verifying, upTo))
  if (ids.size > 0)
    for (const later of await logsOf(verifying)) {
      const seen = logs.find((log) => log.topic === later.topic && log.partition === later.partition)
      await takeKnown(verifying, later, { start: seen?.range.end ?? later.range.start, end: later.range.end })
    }
  // before anything is called missing, what was published earlier than its row says is looked for as well
  if (ids.size > 0) for (const log of logs) await takeKnown(verifying, log, { start: log.range.start, end: log.from })

  const horizon = await horizonOf(verifying, logs)
  const found = ids.since(horizon, NAMED)
  const lost = horizon === Number.POSITIVE_INFINITY || (horizon !== null && !dated) ? { count: 0, ids: [] } : found
  return {
    rows: count,
    missing: relayed ? lost.count : 0,
    missingIds: relayed ? lost.ids : [],
    unverifiable: ids.size - lost.count,
    waiting: relayed ? 0 : lost.count,
  }
}

interface Log {
  readonly topic: string
  readonly partition: number
  readonly range: OffsetRange
  /** where the first reading began */
  from: bigint
}

async function logsOf({ state, queue }: VerifyingOutbox): Promise<Log[]> {
  const logs: Log[] = []
  for (const topic of (await state())?.topics.keys() ?? [])
    for (const [partition, range] of (await queue.ranges(topic)).entries())
      logs.push({ topic, partition, range, from: range.start })
  return logs
}

async function takeKnown(verifying: VerifyingOutbox, { topic, partition }: Log, range: OffsetRange): Promise<void> {
  const { queue, source, ids, signal, pace } = verifying
  if (range.start >= range.end) return
  let known: string[] = []
  for await (const batch of queue.read({ topic, partition }, range, signal)) {
    for (const record of batch) {
      const event = fromRecord(record)
      if (event?.source !== source) continue
      known.push(event.id)
      if (known.length < IDS) continue
      ids.remove(known)
      known = []
    }
    await pace.take(batch.length, signal)
    await verifying.note(0)
  }
  ids.remove(known)
}

/** Whether the relay's record comes to cover the position; given up when it has stood for a while. */
async function comesTo({ state, clock, signal, note }: VerifyingOutbox, upTo: Lsn): Promise<boolean> {
  let at: Lsn | null = null
  let movedAt = clock.elapsed()
  for (;;) {
    const intent: Lsn | null = (await state())?.intent ?? null
    if (intent !== null && intent >= upTo) return true
    if (intent !== at) {
      at = intent
      movedAt = clock.elapsed()
    }
    if (clock.elapsed() - movedAt > PATIENCE) return false
    await clock.wait(POLL, signal)
    await note(0)
  }
}

/**
 * The time (ms) before which a row may have had its record in what retention took; null: nothing was taken; infinite: all
 * of a partition was, so that nothing can be told.
 */
async function horizonOf({ queue, signal }: VerifyingOutbox, logs: readonly Log[]): Promise<number | null> {
  let horizon: number | null = null
  for (const { topic, partition } of logs) {
    const range = (await queue.ranges(topic))[partition]
    if (range === undefined || range.start === 0n) continue
    let first = Number.POSITIVE_INFINITY
    if (range.start < range.end)
      for await (const [record] of queue.read({ topic, partition }, range, signal)) {
        first = record?.timestamp ?? first
        break
      }
    horizon = Math.max(horizon ?? Number.NEGATIVE_INFINITY, first + CLOCK_MARGIN)
  }
  return horizon
}
