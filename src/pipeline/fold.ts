import { type Beginning, decodeBeginning, encodeBeginning } from '../core/chain.ts'
import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import type { Copy, Reach } from '../core/copy.ts'
import { MillraceError } from '../core/errors.ts'
import { type Event, orderOf } from '../core/event.ts'
import { policyFor } from '../core/policy.ts'
import { type Position, parsePosition, position } from '../core/position.ts'
import type { Queue, StoredRecord, TopicPartition } from '../core/queue.ts'
import type { Lane, LaneBatch, Parking, ParkReason, PartitionCheckpoint, Sink } from '../core/sink.ts'
import { eventKey, type Founded, type LaneRules, type LaneState, planLane, type Verdict } from './lane-plan.ts'
import type { Pace } from './pace.ts'

/**
 * Folding: the queue's events into a sink's copy, as far as the sink itself has got (PROTOCOL 2.5). The copy is a replica
 * with checkpoints of its own, so a fold that broke off goes on where it stood, and what is folded is what live
 * applying makes of it.
 *
 * The sink's checkpoint and the keys parked there are read together and before the fold: it never goes beyond, and
 * what waits in the sink is folded apart. A key that was parked then, and is no more when the fold goes on, has events
 * in the sink that the copy holds apart: the copy is folded anew.
 */
export interface FoldOptions {
  readonly sink: Pick<Sink, 'checkpoints' | 'parking'>
  readonly copy: Pick<Copy, 'fold' | 'restart'>
  readonly queue: Pick<Queue, 'read'>
  /** null: every source */
  readonly sources: ReadonlySet<string> | null
  /** what of a partition is folded; null: nothing */
  readonly span: (checkpoint: PartitionCheckpoint) => Promise<FoldSpan | null> | FoldSpan | null
  /** null: every event. Must be all or nothing for the events of one row, or leave out only the oldest of them. */
  readonly selects: ((event: Event, place: TopicPartition) => boolean) | null
  readonly pace: Pace
  readonly log: Log
  readonly clock: Clock
  readonly signal: AbortSignal
  /** After each batch, with the records read by this call and those it has to read; what it throws ends the fold. */
  readonly note: (read: number, of: number) => Promise<void>
}

export interface FoldSpan {
  /** the first offset to be read; a partition that the copy has begun goes on where it stands */
  readonly start: bigint
  /** exclusive; null: to the sink's checkpoint, which it never passes */
  readonly end: bigint | null
  /** Judges where a chain begins, or begins anew, before that is folded: throws what tells that something is missing. */
  readonly founded?: (founded: Founded) => void
  /** Judges what was read, once that is all that the sink has applied: by source, the last of each. Throws likewise. */
  readonly ended?: (read: ReadonlyMap<string, Position>, applied: ReadonlyMap<string, Position>) => void
}

export interface Folded {
  /** the sink's checkpoints that were folded up to */
  readonly live: readonly StandingCheckpoint[]
  /** how far back this copy tells of rows that it does not hold */
  readonly reach: Reach
  readonly events: number
  /** keys whose events are folded apart, because they are parked in the sink */
  readonly parked: number
  /** as `orderOf` writes them: keys folded apart because the copy could not take one of their events */
  readonly refused: readonly string[]
}

/** of a partition in which the sink has begun */
export type StandingCheckpoint = PartitionCheckpoint & { readonly offset: bigint }

/** partitions that are folded at once */
const LANES = 4
/** times that a copy is made anew because somebody redrove a key */
const REFOLDS = 3
/** audit records that are looked through for events that people gave up */
const AUDIT = 100_000

/** Brings the copy up to where the sink stands now. To be called again to go on. */
export async function foldOn(options: FoldOptions): Promise<Folded> {
  for (let refolds = 0; ; refolds++) {
    const live = (await options.sink.checkpoints()).filter(hasBegun)
    const lanes = await openLanes(options, live)
    try {
      const redriven = lanes.some(isRedriven)
      if (!redriven || refolds === REFOLDS) {
        if (redriven) options.log.warn({}, 'keys are redriven again and again: those that were parked before are left alone')
        const folded = await foldLanes(options, lanes)
        return { live, reach: reachOf(lanes), ...folded }
      }
    } finally {
      await Promise.allSettled(lanes.map(({ lane }) => lane.release()))
    }
    options.log.info({}, 'a key that was parked is no more: the copy is folded anew')
    await options.copy.restart()
  }
}

/** a fold that read no more than this ended where the sink stood a moment ago */
const CAUGHT_UP = 5_000
const CATCH_UPS = 5

/** Folds on until little is left that the sink has applied meanwhile. @param read records, in all so far */
export async function catchUp(read: () => number, fold: () => Promise<unknown>): Promise<void> {
  let before = Number.NEGATIVE_INFINITY
  for (let round = 1; round <= CATCH_UPS && read() - before > CAUGHT_UP; round++) {
    before = read()
    await fold()
  }
}

/** the first offset that is retained */
export async function logStart(queue: Pick<Queue, 'ranges'>, { topic, partition }: TopicPartition): Promise<bigint> {
  const range = (await queue.ranges(topic))[partition]
  if (range !== undefined) return range.start
  throw new MillraceError(
    'MILLRACE_QUEUE_OFFSET_GONE',
    `the queue has no partition ${partition} of ${topic}, which the sink has applied`,
    { remedy: 'find out who made the topic again; nothing was changed', fields: { topic, partition } },
  )
}

const hasBegun = (checkpoint: PartitionCheckpoint): checkpoint is StandingCheckpoint => checkpoint.offset !== null

interface FoldLane {
  readonly lane: Lane
  readonly place: TopicPartition
  readonly span: FoldSpan
  readonly live: StandingCheckpoint
  state: LaneState
  readonly end: bigint
  /** keys that are folded apart */
  readonly apart: Set<string>
  readonly marks: Marks
}

/** What the fold keeps with the copy's checkpoint, beside how it began. */
interface Marks {
  readonly start: bigint
  /** by source: the event that its chain began with, or began anew with */
  readonly founded: Map<string, Position>
  /** keys that are apart because the copy refused one of their events */
  readonly refused: Set<string>
}

function encodeMarks(beginning: Beginning, { start, founded, refused }: Marks): string {
  const marks = { start: String(start), founded: [...founded], refused: [...refused] }
  return JSON.stringify({ beginning: encodeBeginning(beginning), ...marks })
}

function decodeMarks(text: string): Marks & { readonly beginning: Beginning } {
  const { beginning, start, founded, refused } = JSON.parse(text) as {
    readonly beginning: string
    readonly start: string
    readonly founded: readonly [string, Position][]
    readonly refused: readonly string[]
  }
  const marks = { start: BigInt(start), founded: new Map(founded), refused: new Set(refused) }
  return { ...marks, beginning: decodeBeginning(beginning) }
}

async function openLanes({ copy, span }: FoldOptions, live: readonly StandingCheckpoint[]): Promise<readonly FoldLane[]> {
  const lanes: FoldLane[] = []
  try {
    for (const checkpoint of live) {
      const spanned = await span(checkpoint)
      if (spanned === null) continue
      const place = { topic: checkpoint.topic, partition: checkpoint.partition }
      const lane = await copy.fold(place)
      const end = spanned.end === null || spanned.end > checkpoint.offset ? checkpoint.offset : spanned.end
      const apart = new Set(lane.checkpoint.parked)
      lanes.push({ lane, place, span: spanned, live: checkpoint, end, apart, ...(await beginLane(lane, spanned, checkpoint)) })
    }
    return lanes
  } catch (error) {
    await Promise.allSettled(lanes.map(({ lane }) => lane.release()))
    throw error
  }
}

/** Where the lane goes on; one without a checkpoint pins its start at once. */
async function beginLane(
  { checkpoint, apply }: Lane,
  { start }: FoldSpan,
  live: StandingCheckpoint,
): Promise<Pick<FoldLane, 'state' | 'marks'>> {
  if (checkpoint.offset !== null && checkpoint.beginning !== null) {
    const { beginning, ...marks } = decodeMarks(checkpoint.beginning)
    const chains = new Map(
      [...checkpoint.positions].map(([source, at]) => [source, { at, founding: beginning.founding.has(source) }]),
    )
    const parked = new Set([...checkpoint.parked, ...live.parked])
    return { state: { chains, parked, offset: checkpoint.offset, beginning }, marks }
  }
  // in the midst of the log a chain that is not known may begin with a late duplicate, as far as the sink had met it
  const beginning: Beginning = { until: start === 0n ? 0n : live.offset, founding: new Set() }
  const marks: Marks = { start, founded: new Map(), refused: new Set() }
  await apply({ moves: [], offset: start, events: [], parked: [], beginning: encodeMarks(beginning, marks) })
  return { state: { chains: new Map(), parked: live.parked, offset: start, beginning }, marks }
}

/**
 * What a lane that began in the midst of its log cannot tell of: what stood before the event that its chain was founded by
 * last. What stood before that one in the log may be late duplicates, with all that lies between missing; and all of
 * it, when the chain ends below what the sink has applied.
 */
function reachOf(lanes: readonly FoldLane[]): Reach {
  const since = new Map<string, Position>()
  for (const { marks, live, state } of lanes) {
    if (marks.start === 0n) continue
    for (const [source, applied] of live.positions) {
      const met = state.chains.get(source)?.at === applied
      const from = (met ? marks.founded.get(source) : undefined) ?? next(applied)
      if (from > (since.get(source) ?? '')) since.set(source, from)
    }
  }
  return { whole: lanes.every(({ marks }) => marks.start === 0n), since }
}

/** Holds what was read against what the sink has applied. @throws MILLRACE_REPLAY_REFUSED, and what the span throws */
function judgeEnd(
  { place: { topic, partition }, span, marks, state, live, end }: FoldLane,
  sources: FoldOptions['sources'],
): void {
  if (end < live.offset) return
  const read = new Map([...state.chains].flatMap(([source, { at }]) => (at === null ? [] : [[source, at] as const])))
  span.ended?.(read, live.positions)
  if (marks.start > 0n) return
  for (const [source, applied] of live.positions) {
    const at = read.get(source) ?? null
    if (at === applied || sources?.has(source) === false) continue
    throw new MillraceError(
      'MILLRACE_REPLAY_REFUSED',
      `${topic}/${partition} holds events of ${source} up to ${at ?? 'none'} where the sink has applied them up to ${applied}: the queue is not the one that the sink was fed from`,
      {
        remedy:
          'find out whether the topic was made again or restored, or the checkpoint was moved by hand; millrace check says more',
        fields: { topic, partition, source, at, applied },
      },
    )
  }
}

function next(at: Position): Position {
  const { epoch, commitLsn, index } = parsePosition(at)
  return position(epoch, commitLsn, index + 1)
}

/** Whether the sink has got events of keys that the copy holds apart because they were parked. */
function isRedriven({ apart, marks: { refused }, live }: FoldLane): boolean {
  for (const order of apart) if (!live.parked.has(order) && !refused.has(order)) return true
  return false
}

async function foldLanes(options: FoldOptions, lanes: readonly FoldLane[]): Promise<Omit<Folded, 'live' | 'reach'>> {
  const failed = new AbortController()
  const signal = AbortSignal.any([options.signal, failed.signal])
  const givenUp = await givenUpEvents(options.sink.parking)
  const of = lanes.reduce((sum, { state, end }) => sum + Math.max(0, Number(end - state.offset)), 0)
  let read = 0
  let events = 0
  const waiting = [...lanes]

  async function work(): Promise<void> {
    for (let next = waiting.shift(); next !== undefined && !signal.aborted; next = waiting.shift()) {
      const folded = await foldLane(next, { ...options, signal }, givenUp, async (records) => {
        read += records
        await options.note(Math.min(read, of), of)
      })
      events += folded
    }
  }
  const workers = Array.from({ length: Math.min(LANES, lanes.length) }, async () => {
    try {
      await work()
    } catch (error) {
      // the first one is why; what the others then say is that they were stopped
      if (!failed.signal.aborted) failed.abort(error)
    }
  })
  await Promise.all(workers)
  if (failed.signal.aborted) throw failed.signal.reason
  await options.note(of, of)
  const refused = lanes.flatMap(({ marks }) => [...marks.refused])
  return { events, refused, parked: lanes.reduce((sum, { apart }) => sum + apart.size, 0) - refused.length }
}

/** records that are planned together once one of them was refused */
const REFUSING = 64
/** refused events of one partition that are logged each */
const TOLD = 20
/** refused keys of one partition that are left alone: where there are more, it is no event that is at fault. They are kept by name */
const MAX_REFUSED = 1_000

async function foldLane(
  own: FoldLane,
  { queue, sources, selects, pace, signal, log }: FoldOptions,
  givenUp: ReadonlySet<string>,
  note: (records: number) => Promise<void>,
): Promise<number> {
  const { lane, place, span, end, marks, apart } = own
  const leftOut = selects === null ? null : (event: Event) => !selects(event, place)
  const wasGivenUp = givenUp.size === 0 ? null : (event: Event) => givenUp.has(eventOf(orderOf(event), event.position))
  const passes = (event: Event): boolean => leftOut?.(event) === true || wasGivenUp?.(event) === true
  const rules: LaneRules = { ...place, sources, parks: true, ...((leftOut ?? wasGivenUp) !== null && { passes }) }
  let events = 0
  let told = 0

  async function apply(records: readonly StoredRecord[]): Promise<void> {
    const verdicts = new Map<string, Verdict>()
    for (;;) {
      const plan = planLane(own.state, records, rules, verdicts)
      for (const founded of plan.founded) span.founded?.(founded)
      const news: Marks = {
        start: marks.start,
        founded: new Map(plan.founded.map(({ event }) => [event.source, event.position])),
        refused: new Set(plan.batch.parked.flatMap(({ event, reason }) => (reason === null ? [] : [orderOf(event)]))),
      }
      const lastRefused = plan.batch.parked.findLast(({ reason }) => reason !== null)
      if (lastRefused?.reason != null && marks.refused.size + news.refused.size > MAX_REFUSED)
        throw tooManyRefused(place, lastRefused.reason)
      const changed = plan.batch.beginning !== null || news.founded.size > 0 || news.refused.size > 0
      const beginning = changed ? encodeMarks(plan.after.beginning as Beginning, together(marks, news)) : null
      try {
        if (plan.batch.offset > own.state.offset) await lane.apply({ ...plan.batch, beginning })
      } catch (caught) {
        const event = refusedEvent(plan.batch, caught)
        if (event === null) throw caught
        // each refusal plans its records anew, which is quadratic where everything is refused: few at a time from here on
        if (records.length > REFUSING) {
          for (let from = 0; from < records.length; from += REFUSING) await apply(records.slice(from, from + REFUSING))
          return
        }
        const { code, message } = caught as MillraceError
        verdicts.set(eventKey(event), { park: { code, message } })
        continue
      }
      for (const { event } of plan.batch.parked) apart.add(orderOf(event))
      for (const [source, at] of news.founded) marks.founded.set(source, at)
      for (const order of news.refused) marks.refused.add(order)
      for (const { event, reason } of plan.batch.parked)
        if (reason !== null && told++ < TOLD)
          log.warn(
            { ...place, code: reason.code, position: event.position, source: event.source },
            `the copy cannot take an event, so its key is left alone: ${reason.message}`,
          )
      own.state = plan.after
      events += plan.batch.events.length
      if (plan.stopped !== null) throw plan.stopped
      return
    }
  }

  if (own.state.offset < end) {
    for await (const batch of queue.read(place, { start: own.state.offset, end }, signal))
      for (let from = 0; from < batch.length; from += pace.piece) {
        const piece = from === 0 && batch.length <= pace.piece ? batch : batch.slice(from, from + pace.piece)
        await pace.take(piece.length, signal)
        if (!signal.aborted) await apply(piece)
        await note(signal.aborted ? 0 : piece.length)
        if (signal.aborted) return events
      }
    if (signal.aborted) return events
  }
  judgeEnd(own, sources)
  // offsets need not be dense: nothing that is retained stands between the last record and the end
  if (own.state.offset < end) {
    await lane.apply({ moves: [], offset: end, events: [], parked: [], beginning: null })
    own.state = { ...own.state, offset: end }
  }
  return events
}

function together({ start, founded, refused }: Marks, news: Marks): Marks {
  return { start, founded: new Map([...founded, ...news.founded]), refused: new Set([...refused, ...news.refused]) }
}

function tooManyRefused({ topic, partition }: TopicPartition, { code, message }: ParkReason): MillraceError {
  return new MillraceError(
    'MILLRACE_REPLAY_REFUSED',
    `the copy cannot take events of more than ${MAX_REFUSED} keys of ${topic}/${partition}, the last because: ${message} (${code})`,
    {
      remedy: 'what was mended until then stays; mend the mapping or the table that refuses them',
      fields: { topic, partition, code },
    },
  )
}

/** The event of the batch that the copy says it cannot take; null when what failed is no event's fault. */
function refusedEvent({ events }: LaneBatch, caught: unknown): Event | null {
  if (!(caught instanceof MillraceError) || policyFor(caught) !== 'park') return null
  const { position, source } = caught.fields
  return events.find((event) => event.position === position && (source === undefined || event.source === source)) ?? null
}

/** What people gave up for good: the sink went on without it, and so does the fold. */
async function givenUpEvents(parking: Parking | null): Promise<ReadonlySet<string>> {
  const records = parking === null ? [] : await parking.audit(AUDIT)
  return new Set(records.flatMap(({ order, skipped }) => (skipped === null ? [] : [eventOf(order, skipped)])))
}

const eventOf = (order: string, position: Position): string => `${position} ${order}`
