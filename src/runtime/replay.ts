import type { Copy } from '../core/copy.ts'
import { MillraceError } from '../core/errors.ts'
import { latestState, statePrefix } from '../core/relay-state.ts'
import { topicOf } from '../core/topic-template.ts'
import type { KeyVerdict, TargetCounts } from '../pipeline/compare.ts'
import type { HeldJob } from '../pipeline/job.ts'
import { beginRedelivery, type Redelivered, type RedeliverState, redeliver } from '../pipeline/redeliver.ts'
import {
  beginReplay,
  type ReplayAggregate,
  type Replayed,
  type ReplayFailpoint,
  type ReplayState,
  replay,
} from '../pipeline/replay.ts'
import { encodeRange, type RangeBound, type RangePlace, type ReplayRange, resolveRange } from '../pipeline/replay-range.ts'
import { type Survey, survey } from '../pipeline/survey.ts'
import { readCheckpoints } from './checkpoint.ts'
import type { ParsedConfig } from './config-schema.ts'
import type { Surroundings } from './open.ts'
import {
  atSink,
  beginJob,
  type JobEnd,
  type JobOptions,
  type JobWorker,
  queueJobsAt,
  resumeJob,
  type SinkAt,
} from './sink-job.ts'

/** What is to be replayed. */
export interface ReplayAsked {
  /** a checkpoint, a position, an LSN, a time with its zone, or an event's id: that event and all that came later */
  readonly from: string
  /** likewise, and included; default: up to where the sink stands */
  readonly to?: string | undefined
  /** the events of one aggregate type, or of one aggregate: `order`, `order/42` */
  readonly aggregate?: string | undefined
  /** events and keys a second; default: as fast as it goes */
  readonly rate?: number | undefined
}

export interface ReplayOptions extends ReplayAsked, JobOptions {}

/** What a replay would do. */
export interface ReplayPlan {
  readonly sink: string
  /** `mend`: rows are brought to their right state; `deliver`: events are delivered again, marked as replayed */
  readonly does: 'mend' | 'deliver'
  readonly from: RangeBound
  /** null: up to where the sink stands */
  readonly to: RangeBound | null
  readonly topics: readonly string[]
  readonly partitions: number
  /** what is selected; events: at most so many, unless `exact` */
  readonly selected: Survey
  /** records that will be read, in all */
  readonly reads: number
  /** why more is read than is selected */
  readonly because: 'range' | 'selection' | 'history'
  /** keys that wait in the sink and will be left alone */
  readonly parkedKeys: number
  /** partitions of which nothing is retained, and nobody can say what they held */
  readonly unproven: readonly string[]
}

export interface ReplayReport {
  readonly sink: string
  readonly does: ReplayPlan['does']
  /** `paused` and `cancelled`: what was mended or delivered until then stays */
  readonly outcome: 'done' | 'paused' | 'cancelled'
  /** null: it was not done, or the sink has no rows */
  readonly rows: ReplayedRows | null
  /** null: it was not done, or the sink has rows */
  readonly events: Redelivered | null
  /** ms, of this run */
  readonly took: number
}

export interface ReplayedRows {
  /** records that were read */
  readonly read: number
  readonly keys: number
  /** found missing, different or there although deleted, and brought to their right state */
  readonly mended: number
  readonly tables: readonly TargetCounts[]
  /** keys that wait in the sink, and were left alone */
  readonly parkedKeys: number
  /** keys of which the sink could not take an event now, and were left alone */
  readonly refusedKeys: readonly string[]
  /** the first of the keys that are not equal now */
  readonly left: readonly KeyVerdict[]
}

type Failpoint = (name: ReplayFailpoint) => Promise<void> | void

/** Changes nothing. @throws what the replay itself would throw */
export function planReplay(name: string, config: ParsedConfig, around: Surroundings, asked: ReplayAsked): Promise<ReplayPlan> {
  return atSink(name, config, around, async (at) => {
    const prepared = await prepare(at, asked)
    const { range, places, aggregate, parkedKeys } = prepared
    const topics = new Set(places.map(({ topic }) => topic).filter((topic) => aggregate === null || topic === aggregate.topic))
    const partitions = range.partitions.filter(({ topic }) => topics.has(topic))
    const selected = await survey({ queue: at.queue, range, partitions, aggregate, sources: at.sources })
    return {
      sink: name,
      does: doesAt(at),
      from: range.from,
      to: range.to,
      topics: [...topics].sort(),
      partitions: partitions.length,
      selected,
      ...(await readsOf(at, prepared)),
      parkedKeys,
      unproven: range.unproven.map(({ topic, partition }) => `${topic}/${partition}`),
    }
  })
}

/**
 * Replays, and resolves when it is done, paused or cancelled.
 * @throws MILLRACE_REPLAY_RUNNING when the sink has a job, MILLRACE_REPLAY_REFUSED, MILLRACE_CHECKPOINT_UNKNOWN, MILLRACE_USAGE:
 *   then nothing was changed. Whatever stops it later leaves it as it is: `resumeReplay` goes on
 */
export function runReplay(
  name: string,
  config: ParsedConfig,
  around: Surroundings,
  options: ReplayOptions,
  failpoint: Failpoint,
): Promise<ReplayReport> {
  return atSink(name, config, around, async (at) => {
    const { range, aggregate } = await prepare(at, options)
    const { from, to = null, aggregate: named = null, rate = null } = options
    const asked = { from, to, aggregate: named, rate }
    const { copies } = at.sink
    return timed(at, () =>
      copies === null
        ? beginJob(
            at,
            deliverer(at, failpoint),
            { asked, state: beginRedelivery({ range: encodeRange(range), aggregate, rate }) },
            options,
          )
        : beginJob(at, mender(at, failpoint), { asked, state: beginReplay(copies.rows, range, { aggregate, rate }) }, options),
    )
  })
}

/** Goes on with a replay that was paused, or whose process died. @throws MILLRACE_REPLAY_UNKNOWN, MILLRACE_REPLAY_RUNNING */
export function resumeReplay(
  name: string,
  config: ParsedConfig,
  around: Surroundings,
  options: JobOptions,
  failpoint: Failpoint,
): Promise<ReplayReport> {
  return atSink(name, config, around, (at) =>
    timed(at, () =>
      at.sink.copies === null ? resumeJob(at, deliverer(at, failpoint), options) : resumeJob(at, mender(at, failpoint), options),
    ),
  )
}

function mender(at: SinkAt, failpoint: Failpoint): JobWorker<ReplayState, Copy, Partial<ReplayReport>> {
  const { copies } = at.sink
  if (copies === null) throw cannot(at)
  return {
    kind: 'replay',
    create: (job) => copies.create(job, 'rows'),
    take: () => copies.take(),
    work: async (copy, desk, signal) => ({ rows: rowsOf(await replay({ ...at, copy, desk, signal, failpoint })) }),
  }
}

function deliverer(at: SinkAt, failpoint: Failpoint): JobWorker<RedeliverState, HeldJob, Partial<ReplayReport>> {
  const { redeliver: again } = at.sink
  if (again === null) throw cannot(at)
  const jobs = queueJobsAt(at)
  const sink = { checkpoints: () => at.sink.checkpoints(), redeliver: again }
  return {
    kind: 'replay',
    create: (job) => jobs.create(job),
    take: () => jobs.take(),
    work: async (_, desk, signal) => ({ events: await redeliver({ ...at, sink, desk, signal, failpoint }) }),
  }
}

interface Prepared {
  readonly range: ReplayRange
  readonly places: readonly RangePlace[]
  readonly aggregate: ReplayAggregate | null
  readonly parkedKeys: number
}

/** What is asked for, held against what there is. Changes nothing. */
async function prepare(at: SinkAt, { from, to, aggregate: named, rate }: ReplayAsked): Promise<Prepared> {
  if (rate !== undefined && !(Number.isFinite(rate) && rate > 0))
    throw new MillraceError('MILLRACE_USAGE', `a rate of ${rate}: expected a number of events a second above 0`)
  if (at.sink.copies === null && at.sink.redeliver === null) throw cannot(at)
  const { places, parkedKeys } = await placesOf(at)
  const aggregate = named === undefined ? null : aggregateOf(at, named, places)
  const range = await resolveRange(
    { from, to: to ?? null },
    {
      queue: at.queue,
      source: at.source,
      places,
      checkpoints: await readCheckpoints(at.queue.state, at.source, at.log),
      state: latestState(await at.queue.state.read(statePrefix(at.source))),
      now: at.clock.now(),
    },
  )
  return { range, places, aggregate, parkedKeys }
}

/** The partitions that the sink has begun; of a sink that keeps no checkpoints, all there are. */
async function placesOf({ sink, queue, topics, name }: SinkAt): Promise<Pick<Prepared, 'places' | 'parkedKeys'>> {
  const places: RangePlace[] = []
  if (!sink.traits.checkpoints) {
    for (const topic of (await queue.topics(topics)).keys())
      for (const [partition, { end }] of (await queue.ranges(topic)).entries())
        places.push({ topic, partition, end, positions: new Map() })
    return { places, parkedKeys: 0 }
  }
  const checkpoints = await sink.checkpoints()
  for (const { topic, partition, offset, positions } of checkpoints)
    if (offset !== null) places.push({ topic, partition, end: offset, positions })
  if (places.length > 0) return { places, parkedKeys: checkpoints.reduce((sum, { parked }) => sum + parked.size, 0) }
  throw new MillraceError('MILLRACE_REPLAY_REFUSED', `the sink ${name} has applied nothing yet: there is nothing to replay`, {
    remedy: `millrace run applies it from its start; nothing was changed`,
    fields: { sink: name },
  })
}

/** `order` or `order/42`: an aggregate type has a topic, and its id is the record's key. */
function aggregateOf({ topicTemplate, name }: SinkAt, text: string, places: readonly RangePlace[]): ReplayAggregate {
  const slash = text.indexOf('/')
  const type = slash === -1 ? text : text.slice(0, slash)
  const id = slash === -1 ? null : text.slice(slash + 1)
  const refuse = (why: string): MillraceError => new MillraceError('MILLRACE_USAGE', `--aggregate ${text}: ${why}`)
  if (type === '' || id === '') throw refuse('expected an aggregate type, or a type, a slash and an id')
  const topic = topicOf(topicTemplate, type)
  if (topic === topicTemplate) throw refuse(`the topic ${topic} carries every aggregate type, and its events do not say theirs`)
  const topics = [...new Set(places.map((place) => place.topic))].sort()
  if (!topics.includes(topic))
    throw refuse(`the sink ${name} has applied nothing of the topic ${topic}, only of ${topics.join(', ')}`)
  return { topic, id }
}

/** How many records a replay reads, and why more than are selected. */
async function readsOf(at: SinkAt, { range, places, aggregate }: Prepared): Promise<Pick<ReplayPlan, 'reads' | 'because'>> {
  const own = range.partitions.filter(({ topic }) => aggregate === null || topic === aggregate.topic)
  const within = own.reduce((sum, { start, end }) => sum + Number(end - start), 0)
  const { copies } = at.sink
  if (copies === null) return { reads: within, because: 'range' }
  const { step, whole, narrow } = beginReplay(copies.rows, range, { aggregate, rate: null })
  let brought = 0
  for (const { topic, partition, end } of places) {
    if (narrow && aggregate !== null && topic !== aggregate.topic) continue
    const ranged = range.partitions.find((one) => one.topic === topic && one.partition === partition)
    const start = whole || ranged === undefined ? ((await at.queue.ranges(topic))[partition]?.start ?? 0n) : ranged.start
    brought += Number(end - start)
  }
  if (step === 'fold') return { reads: brought, because: 'range' }
  return { reads: within + brought, because: whole ? 'history' : 'selection' }
}

async function timed(at: SinkAt, work: () => Promise<JobEnd<Partial<ReplayReport>>>): Promise<ReplayReport> {
  const begun = at.clock.elapsed()
  const { outcome, result } = await work()
  return {
    sink: at.name,
    does: doesAt(at),
    outcome,
    rows: null,
    events: null,
    ...result,
    took: Math.round(at.clock.elapsed() - begun),
  }
}

const doesAt = ({ sink }: SinkAt): ReplayPlan['does'] => (sink.copies === null ? 'deliver' : 'mend')

function rowsOf({ read, targets, parked, refused, left }: Replayed): ReplayedRows {
  return {
    read,
    keys: targets.reduce((sum, { keys }) => sum + keys, 0),
    mended: targets.reduce((sum, { mended }) => sum + mended, 0),
    tables: targets,
    parkedKeys: parked,
    refusedKeys: refused,
    left,
  }
}

function cannot({ name, sink }: SinkAt): MillraceError {
  return new MillraceError(
    'MILLRACE_REPLAY_REFUSED',
    `the sink ${name} cannot be replayed: a sink of this kind (${sink.traits.name}) neither shows its rows nor takes events again`,
    { remedy: 'nothing was changed', fields: { sink: name } },
  )
}
