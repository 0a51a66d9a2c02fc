import type { Event } from '../core/event.ts'
import type { Position } from '../core/position.ts'
import type { OffsetRange, TopicPartition } from '../core/queue.ts'
import type { RelayState, Tail } from '../core/relay-state.ts'
import type { SavedCheckpoint } from '../core/saved-checkpoint.ts'
import type { Cut } from './replay-cut.ts'
import {
  after,
  CLOCK_MARGIN,
  clamped,
  eventsOf,
  firstEvents,
  highest,
  LOWEST,
  lowest,
  publishedAt,
  type RangeContext,
  type RangePlace,
  sourcesOf,
} from './replay-log.ts'

/** What retention took of a partition: the first event that is left, or the end of what is gone. */
export interface Lost extends TopicPartition {
  readonly first: Event | null
  readonly tail: Position | null
}

interface Begun {
  readonly start: bigint
  readonly from: ReadonlyMap<string, Position>
  readonly missing: Lost | 'unproven' | null
}

export async function beginAt(context: RangeContext, cut: Cut, place: RangePlace, log: OffsetRange): Promise<Begun> {
  return cut.kind === 'time'
    ? beginAtTime(context, cut.time, place, log)
    : beginAtPosition(context, firstOf(cut, place), place, log)
}

/** the first position of the pipeline's own source that is meant in this partition */
function firstOf(cut: Exclude<Cut, { kind: 'time' }>, place: TopicPartition): Position {
  if (cut.kind === 'position') return cut.first
  const at = tailOf(cut.checkpoint.topics, place)?.position ?? null
  return at === null ? LOWEST : after(at)
}

async function beginAtPosition(context: RangeContext, first: Position, place: RangePlace, log: OffsetRange): Promise<Begun> {
  const { source } = context
  const known = await placeBelow(context, first, place, log)
  const begun = { start: clamped(known, log, place), from: new Map([[source, first]]) }
  if (known >= log.start) return { ...begun, missing: null }
  // what a stale run hides at the start of a trimmed log shows as a hole when it is read
  const event = (await firstEvents(context, place, { start: log.start, end: place.end }, [source], () => true)).get(source)?.event
  if (event !== undefined) {
    const whole = event.prev === null || event.prev < first || event.position < first
    return { ...begun, missing: whole ? null : lost(place, event, null) }
  }
  const applied = place.positions.get(source)
  if (applied === undefined) return { ...begun, missing: 'unproven' }
  return { ...begun, missing: applied < first ? null : lost(place, null, applied) }
}

/**
 * The highest offset behind which, as some kept tail tells, all of the source stands that is not below the position: the
 * tail is the highest position of what stands up to it.
 */
async function placeBelow(context: RangeContext, first: Position, place: TopicPartition, log: OffsetRange): Promise<bigint> {
  let best: Tail | null = null
  for (const tails of keptTails(context)) {
    const tail = tailOf(tails, place)
    if (tail !== null && (tail.position === null || tail.position < first) && (best === null || tail.offset > best.offset))
      best = tail
  }
  if (best === null) return 0n
  return (await stands(context, best, place, log)) ? best.offset + 1n : 0n
}

function* keptTails({ checkpoints, state }: RangeContext): Generator<RelayState['topics']> {
  for (const { streamId, topics } of checkpoints) if (state === null || streamId === state.streamId) yield topics
  if (state !== null) yield state.topics
}

/** Whether the tail is of this log: a topic that was made again while the stream was drained has other records there. */
async function stands(context: RangeContext, tail: Tail, place: TopicPartition, log: OffsetRange): Promise<boolean> {
  if (tail.position === null) return tail.offset < 0n
  if (tail.offset >= log.end) return false
  if (tail.offset < log.start) return true
  for await (const { event } of eventsOf(context, place, { start: tail.offset, end: tail.offset + 1n }))
    return event.source === context.source && event.position === tail.position
  return false
}

/**
 * A time is found once, as the first event of each chain that was committed at it or later: the clock of a database may be
 * set back, and what a later event of a key did must not be left out for the time it bears.
 *
 * An event is published after it was committed, so what was committed at the time or later stands behind what was
 * published before it, as far as the clocks agree.
 */
async function beginAtTime(context: RangeContext, time: number, place: RangePlace, log: OffsetRange): Promise<Begun> {
  const sources = sourcesOf(context, place)
  const earlier = await savedBefore(context, time - CLOCK_MARGIN, place, log)
  const published = await publishedAt(context, time - CLOCK_MARGIN, place)
  // the first record that is left says nothing of those before it
  const known = highest(earlier.offset, published > log.start ? published : 0n)
  const start = clamped(known, log, place)
  const range = { start, end: place.end }
  const firsts = await firstEvents(context, place, range, sources, ({ committedAt }) => committedAt >= time)
  const from = new Map<string, Position>()
  let missing: Begun['missing'] = null
  for (const source of sources) {
    const first = firsts.get(source)
    const applied = place.positions.get(source) ?? null
    from.set(source, first?.event?.position ?? (applied === null ? LOWEST : after(applied)))
    if (known >= log.start) continue
    const isEarlier = (at: Position | null): boolean =>
      at === null || (source === context.source && earlier.position !== null && at <= earlier.position)
    if (first === undefined || (first.event === undefined && first.at !== applied)) {
      // nobody can say when the last of what is gone was
      if (applied === null || !isEarlier(applied)) missing ??= 'unproven'
    } else if (!isEarlier(first.founded.prev) && first.founded.committedAt > time - CLOCK_MARGIN)
      missing = lost(place, first.founded, null)
  }
  const begins = [...firsts.values()].flatMap(({ event, offset }) => (event === undefined ? [] : [offset]))
  return { start: begins.length === sources.length ? (begins.toSorted(ascending)[0] ?? start) : start, from, missing }
}

/** What the latest checkpoint that was saved by then tells of the partition. */
async function savedBefore(
  context: RangeContext,
  time: number,
  place: TopicPartition,
  log: OffsetRange,
): Promise<{ readonly offset: bigint; readonly position: Position | null }> {
  const { checkpoints, state } = context
  const saved = checkpoints
    .filter(({ at, streamId }) => at <= time && (state === null || streamId === state.streamId))
    .reduce<SavedCheckpoint | null>((latest, one) => (latest === null || one.at > latest.at ? one : latest), null)
  const tail = saved === null ? null : tailOf(saved.topics, place)
  if (tail === null || !(await stands(context, tail, place, log))) return { offset: 0n, position: null }
  return { offset: tail.offset + 1n, position: tail.position }
}

export async function endAt(
  context: RangeContext,
  cut: Cut,
  place: RangePlace,
  { start, log }: { readonly start: bigint; readonly log: OffsetRange },
): Promise<{ readonly end: bigint; readonly to: ReadonlyMap<string, Position> }> {
  const { source } = context
  if (cut.kind === 'time') {
    const sources = sourcesOf(context, place)
    const range = { start: await publishedAt(context, cut.time - CLOCK_MARGIN, place), end: place.end }
    const firsts = await firstEvents(context, place, range, sources, ({ committedAt }) => committedAt > cut.time)
    const beyond = [...firsts].flatMap(([source, { event, offset }]) => (event === undefined ? [] : [{ source, event, offset }]))
    return {
      end: beyond.length === sources.length ? beyond.reduce((end, { offset }) => highest(end, offset), start) : place.end,
      to: new Map(beyond.map(({ source, event }) => [source, event.position])),
    }
  }
  const to = cut.kind === 'position' ? after(cut.last) : firstOf(cut, place)
  return { end: lowest(await placeBeyond(context, to, place, log), place.end), to: new Map([[source, to]]) }
}

/** The lowest offset from which on, as some kept tail tells, nothing of the source stands for the first time below the position. */
async function placeBeyond(context: RangeContext, to: Position, place: RangePlace, log: OffsetRange): Promise<bigint> {
  let best: Tail | null = null
  for (const tails of keptTails(context)) {
    const tail = tailOf(tails, place)
    if (tail?.position != null && after(tail.position) >= to && (best === null || tail.offset < best.offset)) best = tail
  }
  // what retention took there may stand in a late run once more
  if (best === null || best.offset < log.start || !(await stands(context, best, place, log))) return place.end
  return best.offset + 1n
}

const ascending = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0)

const lost = ({ topic, partition }: TopicPartition, first: Event | null, tail: Position | null): Lost => ({
  topic,
  partition,
  first,
  tail,
})

const tailOf = (topics: RelayState['topics'], { topic, partition }: TopicPartition): Tail | null =>
  topics.get(topic)?.[partition] ?? null
