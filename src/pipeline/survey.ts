import { type Event, orderOf } from '../core/event.ts'
import type { Queue, TopicPartition } from '../core/queue.ts'
import { fromRecord } from '../core/record.ts'
import { aggregateFilter, type ReplayAggregate } from './replay.ts'
import { type PartitionRange, type ReplayRange, selects } from './replay-range.ts'

/** What lies in a range, as far as it can be told cheaply. */
export interface Survey {
  readonly events: number
  /** null: not counted */
  readonly keys: number | null
  /** `events` were counted; else there are at most so many */
  readonly exact: boolean
  /** when the first and the last of them was committed, ms since the Unix epoch; null: there is none */
  readonly first: number | null
  readonly last: number | null
}

/** records that are read to be counted */
const COUNTED = 20_000

export async function survey(options: {
  readonly queue: Pick<Queue, 'read'>
  readonly range: ReplayRange
  readonly partitions: readonly PartitionRange[]
  readonly aggregate: ReplayAggregate | null
  readonly sources: ReadonlySet<string> | null
}): Promise<Survey> {
  const { queue, partitions, aggregate, sources } = options
  const records = partitions.reduce((sum, { start, end }) => sum + Number(end - start), 0)
  const isMeant = aggregateFilter(aggregate?.id ?? null)
  const keys = new Set<string>()
  let events = 0
  let first: number | null = null
  let last: number | null = null

  async function look(own: PartitionRange, start: bigint, end: bigint, most: number): Promise<void> {
    if (start >= end) return
    let seen = 0
    for await (const batch of queue.read(placeOf(own), { start, end }))
      for (const record of batch) {
        const event = readable(() => fromRecord(record))
        if (event === null || sources?.has(event.source) === false || !isMeant(event) || !selects(own, event)) continue
        events++
        keys.add(`${own.topic} ${orderOf(event)}`)
        first = first === null || event.committedAt < first ? event.committedAt : first
        last = last === null || event.committedAt > last ? event.committedAt : last
        if (++seen >= most) return
      }
  }

  if (records <= COUNTED) {
    for (const own of partitions) await look(own, own.start, own.end, Number.POSITIVE_INFINITY)
    return { events, keys: keys.size, exact: true, first, last }
  }
  for (const own of partitions) {
    await look(own, own.start, own.end, 1)
    await look(own, own.end - 1n > own.start ? own.end - 1n : own.start, own.end, 1)
  }
  return { events: records, keys: aggregate === null || aggregate.id === null ? null : 1, exact: false, first, last }
}

const placeOf = ({ topic, partition }: TopicPartition): TopicPartition => ({ topic, partition })

/** what cannot be read is told by the replay itself */
function readable(read: () => Event | null): Event | null {
  try {
    return read()
  } catch {
    return null
  }
}
