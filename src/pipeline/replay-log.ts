import { MillraceError } from '../core/errors.ts'
import type { Event } from '../core/event.ts'
import { type Position, parsePosition, position } from '../core/position.ts'
import type { OffsetRange, Queue, TopicPartition } from '../core/queue.ts'
import { fromRecord } from '../core/record.ts'
import type { RelayState } from '../core/relay-state.ts'
import type { SavedCheckpoint } from '../core/saved-checkpoint.ts'

/** By how much the clocks of the database, the relay and who saves checkpoints may differ (ms). */
export const CLOCK_MARGIN = 600_000
/** below every position */
export const LOWEST = position(0, 0n, 0)
export const MAX_INDEX = 0xffff_ffff

export interface RangePlace extends TopicPartition {
  /** the next offset that the sink reads: nothing beyond it is looked at */
  readonly end: bigint
  /** by source: what the sink has applied last here, which no event before `end` is above; empty where it keeps none */
  readonly positions: ReadonlyMap<string, Position>
}

export interface RangeContext {
  readonly queue: Pick<Queue, 'ranges' | 'offsetAt' | 'read'>
  /** the pipeline's own: checkpoints, positions, LSNs and event ids are of it; times are of every source */
  readonly source: string
  readonly places: readonly RangePlace[]
  readonly checkpoints: readonly SavedCheckpoint[]
  /** null: the stream is not known here, so that nothing can be held against it */
  readonly state: RelayState | null
  /** ms since the Unix epoch */
  readonly now: number
  readonly signal?: AbortSignal
}

export interface FirstEvent {
  /** absent: none of the source is meant */
  readonly event: Event | undefined
  readonly offset: bigint
  /** the chain's last event that was read: it, where there is one */
  readonly at: Position
  /** the event with which the chain as it was read begins, or began anew: what stood before it may be missing */
  readonly founded: Event
}

/** The first event of each source's chain that is meant; stale runs are passed over. Sources without any event are absent. */
export async function firstEvents(
  context: RangeContext,
  place: RangePlace,
  range: OffsetRange,
  sources: readonly string[],
  isMeant: (event: Event) => boolean,
): Promise<ReadonlyMap<string, FirstEvent>> {
  const firsts = new Map<string, FirstEvent>()
  let found = 0
  for await (const { event, offset } of eventsOf(context, place, range)) {
    const { source } = event
    const before = firsts.get(source)
    if (!sources.includes(source) || before?.event !== undefined) continue
    if (before !== undefined && event.position <= before.at) continue
    const founded = before === undefined || event.prev !== before.at ? event : before.founded
    const meant = isMeant(event)
    firsts.set(source, { event: meant ? event : undefined, offset, at: event.position, founded })
    if (meant && ++found === sources.length) break
  }
  return firsts
}

export const sourcesOf = ({ source }: RangeContext, { positions }: RangePlace): readonly string[] => [
  ...new Set([source, ...positions.keys()]),
]

export async function* eventsOf(
  { queue, signal }: RangeContext,
  place: TopicPartition,
  range: OffsetRange,
): AsyncGenerator<{ readonly event: Event; readonly offset: bigint }> {
  if (range.start >= range.end) return
  for await (const batch of queue.read({ topic: place.topic, partition: place.partition }, range, signal))
    for (const record of batch) {
      signal?.throwIfAborted()
      let event: Event | null = null
      try {
        event = fromRecord(record)
      } catch {
        // it halts whoever applies it; what is looked for is another
      }
      if (event !== null) yield { event, offset: record.offset }
    }
}

/** the first record that was published at the time or later, as far as the queue's own clock tells */
export const publishedAt = ({ queue }: RangeContext, time: number, { topic, partition }: TopicPartition): Promise<bigint> =>
  queue.offsetAt(topic, partition, Math.max(0, time))

/** the offset within what the log retains and the sink has read */
export function clamped(offset: bigint, log: OffsetRange, place: RangePlace): bigint {
  return lowest(highest(offset, log.start), place.end)
}

export function highest(a: bigint, b: bigint): bigint {
  if (a > b) return a
  return b
}

export function lowest(a: bigint, b: bigint): bigint {
  if (a < b) return a
  return b
}

/** the least position that is above it */
export function after(at: Position): Position {
  const { epoch, commitLsn, index } = parsePosition(at)
  return index < MAX_INDEX ? position(epoch, commitLsn, index + 1) : position(epoch, commitLsn + 1n, 0)
}

export type Logs = (place: TopicPartition) => OffsetRange

export async function rangesOf({ queue, places }: RangeContext): Promise<Logs> {
  const logs = new Map<string, readonly OffsetRange[]>()
  for (const { topic } of places) if (!logs.has(topic)) logs.set(topic, await queue.ranges(topic))
  return ({ topic, partition }) => {
    const log = logs.get(topic)?.[partition]
    if (log === undefined)
      throw new MillraceError('MILLRACE_QUEUE_NOT_READY', `the queue gave no range for ${topic}/${partition}`)
    return log
  }
}
