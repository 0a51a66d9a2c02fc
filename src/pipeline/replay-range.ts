import { MillraceError } from '../core/errors.ts'
import type { Event } from '../core/event.ts'
import type { Position } from '../core/position.ts'
import type { TopicPartition } from '../core/queue.ts'
import type { Founded } from './lane-plan.ts'
import { type Bound, parseBound } from './replay-bound.ts'
import { type Cut, cutAt, findEvents, judged, refuseReversed } from './replay-cut.ts'
import { after, highest, LOWEST, type RangeContext, rangesOf } from './replay-log.ts'
import { beginAt, endAt, type Lost } from './replay-place.ts'

/**
 * From what a person names to what is read: for each partition a place in its log, and for each source in it the
 * positions that are meant.
 *
 * Positions in a log do not only grow: a relay that was replaced may leave a run of old events anywhere behind their
 * first occurrence. So a place alone never tells what is meant, and a position never tells where it stands: both are kept.
 */
export interface ReplayRange {
  readonly from: RangeBound
  /** null: up to where the sink stands */
  readonly to: RangeBound | null
  readonly partitions: readonly PartitionRange[]
  /** partitions of which nothing is retained, and nobody can say when their last event was */
  readonly unproven: readonly TopicPartition[]
}

/** What was asked for, as it was understood. */
export interface RangeBound {
  readonly kind: Bound['kind']
  readonly text: string
  /** null: each partition has one of its own */
  readonly position: Position | null
  /** ms since the Unix epoch; null: not known */
  readonly time: number | null
}

export interface PartitionRange extends TopicPartition {
  /** nothing that is meant stands before it */
  readonly start: bigint
  /** exclusive; nothing that is meant stands from here on, of what stood in the log */
  readonly end: bigint
  /** by source: the first position that is meant; a source that is absent is not */
  readonly from: ReadonlyMap<string, Position>
  /** by source: the first position that is meant no more; absent: there is no end */
  readonly to: ReadonlyMap<string, Position>
}

export type { RangeContext, RangePlace } from './replay-log.ts'

/** whether the event is meant */
export function selects(
  { from, to }: Pick<PartitionRange, 'from' | 'to'>,
  { source, position }: Pick<Event, 'source' | 'position'>,
): boolean {
  const first = from.get(source)
  if (first === undefined || position < first) return false
  const last = to.get(source)
  return last === undefined || position < last
}

/**
 * Whether events that are meant are missing before this one, with which a chain begins, or begins anew: what it follows
 * lies in the range, and was not read.
 */
export function isHole({ from, to }: PartitionRange, { event: { source, prev }, at }: Founded): boolean {
  const first = from.get(source)
  const last = to.get(source)
  return first !== undefined && prev !== null && prev >= first && (at === null || last === undefined || at < last)
}

/**
 * Whether events that are meant are missing before the place up to which was read: what the sink has applied last there was
 * not met. A late run that stands last in a log whose other records retention took shows in no other way.
 */
export function isCutShort(
  { from }: PartitionRange,
  read: ReadonlyMap<string, Position>,
  applied: ReadonlyMap<string, Position>,
): boolean {
  for (const [source, at] of applied) {
    const first = from.get(source)
    if (first !== undefined && at >= first && read.get(source) !== at) return true
  }
  return false
}

/**
 * @throws MILLRACE_USAGE for a text that is none of what may be named
 * @throws MILLRACE_CHECKPOINT_UNKNOWN
 * @throws MILLRACE_REPLAY_REFUSED when the range lies in the future or in another stream, is reversed, or begins before what
 *   the queue retains
 */
export async function resolveRange(
  asked: { readonly from: string; readonly to: string | null },
  context: RangeContext,
): Promise<ReplayRange> {
  const logs = await rangesOf(context)
  const bounds = {
    from: parseBound(asked.from, context.checkpoints),
    to: asked.to === null ? null : parseBound(asked.to, context.checkpoints),
  }
  // both may be events: one look at the log finds them
  const found = await findEvents(context, logs, [bounds.from, bounds.to])
  const from = judged(context, cutAt(context, bounds.from, found))
  const to = bounds.to === null ? null : judged(context, cutAt(context, bounds.to, found))
  refuseReversed(from, to)

  const partitions: PartitionRange[] = []
  const unproven: TopicPartition[] = []
  const lost: Lost[] = []
  for (const place of context.places) {
    const log = logs(place)
    const begun = await beginAt(context, from, place, log)
    if (begun.missing === 'unproven') unproven.push({ topic: place.topic, partition: place.partition })
    else if (begun.missing !== null) lost.push(begun.missing)
    const ended = to === null ? { end: place.end, to: NOWHERE } : await endAt(context, to, place, { start: begun.start, log })
    partitions.push({
      topic: place.topic,
      partition: place.partition,
      start: begun.start,
      end: highest(ended.end, begun.start),
      // where one end is of one source alone, so is the range
      from: to === null || to.kind === 'time' ? begun.from : onlyOf(context.source, begun.from),
      to: ended.to,
    })
  }
  if (lost.length > 0) throw retentionError(from.bound, lost)
  return { from: described(from), to: to === null ? null : described(to), partitions, unproven }
}

function described(cut: Cut): RangeBound {
  const { kind, text } = cut.bound
  if (cut.kind === 'time') return { kind, text, position: null, time: cut.time }
  if (cut.kind === 'checkpoint') return { kind, text, position: cut.checkpoint.position, time: cut.checkpoint.at }
  return { kind, text, position: cut.first, time: null }
}

const onlyOf = (source: string, positions: ReadonlyMap<string, Position>): ReadonlyMap<string, Position> =>
  new Map([...positions].filter(([own]) => own === source))

const NOWHERE: ReadonlyMap<string, Position> = new Map()

/** partitions that a message names */
const NAMED = 8

/** The range begins before what the queue retains: from where it can instead. */
export function retentionError({ text }: Pick<Bound, 'text'>, lost: readonly Lost[]): MillraceError {
  let earliest = LOWEST
  let time: number | null = null
  const lines: string[] = []
  for (const { topic, partition, first, tail } of lost) {
    const begins = first?.position ?? (tail === null ? LOWEST : after(tail))
    if (begins > earliest) {
      earliest = begins
      time = first?.committedAt ?? null
    }
    lines.push(
      first === null
        ? `${topic}/${partition} holds nothing any more, its last event was ${tail}`
        : `${topic}/${partition} begins at ${first.position}, committed at ${new Date(first.committedAt).toISOString()}`,
    )
  }
  const more = lines.length > NAMED ? `; and ${lines.length - NAMED} more` : ''
  return new MillraceError(
    'MILLRACE_REPLAY_REFUSED',
    `${text}: it lies before what the queue retains: ${lines.slice(0, NAMED).join('; ')}${more}`,
    {
      remedy: `the earliest start that misses nothing is --from ${earliest}${time === null ? '' : ` (${new Date(time).toISOString()})`}; what lies before is not in the queue any more: rows of the source become events again by millrace backfill`,
      fields: { earliest, ...(time !== null && { earliestTime: new Date(time).toISOString() }), partitions: lost.length },
    },
  )
}

/** The range as text, for the job that is kept with a copy. */
export function encodeRange(range: ReplayRange): string {
  return JSON.stringify({
    ...range,
    partitions: range.partitions.map(({ start, end, from, to, ...place }) => ({
      ...place,
      start: String(start),
      end: String(end),
      from: [...from],
      to: [...to],
    })),
  })
}

/** @param text what `encodeRange` gave */
export function decodeRange(text: string): ReplayRange {
  const range = JSON.parse(text) as Omit<ReplayRange, 'partitions'> & {
    readonly partitions: readonly (TopicPartition & {
      readonly start: string
      readonly end: string
      readonly from: readonly [string, Position][]
      readonly to: readonly [string, Position][]
    })[]
  }
  return {
    ...range,
    partitions: range.partitions.map(({ start, end, from, to, ...place }) => ({
      ...place,
      start: BigInt(start),
      end: BigInt(end),
      from: new Map(from),
      to: new Map(to),
    })),
  }
}
