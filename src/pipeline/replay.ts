import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import type { Copy, RowTraits } from '../core/copy.ts'
import type { Event } from '../core/event.ts'
import type { Queue, TopicPartition } from '../core/queue.ts'
import type { Sink } from '../core/sink.ts'
import { type ComparePlace, compareAll, firstPlace, type KeyVerdict, type TargetCounts } from './compare.ts'
import { catchUp, type Folded, type FoldOptions, type FoldSpan, foldOn, logStart } from './fold.ts'
import type { Desk, Progress } from './job.ts'
import { paceOf } from './pace.ts'
import { LOWEST } from './replay-log.ts'
import {
  decodeRange,
  encodeRange,
  isCutShort,
  isHole,
  type PartitionRange,
  type ReplayRange,
  retentionError,
  selects,
} from './replay-range.ts'

/**
 * Replay, for a sink with rows: the keys that changed since a place in the stream are brought to their right state,
 * beside the live traffic and without a word to the relay or another sink (PROTOCOL 2.5).
 *
 * select → restart → fold → compare. The range selects the keys and not how far they are brought: the fold always ends
 * where the sink stands. `select` and `restart` are left out where the fold itself meets just the keys that are meant.
 */
export type ReplayStep = 'select' | 'restart' | 'fold' | 'compare'

/** What is remembered of a replay: JSON as it is. */
export interface ReplayState {
  /** as `encodeRange` writes it: of each partition that the sink had begun when the replay did */
  readonly range: string
  /** null: every aggregate */
  readonly aggregate: ReplayAggregate | null
  readonly step: ReplayStep
  /** the fold itself meets just the keys that are meant */
  readonly once: boolean
  /** the log is folded from its very start: what the range begins with is not enough for a row's state */
  readonly whole: boolean
  /** a row is written by the events of one key only: those of other aggregates need not be folded */
  readonly narrow: boolean
  /** events and keys a second; null: as fast as it goes */
  readonly rate: number | null
  /** records that were read */
  readonly read: number
  readonly place: ComparePlace | null
  readonly parked: number
  readonly refused: readonly string[]
}

/** One aggregate type has a topic of its own. */
export interface ReplayAggregate {
  readonly topic: string
  /** null: every one of the type */
  readonly id: string | null
}

export interface Replayed {
  /** records that were read from the queue */
  readonly read: number
  /** by table */
  readonly targets: readonly TargetCounts[]
  /** keys that wait in the sink, and were left alone */
  readonly parked: number
  /** keys of which the sink could not take an event now: they were left alone */
  readonly refused: readonly string[]
  /** the first of the keys that are not equal now */
  readonly left: readonly KeyVerdict[]
}

export interface ReplayWork {
  readonly sink: Pick<Sink, 'checkpoints' | 'parking'>
  readonly copy: Copy
  readonly queue: Pick<Queue, 'read' | 'ranges'>
  readonly desk: Desk<ReplayState>
  /** null: every source */
  readonly sources: ReadonlySet<string> | null
  readonly log: Log
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly failpoint: (name: ReplayFailpoint) => Promise<void> | void
}

/** Where tests kill the process. */
export type ReplayFailpoint =
  | 'replay-batch-folded'
  | 'replay-selected'
  | 'replay-restarted'
  | 'replay-folded'
  | 'replay-chunk-compared'
  | 'replay-done'
  | 'replay-batch-delivered'

/** keys of one comparison */
const CHUNK = 5_000
/** how often a key that the sink has written since is looked at again: by then it is right, or its position cannot be true */
const RECHECKS = 3
const LEFT_NAMED = 20

/** How a replay is to go, from what is asked for and what one event does to the sink's rows. Pure. */
export function beginReplay(
  { parts, shared }: RowTraits,
  range: ReplayRange,
  { aggregate, rate }: Pick<ReplayState, 'aggregate' | 'rate'>,
): ReplayState {
  const whole = range.partitions.every(({ start, from }) => start === 0n && [...from.values()].every((at) => at === LOWEST))
  // a fold that leaves out events must do so for all of a row's, or for the oldest of one partition
  const meetsMore = range.to !== null || (parts && !whole) || (shared && (aggregate !== null || !whole))
  return {
    range: encodeRange(range),
    aggregate,
    step: meetsMore ? 'select' : 'fold',
    once: !meetsMore,
    whole: parts,
    narrow: !shared,
    rate,
    read: 0,
    place: null,
    parked: 0,
    refused: [],
  }
}

/** Goes on from what the desk remembers. @throws Stopped, and whatever the sink and the queue do */
export async function replay(work: ReplayWork): Promise<Replayed> {
  const { copy, desk, queue, clock, signal, failpoint } = work
  const { once, whole, narrow, rate, aggregate } = desk.job.state
  const pace = paceOf(rate, clock)
  const range = decodeRange(desk.job.state.range)
  const ranges = new Map(range.partitions.map((one) => [placeOf(one), one]))
  const isMeant = aggregateFilter(aggregate?.id ?? null)
  const left: KeyVerdict[] = []

  const keep = (change: Partial<ReplayState>, progress: Progress, atOnce: boolean): Promise<void> =>
    desk.note({ state: { ...desk.job.state, ...change }, progress }, atOnce)

  async function fold(phase: string, of: Pick<FoldOptions, 'span' | 'selects'>): Promise<Folded> {
    const { state, progress: shown } = desk.job
    return foldOn({
      ...work,
      ...of,
      pace,
      async note(read, all) {
        await failpoint('replay-batch-folded')
        const progress: Progress = phase === 'compare' ? shown : { phase, unit: 'events', done: read, of: all }
        await keep({ read: state.read + read }, progress, false)
      },
    })
  }

  /** what the range selects */
  const select = (): Promise<Folded> =>
    fold('select', {
      span({ topic, partition }) {
        if (aggregate !== null && topic !== aggregate.topic) return null
        const own = ranges.get(placeOf({ topic, partition }))
        return own === undefined ? null : { ...watched(range, own), end: own.end }
      },
      selects: (event, place) => isMeant(event) && selects(ranges.get(placeOf(place)) as PartitionRange, event),
    })

  /** what the selected keys have come to */
  const bring = (phase: 'fold' | 'compare'): Promise<Folded> =>
    fold(phase, {
      async span({ topic, partition }) {
        if (narrow && aggregate !== null && topic !== aggregate.topic) return null
        const own = ranges.get(placeOf({ topic, partition }))
        if (own !== undefined && !whole) return { ...watched(range, own), end: null }
        // the sink had not begun this partition when the replay began: all of it is later
        return { start: await logStart(queue, { topic, partition }), end: null }
      },
      selects(event, place) {
        if (narrow && !isMeant(event)) return false
        const own = once ? ranges.get(placeOf(place)) : undefined
        return own === undefined || selects(own, event)
      },
    })

  async function brought(phase: 'fold' | 'compare'): Promise<void> {
    const { parked, refused } = await bring(phase)
    await keep({ parked, refused }, desk.job.progress, false)
  }

  if (desk.job.state.step === 'select') {
    await select()
    await copy.select()
    await failpoint('replay-selected')
    await keep({ step: 'restart' }, desk.job.progress, true)
  }
  if (desk.job.state.step === 'restart') {
    await copy.restart()
    await failpoint('replay-restarted')
    await keep({ step: 'fold' }, desk.job.progress, true)
  }
  // the copy may have been emptied since: by a crash of its server, or to be folded anew
  if (desk.job.state.step === 'compare') await brought('compare')
  if (desk.job.state.step === 'fold') {
    await catchUp(
      () => desk.job.state.read,
      () => brought('fold'),
    )
    await failpoint('replay-folded')
    await keep({ step: 'compare', place: firstPlace(copy.targets) }, { phase: 'compare', unit: 'keys', done: 0, of: null }, true)
  }
  const targets = await compareAll(
    {
      copy,
      foldOn: () => brought('compare'),
      reach: null,
      mend: { extras: false },
      pace,
      clock,
      signal,
      told(verdicts) {
        for (const one of verdicts) if (!one.mended && one.kind !== 'hot' && left.length < LEFT_NAMED) left.push(one)
      },
      async keep(place) {
        await failpoint('replay-chunk-compared')
        const done = place.counts.reduce((sum, { keys }) => sum + keys, 0)
        await keep({ place }, { phase: 'compare', unit: 'keys', done, of: null }, true)
      },
      rests: false,
      limit: CHUNK,
      rechecks: RECHECKS,
    },
    desk.job.state.place ?? firstPlace(copy.targets),
  )
  await failpoint('replay-done')
  const { read, parked, refused } = desk.job.state
  return { read, targets, parked, refused, left }
}

const placeOf = ({ topic, partition }: TopicPartition): string => `${topic}/${partition}`

/** A partition's range, and whether events that are meant are missing from it. Both throw MILLRACE_REPLAY_REFUSED. */
export function watched({ from }: ReplayRange, own: PartitionRange): Required<Omit<FoldSpan, 'end'>> {
  const { topic, partition } = own
  return {
    start: own.start,
    founded(founded) {
      if (isHole(own, founded)) throw retentionError(from, [{ topic, partition, first: founded.event, tail: null }])
    },
    ended(read, applied) {
      if (isCutShort(own, read, applied))
        throw retentionError(from, [{ topic, partition, first: null, tail: [...applied.values()][0] ?? null }])
    },
  }
}

/** The aggregate's own events; null: every event. */
export function aggregateFilter(id: string | null): (event: Event) => boolean {
  if (id === null) return () => true
  const wanted = new TextEncoder().encode(id)
  return ({ key }) => key.length === wanted.length && key.every((byte, index) => byte === wanted[index])
}
