import type { Change } from '../core/change.ts'
import { lastEpoch } from '../core/epoch.ts'
import { partitionOf } from '../core/murmur2.ts'
import { type Lsn, position } from '../core/position.ts'
import type { Queue } from '../core/queue.ts'
import { fromRecord } from '../core/record.ts'
import type { RelayState, Tail } from '../core/relay-state.ts'
import { topicOf } from '../core/topic-template.ts'
import { createPlan } from './relay-plan.ts'

/** What the outbox holds at the start of a new slot. `known` takes away what the queue holds; `left` is asked for once. */
export interface OutboxRows {
  known(ids: readonly string[]): Promise<void>
  /** by (created_at, id); `committedAt` is when the row was created */
  left(): AsyncIterable<readonly Omit<Change, 'position'>[]>
}

export interface Refilled {
  readonly published: number
  /** rows of which nobody can say whether they were relayed: they were left alone */
  readonly ambiguous: number
  /** the ids of the first of them */
  readonly ambiguousIds: readonly string[]
}

/** ids of one statement */
const IDS = 5_000
const BATCH = { changes: 2_000, bytes: 1 << 20 }
const NAMED_IDS = 20
/** by how much the clocks of database and queue may differ (ms): rows that close to a trimmed log's start are ambiguous too */
const CLOCK_MARGIN = 600_000

/**
 * Publishes what a lost slot can no longer send (PROTOCOL 2.5): the rows of the outbox, as the new slot's snapshot shows
 * it, that the queue does not hold by id, before the first event of the new slot.
 *
 * The state is that of the new epoch, in which nothing else was published: its n-th row stands at (epoch, n, 0), which
 * is above all of the epochs before, and below any LSN at which a slot can start. Every attempt has an epoch of its own:
 * a request of an attempt that died can land late, and must not stand at the position of another row.
 *
 * `record` makes the tails of a new topic durable before its first event.
 */
export async function refill(options: {
  readonly queue: Queue
  readonly state: RelayState
  readonly topicTemplate: string
  readonly rows: OutboxRows
  readonly record: (topics: ReadonlyMap<string, readonly Tail[]>) => Promise<void>
  /** told after each request, and waited for */
  readonly progress: (published: number) => Promise<void> | void
}): Promise<Refilled & { readonly topics: ReadonlyMap<string, readonly Tail[]> }> {
  const { queue, state, topicTemplate, record } = options
  const plan = createPlan({ source: state.source, topicTemplate, maxRecordBytes: () => queue.traits.maxRecordBytes, state })
  const { epoch } = lastEpoch(state.epochs)
  const publisher = await queue.publisher()
  let ordinal: Lsn = 0n
  let published = 0

  async function publish(rows: readonly Omit<Change, 'position'>[]): Promise<void> {
    const changes = rows.map((row): Change => ({ ...row, position: position(epoch, ++ordinal, 0) }))
    for (const topic of plan.unknownTopics(changes)) {
      await queue.createTopic(topic)
      // what the topic takes is learned with it
      await queue.topics([topic])
      const logs = await queue.ranges(topic)
      plan.addTopic(
        topic,
        logs.map(({ end }) => ({ position: null, offset: end - 1n })),
      )
      await record(plan.topics)
    }
    const planned = plan.plan(changes)
    if (planned.refused !== null) throw planned.refused
    plan.acknowledge(planned, await publisher.publish(planned.batches))
    published += planned.count
    await options.progress(published)
  }

  try {
    let batch: Omit<Change, 'position'>[] = []
    let bytes = 0
    const doubtful = await eachMissing(options, async (row) => {
      batch.push(row)
      bytes += row.bytes
      if (batch.length < BATCH.changes && bytes < BATCH.bytes) return
      await publish(batch)
      batch = []
      bytes = 0
    })
    if (batch.length > 0) await publish(batch)
    return { published, ...doubtful, topics: plan.topics }
  } finally {
    await publisher.close()
  }
}

/** How many rows a refill would publish now. */
export async function countMissing(options: {
  readonly queue: Queue
  readonly state: RelayState
  readonly topicTemplate: string
  readonly rows: OutboxRows
}): Promise<number> {
  let count = 0
  await eachMissing(options, async () => {
    count++
  })
  return count
}

/** Hands on what the queue surely does not hold, in order, and tells what it cannot judge. */
async function eachMissing(
  {
    queue,
    state,
    topicTemplate,
    rows,
  }: { readonly queue: Queue; readonly state: RelayState; readonly topicTemplate: string; readonly rows: OutboxRows },
  take: (row: Omit<Change, 'position'>) => Promise<void>,
): Promise<Pick<Refilled, 'ambiguous' | 'ambiguousIds'>> {
  const horizons = new Map<string, readonly number[]>()
  for (const [topic, tails] of state.topics) {
    const all = await tellKnown(queue, topic, tails, state.source, rows)
    // keys stand where the stream's own count puts them, whatever was added to the topic
    horizons.set(topic, all.slice(0, tails.length))
  }
  const ambiguousIds: string[] = []
  let ambiguous = 0
  for await (const batch of rows.left())
    for (const row of batch) {
      const known = horizons.get(topicOf(topicTemplate, row.aggregateType))
      const horizon = known?.[partitionOf(row.orderingKey ?? row.aggregateId, known.length)] ?? Number.NEGATIVE_INFINITY
      if (row.committedAt >= horizon) await take(row)
      else {
        ambiguous++
        if (ambiguousIds.length < NAMED_IDS) ambiguousIds.push(row.id)
      }
    }
  return { ambiguous, ambiguousIds }
}

/**
 * Reads all that the topic retains. The answer is, for each partition, the time before which it cannot tell: what was
 * relayed before the first record that retention has left may have been there once (ms).
 */
async function tellKnown(
  queue: Queue,
  topic: string,
  tails: readonly Tail[],
  source: string,
  rows: OutboxRows,
): Promise<readonly number[]> {
  const horizons: number[] = []
  let ids: string[] = []
  for (const [partition, range] of (await queue.ranges(topic)).entries()) {
    const trimmed = range.start > 0n && tails[partition]?.position != null
    let horizon = trimmed ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY
    if (range.start < range.end)
      for await (const batch of queue.read({ topic, partition }, range))
        for (const record of batch) {
          if (horizon === Number.POSITIVE_INFINITY) horizon = record.timestamp + CLOCK_MARGIN
          const event = fromRecord(record)
          if (event?.source !== source) continue
          ids.push(event.id)
          if (ids.length < IDS) continue
          await rows.known(ids)
          ids = []
        }
    horizons.push(horizon)
  }
  await rows.known(ids)
  return horizons
}
