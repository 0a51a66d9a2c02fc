import type { Copies, Copy } from '../core/copy.ts'
import { MillraceError } from '../core/errors.ts'
import { latestState, type RelayState, statePrefix } from '../core/relay-state.ts'
import { type KeyVerdict, named, type TargetCounts, type VerdictKind } from '../pipeline/compare.ts'
import type { Desk } from '../pipeline/job.ts'
import { paceOf } from '../pipeline/pace.ts'
import { BEGIN_VERIFY, type Verified, type VerifyFailpoint, type VerifyState, verify } from '../pipeline/verify.ts'
import { type OutboxVerdict, verifyOutbox } from '../pipeline/verify-outbox.ts'
import { verifySource } from '../pipeline/verify-source.ts'
import { walkOutbox } from '../postgres/outbox-walk.ts'
import { readSourceRows } from '../postgres/source-rows.ts'
import type { ParsedConfig } from './config-schema.ts'
import { fileIds } from './id-set.ts'
import { requireSource, type Surroundings, sourceOptions } from './open.ts'
import { atSink, beginJob, copiesOf, type JobEnd, type JobOptions, type JobWorker, resumeJob, type SinkAt } from './sink-job.ts'

export interface VerifyOptions extends JobOptions {
  /** bring the keys that differ to their right state, and compare them once more */
  readonly repair?: boolean
  /** the share of the keys that is looked at, above 0 and below 1; rows that are in no event are not looked for then */
  readonly sample?: number
  /** `source`: also the outbox's rows with the queue's events, and the config's queries on the source with the tables */
  readonly against?: 'source'
  /** at most so many events, and keys, a second. Default: as fast as it goes */
  readonly rate?: number
  /** go on with what was stopped, as it was asked for then */
  readonly resume?: boolean
  /** told each key that is not equal; some again after an interruption */
  readonly onKey?: (key: KeyReport) => void
}

/** What `millrace verify --json` prints last. */
export interface VerifyReport {
  readonly schema: 1
  readonly pipeline: string
  readonly sink: string
  readonly outcome: JobEnd<unknown>['outcome']
  /** nothing that could be looked at differs now; null: it was not finished */
  readonly equal: boolean | null
  readonly repaired: boolean
  /** null: every key was looked at */
  readonly sample: number | null
  /** records that were read from the queue */
  readonly read: number
  /** the queue holds all there ever was; false: what is older is unverifiable; null: extra rows were not looked for */
  readonly whole: boolean | null
  readonly tables: readonly TableReport[]
  /** of each table and kind the first keys */
  readonly keys: readonly KeyReport[]
  /** keys of events that wait in the sink, and of events that could not be folded */
  readonly parkedKeys: number
  readonly refused: readonly string[]
  /** null: it was not asked for */
  readonly source: SourceReport | null
}

export interface TableReport {
  readonly table: string
  readonly keys: number
  readonly missing: number
  readonly extra: number
  readonly different: number
  readonly hot: number
  readonly parked: number
  readonly partial: number
  readonly unverifiable: number
  /** of those above, what is equal now */
  readonly mended: number
}

export interface KeyReport {
  readonly table: string
  readonly key: string
  readonly kind: VerdictKind
  readonly folded: string | null
  readonly shown: string | null
  readonly mended: boolean
  /** why the store did not take it as it should be; null: nobody tried, or it did */
  readonly refused: string | null
  /** what it was compared with */
  readonly against: 'stream' | 'source'
}

export interface SourceReport {
  readonly outbox: OutboxVerdict
  /** null: the config has no queries */
  readonly tables: readonly TableReport[] | null
  readonly keys: readonly KeyReport[]
}

interface Outcome {
  readonly verified: Verified
  readonly source: SourceReport | null
}

export function verifySink(
  name: string,
  config: ParsedConfig,
  around: Surroundings,
  options: VerifyOptions,
  failpoint: (name: VerifyFailpoint) => Promise<void> | void,
): Promise<VerifyReport> {
  const { repair = false, sample = null, against = null, rate = null, resume = false } = options
  if (sample !== null && !(sample > 0 && sample < 1))
    throw new MillraceError('MILLRACE_USAGE', `a sample of ${sample}: expected a share above 0 and below 1, such as 0.01`)
  requireRate(rate)
  return atSink(name, config, around, async (at) => {
    const copies = copiesOf(at, 'verify')
    const worker = workerOf(at, copies, config, around, options, failpoint)
    if (!resume) {
      requireSampled(at, copies, sample)
      await requireBegun(at, 'verified')
    }
    const asked = { repair, sample, against, rate }
    const end = resume
      ? await resumeJob(at, worker, options)
      : await beginJob(at, worker, { asked, state: BEGIN_VERIFY }, options)
    return reportOf(name, config.name, end)
  })
}

/** @throws MILLRACE_USAGE */
export function requireRate(rate: number | null): void {
  if (rate !== null && !(rate > 0))
    throw new MillraceError('MILLRACE_USAGE', `a rate of ${rate}: expected a number of events a second`)
}

/** a sink may have checkpoints in topics that its tables were fed from once */
export function followsOf({ topics }: SinkAt): (topic: string) => boolean {
  return (topic) => topics.some((name) => (name.endsWith('*') ? topic.startsWith(name.slice(0, -1)) : topic === name))
}

function requireSampled({ name }: SinkAt, copies: Copies, sample: number | null): void {
  if (sample === null || !copies.rows.shared) return
  throw new MillraceError(
    'MILLRACE_REPLAY_REFUSED',
    `the sink ${name} has rows that events of several keys write: a share of the keys does not tell their state`,
    { remedy: 'verify it as a whole, with --rate where its load must be bounded', fields: { sink: name } },
  )
}

/** @throws MILLRACE_REPLAY_REFUSED for a sink that has applied nothing: all its rows would be called extra */
export async function requireBegun({ name, sink }: SinkAt, what: string): Promise<void> {
  if ((await sink.checkpoints()).some(({ offset }) => offset !== null)) return
  throw new MillraceError('MILLRACE_REPLAY_REFUSED', `the sink ${name} has applied nothing yet: there is nothing to be ${what}`, {
    remedy: 'start it: millrace run',
    fields: { sink: name },
  })
}

function workerOf(
  at: SinkAt,
  copies: Copies,
  config: ParsedConfig,
  around: Surroundings,
  { onKey }: VerifyOptions,
  failpoint: (name: VerifyFailpoint) => Promise<void> | void,
): JobWorker<VerifyState, Copy, Outcome & { readonly asked: Asked }> {
  return {
    kind: 'verify',
    create: (job) => copies.create(job, 'rows'),
    take: () => copies.take(),
    async work(copy, desk, signal) {
      const asked = desk.job.asked as unknown as Asked
      const { sink, queue, sources, log, clock } = at
      const told = (against: KeyReport['against']) => (verdicts: readonly KeyVerdict[]) => {
        if (onKey !== undefined) for (const one of verdicts) onKey(keyReport(one, against))
      }
      const common = {
        sink,
        copy,
        queue,
        sources,
        follows: followsOf(at),
        log,
        clock,
        signal,
        failpoint,
        sample: asked.sample,
        rate: asked.rate,
      }
      const verified =
        desk.job.state.verified ??
        (await verify({ ...common, desk, mend: asked.repair ? { extras: true } : null, told: told('stream') }))
      if (asked.against === null) return { verified, source: null, asked }
      // from here on the copy holds something else: the fold is not gone on with
      await desk.note({ state: { ...desk.job.state, verified } }, true)
      return { verified, source: await againstSource(at, copy, desk, config, around, signal, told('source')), asked }
    },
  }
}

interface Asked {
  readonly repair: boolean
  readonly sample: number | null
  readonly against: 'source' | null
  readonly rate: number | null
}

async function againstSource(
  { name, sink, queue, topicTemplate, clock }: SinkAt,
  copy: Copy,
  desk: Desk<VerifyState>,
  config: ParsedConfig,
  around: Surroundings,
  signal: AbortSignal,
  told: (verdicts: readonly KeyVerdict[]) => void,
): Promise<SourceReport> {
  const source = config.name
  const { columns } = requireSource(config, around).outbox
  const createdAt = columns === undefined ? 'created_at' : (columns.createdAt ?? null)
  const { rate } = desk.job.asked as unknown as Asked
  const pace = paceOf(rate, clock)
  const state = async (): Promise<RelayState | null> => latestState(await queue.state.read(statePrefix(source)))
  let done = 0
  const noteIn = (phase: string) => (rows: number) => {
    done += rows
    return desk.note({ progress: { phase, unit: 'keys', done, of: null } })
  }

  const rows = await walkOutbox(sourceOptions(config, around), createdAt)
  const ids = await fileIds()
  let outbox: OutboxVerdict
  try {
    outbox = await verifyOutbox({ source, queue, rows, ids, state, pace, clock, signal, note: noteIn('outbox') })
  } finally {
    await rows.close()
    await ids.close()
  }

  const queries = config.sinks[name]?.verify ?? []
  if (queries.length === 0) return { outbox, tables: null, keys: [] }
  done = 0
  let first: readonly KeyVerdict[] = []
  const tables = await verifySource({
    source,
    topicTemplate,
    queries: queries.map(({ table, from, type, query }) => ({
      table: table.includes('.') ? table : `public.${table}`,
      from,
      type,
      read: () => readSourceRows(sourceOptions(config, around), query, (ms) => clock.wait(ms, signal)),
    })),
    sink,
    copy,
    queue,
    state,
    pace,
    clock,
    signal,
    told(verdicts) {
      told(verdicts)
      first = named(first, verdicts)
    },
    note: noteIn('source'),
  })
  return { outbox, tables: tables.map(tableReport), keys: first.map((one) => keyReport(one, 'source')) }
}

function reportOf(sink: string, pipeline: string, end: JobEnd<Outcome & { readonly asked: Asked }>): VerifyReport {
  const nothing = { tables: [], keys: [], parkedKeys: 0, refused: [], source: null, read: 0, whole: null }
  const of = { schema: 1, pipeline, sink, outcome: end.outcome } as const
  if (end.result === null) return { ...of, ...nothing, equal: null, repaired: false, sample: null }
  const { verified, source, asked } = end.result
  const { read, whole, targets, first, parked, refused } = verified
  const tables = targets.map(tableReport)
  return {
    ...of,
    equal: tables.every(isEqual) && refused.length === 0 && (source === null || isSourceEqual(source)),
    repaired: asked.repair,
    sample: asked.sample,
    read,
    whole,
    tables,
    keys: first.map((one) => keyReport(one, 'stream')),
    parkedKeys: parked,
    refused,
    source,
  }
}

/** What cannot be looked at (unverifiable, partial) is no difference; what waits, and what went on each time, is not known to be equal. */
export function isEqual({ missing, extra, different, hot, parked, mended }: TableReport): boolean {
  return missing + extra + different + hot + parked - mended === 0
}

/** A row that was written since its snapshot was taken says nothing. */
function isSourceEqual({ outbox, tables }: SourceReport): boolean {
  return outbox.missing === 0 && outbox.waiting === 0 && (tables ?? []).every((table) => isEqual({ ...table, hot: 0 }))
}

export function tableReport({ target, keys, kinds, mended }: TargetCounts): TableReport {
  return { table: target, keys, ...kinds, mended }
}

export function keyReport({ target, refused, ...key }: KeyVerdict, against: KeyReport['against']): KeyReport {
  return { table: target, ...key, refused: refused === null ? null : `${refused.message} (${refused.code})`, against }
}
