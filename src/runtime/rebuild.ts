import type { Copies, Copy, CopyShape } from '../core/copy.ts'
import { MillraceError } from '../core/errors.ts'
import type { KeyVerdict } from '../pipeline/compare.ts'
import { BEGUN, encodeJob } from '../pipeline/job.ts'
import { type Rebuilt, rebuildBeside, rebuildInPlace } from '../pipeline/rebuild.ts'
import { BEGIN_VERIFY, type VerifyFailpoint, type VerifyState } from '../pipeline/verify.ts'
import type { ParsedConfig } from './config-schema.ts'
import type { Surroundings } from './open.ts'
import { printable } from './parked.ts'
import { atSink, beginJob, copiesOf, type JobEnd, type JobOptions, type JobWorker, resumeJob, type SinkAt } from './sink-job.ts'
import {
  followsOf,
  isEqual,
  type KeyReport,
  keyReport,
  requireBegun,
  requireRate,
  type TableReport,
  tableReport,
} from './verify.ts'

export interface RebuildOptions extends JobOptions {
  /** build new tables beside the old ones and swap them in one transaction, instead of mending the rows in place */
  readonly beside?: boolean
  /** with `beside`: remove the old tables at once. Default: they are put aside, until `dropAside` */
  readonly dropOld?: boolean
  /** at most so many events, and keys, a second. Default: as fast as it goes */
  readonly rate?: number
  /** go on with what was stopped, as it was asked for then */
  readonly resume?: boolean
  /** told each key that was not equal; some again after an interruption */
  readonly onKey?: (key: KeyReport) => void
}

/** What a rebuild would do. */
export interface RebuildPlan {
  readonly schema: 1
  readonly pipeline: string
  readonly sink: string
  readonly topics: readonly string[]
  readonly partitions: number
  /** records that will be read */
  readonly reads: number
  /** the queue holds all there ever was: rows that are in no event are removed. False: those older than it reaches are kept */
  readonly whole: boolean
  /** keys that wait in the sink and will be left alone */
  readonly parkedKeys: number
  /** tables that a former rebuild has put aside */
  readonly aside: readonly string[]
  /** what of the tables stands against a rebuild beside them; null: it was not asked */
  readonly obstacles: readonly string[] | null
}

/** What `millrace rebuild --json` prints last. */
export interface RebuildReport {
  readonly schema: 1
  readonly pipeline: string
  readonly sink: string
  readonly outcome: JobEnd<unknown>['outcome']
  /** every key that can be is in its folded state; null: it was not finished */
  readonly equal: boolean | null
  readonly beside: boolean
  /** records that were read from the queue */
  readonly read: number
  /** null: it was not finished */
  readonly whole: boolean | null
  /** `beside`: how the old tables differed from the new ones */
  readonly tables: readonly TableReport[]
  /** of each table and kind the first keys */
  readonly keys: readonly KeyReport[]
  readonly parkedKeys: number
  /** keys of events that could not be folded */
  readonly refused: readonly string[]
  /** the old tables, where they were put aside */
  readonly aside: readonly string[]
  /** the mapping was changed, and rows of the old one are left: the sink takes nothing until it is rebuilt again */
  readonly halted: boolean
}

type Failpoint = (name: VerifyFailpoint) => Promise<void> | void

/** Changes nothing. @throws what the rebuild itself would throw */
export function planRebuild(
  name: string,
  config: ParsedConfig,
  around: Surroundings,
  { beside = false }: Pick<RebuildOptions, 'beside'>,
): Promise<RebuildPlan> {
  return atSink(name, config, around, async (at) => {
    const { sink, queue } = at
    const copies = copiesOf(at, 'rebuild')
    await requireBegun(at, 'rebuilt')
    const live = (await sink.checkpoints()).filter(({ offset, topic }) => offset !== null && followsOf(at)(topic))
    let reads = 0n
    let whole = true
    for (const { topic, partition, offset } of live) {
      const start = (await queue.ranges(topic))[partition]?.start ?? 0n
      if (start > 0n) whole = false
      if (offset !== null && offset > start) reads += offset - start
    }
    return {
      schema: 1,
      pipeline: config.name,
      sink: name,
      topics: [...new Set(live.map(({ topic }) => topic))].sort(),
      partitions: live.length,
      reads: Number(reads),
      whole,
      parkedKeys: live.reduce((sum, { parked }) => sum + parked.size, 0),
      aside: await copies.aside(),
      obstacles: beside ? await obstaclesOf(copies) : null,
    }
  })
}

/** Only a copy knows them: one is made, and removed. Should this process die meanwhile, it is a rebuild that can go on or be cancelled. */
async function obstaclesOf(copies: Copies): Promise<readonly string[]> {
  const asked: Asked = { beside: true, dropOld: false, rate: null }
  const job = encodeJob({ kind: 'rebuild', asked: { ...asked }, state: BEGIN_VERIFY, progress: BEGUN })
  const copy = await copies.create(job, 'table', true)
  try {
    return await copy.obstacles()
  } finally {
    await copy.drop()
  }
}

/** Removes the tables that rebuilds of the sink have put aside. @returns which */
export function dropAside(name: string, config: ParsedConfig, around: Surroundings): Promise<readonly string[]> {
  return atSink(name, config, around, async (at) => copiesOf(at, 'rebuild').dropAside())
}

/**
 * Brings every key of the sink to its folded state, removes what is in no event, and resolves when that is done, paused
 * or cancelled.
 */
export function rebuildSink(
  name: string,
  config: ParsedConfig,
  around: Surroundings,
  options: RebuildOptions,
  failpoint: Failpoint,
): Promise<RebuildReport> {
  const { rate = null, resume = false, beside = false, dropOld = false } = options
  requireRate(rate)
  if (dropOld && !beside) throw new MillraceError('MILLRACE_USAGE', 'the old tables can be dropped by a rebuild beside them only')
  return atSink(name, config, around, async (at) => {
    const copies = copiesOf(at, 'rebuild')
    const worker = workerOf(at, copies, beside ? 'table' : 'rows', options, failpoint)
    if (!resume) await requireBegun(at, 'rebuilt')
    const asked: Asked = { beside, dropOld, rate }
    const { outcome, result } = resume
      ? await resumeJob(at, worker, options)
      : await beginJob(at, worker, { asked: { ...asked }, state: BEGIN_VERIFY }, options)
    const of = { schema: 1, pipeline: config.name, sink: name, outcome } as const
    if (result === null)
      return {
        ...of,
        equal: null,
        beside,
        read: 0,
        whole: null,
        tables: [],
        keys: [],
        parkedKeys: 0,
        refused: [],
        aside: [],
        halted: false,
      }
    if ('obstacles' in result) throw inTheWay(name, result.obstacles)
    if ('unwritable' in result) throw unwritable(name, result.unwritable)
    const { read, whole, targets, first, parked, refused } = result.verified
    const tables = targets.map(tableReport)
    return {
      ...of,
      equal: (result.asked.beside ? tables.map(swapped) : tables).every(isEqual) && refused.length === 0,
      beside: result.asked.beside,
      read,
      whole,
      tables,
      keys: first.map((one) => keyReport(one, 'stream')),
      parkedKeys: parked,
      refused,
      aside: await copies.aside(),
      halted: result.halted,
    }
  })
}

interface Asked {
  readonly beside: boolean
  readonly dropOld: boolean
  readonly rate: number | null
}

function workerOf(
  at: SinkAt,
  copies: Copies,
  shape: CopyShape,
  { onKey }: RebuildOptions,
  failpoint: Failpoint,
): JobWorker<VerifyState, Copy, Rebuilt & { readonly asked: Asked }> {
  const { sink, queue, sources, log, clock } = at
  return {
    kind: 'rebuild',
    create: (job) => copies.create(job, shape, true),
    take: () => copies.take(),
    async work(copy, desk, signal) {
      const asked = desk.job.asked as unknown as Asked
      const told = (verdicts: readonly KeyVerdict[]): void => {
        if (onKey !== undefined) for (const one of verdicts) onKey(keyReport(one, 'stream'))
      }
      const { rate } = asked
      const work = { sink, copy, queue, desk, sources, follows: followsOf(at), rate, told, log, clock, signal, failpoint }
      if (!asked.beside) return { ...(await rebuildInPlace(work)), asked }
      const rebuilt = await rebuildBeside(work)
      if ('verified' in rebuilt && asked.dropOld) await copies.dropAside()
      return { ...rebuilt, asked }
    },
  }
}

/** what the old tables had wrong went with them */
function swapped(table: TableReport): TableReport {
  return { ...table, missing: 0, extra: 0, different: 0, hot: 0, mended: 0 }
}

function inTheWay(sink: string, obstacles: readonly string[]): MillraceError {
  return new MillraceError(
    'MILLRACE_REPLAY_REFUSED',
    `the tables of the sink ${sink} cannot be swapped, because not all that hangs on them can be taken over: ${obstacles.join('; ')}`,
    {
      remedy: `nothing was changed: rebuild it in place (millrace rebuild ${sink}), or remove what stands against it`,
      fields: { sink },
    },
  )
}

function unwritable(sink: string, keys: readonly string[]): MillraceError {
  const first = keys.slice(0, 5).map(printable).join(', ')
  return new MillraceError(
    'MILLRACE_REPLAY_REFUSED',
    `the new mapping of the sink ${sink} cannot write ${keys.length === 1 ? 'a key' : `${keys.length} keys`} of its stream: ${first}${keys.length > 5 ? ', …' : ''}`,
    { remedy: 'no row was written; the log says why for each: mend the mapping or the table, then rebuild', fields: { sink } },
  )
}
