import { randomUUID } from 'node:crypto'
import { backoff } from '../core/backoff.ts'
import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import type { Copies, CopyRecord, CopyWish } from '../core/copy.ts'
import { codeOf, MillraceError } from '../core/errors.ts'
import { isRetried, policyFor } from '../core/policy.ts'
import type { Queue } from '../core/queue.ts'
import type { Sink } from '../core/sink.ts'
import {
  BEGUN,
  type Desk,
  decodeJob,
  encodeJob,
  type HeldJob,
  type Job,
  type JobBook,
  type JobKind,
  openDesk,
  type Progress,
  Stopped,
} from '../pipeline/job.ts'
import { openQueueJobs, type QueueJobs } from '../pipeline/queue-jobs.ts'
import type { ParsedConfig } from './config-schema.ts'
import { openQueue, prepareSink, requireQueue, type Surroundings } from './open.ts'

/**
 * A job of a sink: a replay, a rebuild or a verification. It works beside the live traffic, one at a time for each sink, and is
 * remembered where it cannot get lost: whoever comes after a crash goes on with it.
 *
 * none → running → done (nothing remains)
 * running ⇄ stopped (paused, or its process died) → running; either → cancelled (nothing remains)
 */
export interface SinkAt {
  /** the sink's name */
  readonly name: string
  readonly sink: Sink
  readonly queue: Queue
  /** as `Queue.topics` takes them */
  readonly topics: readonly string[]
  readonly topicTemplate: string
  /** null: every source */
  readonly sources: ReadonlySet<string> | null
  /** the pipeline's own source */
  readonly source: string
  readonly log: Log
  readonly clock: Clock
  readonly random: () => number
}

/** Opens the sink and the queue it follows, and closes both. */
export async function atSink<T>(
  name: string,
  config: ParsedConfig,
  around: Surroundings,
  work: (at: SinkAt) => Promise<T>,
): Promise<T> {
  const { topics, open } = await prepareSink(config, name, around)
  const opened: { close(): Promise<void> }[] = []
  try {
    const queue = await openQueue(config, around)
    opened.push(queue)
    const sink = await open()
    opened.push(sink)
    const sources = config.sinks[name]?.sources ?? null
    return await work({
      name,
      sink,
      queue,
      topics,
      topicTemplate: requireQueue(config, around).topics.name,
      sources: sources === null ? null : new Set(sources),
      source: config.name,
      log: around.log.child({ sink: name }),
      clock: around.clock,
      random: around.random,
    })
  } finally {
    await Promise.allSettled(opened.reverse().map((one) => one.close()))
  }
}

/** Where the sink's job is remembered, and what it is worked on with. */
export function jobsAt(at: SinkAt): JobBook {
  return at.sink.copies ?? queueJobsAt(at)
}

/** for a sink without copies */
export function queueJobsAt({ queue, name, clock }: SinkAt): QueueJobs {
  return openQueueJobs(queue.state, name, clock, randomUUID())
}

export interface JobOptions {
  /** aborted: the job pauses after the batch under way */
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: JobProgress) => void) | undefined
}

export interface JobProgress extends Progress {
  /** of this phase, by the last seconds; null: not known yet */
  readonly perSecond: number | null
  /** of this phase, ms; null: not known */
  readonly left: number | null
}

/** What a kind of job does. `Held` is what it works on: a sink's copy, or just the record of the job. */
export interface JobWorker<State, Held extends HeldJob, Result> {
  readonly kind: JobKind
  /** as `Copies.create` */
  create(job: string): Promise<Held>
  /** as `Copies.take` */
  take(): Promise<Held>
  /** @throws Stopped through `desk.note`; may be called again with what the desk remembers */
  work(held: Held, desk: Desk<State>, signal: AbortSignal): Promise<Result>
}

export type JobEnd<Result> =
  | { readonly outcome: 'done'; readonly result: Result }
  | { readonly outcome: 'paused' | 'cancelled'; readonly result: null }

/** Makes the job and works on it. @throws MILLRACE_REPLAY_RUNNING when the sink has one */
export function beginJob<State, Held extends HeldJob, Result>(
  at: SinkAt,
  worker: JobWorker<State, Held, Result>,
  job: Pick<Job<State>, 'asked' | 'state'>,
  options: JobOptions,
): Promise<JobEnd<Result>> {
  const text = encodeJob({ kind: worker.kind, ...job, progress: BEGUN })
  return workOn(at, worker, () => worker.create(text), options)
}

/** Goes on with the job that is there. @throws MILLRACE_REPLAY_UNKNOWN, MILLRACE_REPLAY_RUNNING, MILLRACE_USAGE for a job of another kind */
export async function resumeJob<State, Held extends HeldJob, Result>(
  at: SinkAt,
  worker: JobWorker<State, Held, Result>,
  options: JobOptions,
): Promise<JobEnd<Result>> {
  const book = jobsAt(at)
  const found = await book.find()
  if (found === null) throw noJob(at.name)
  requireKind(at.name, worker.kind, decodeJob(found.job).kind)
  const take = async (): Promise<Held> => {
    const held = await worker.take()
    await book.ask(null)
    return held
  }
  return workOn(at, worker, take, options)
}

/** the worker's part in a sink with copies */
export function copiesOf({ sink, name }: SinkAt, kind: JobKind): Copies {
  if (sink.copies !== null) return sink.copies
  throw new MillraceError(
    'MILLRACE_REPLAY_REFUSED',
    `the sink ${name} cannot be ${PAST[kind]}: what a sink of this kind (${sink.traits.name}) did cannot be looked at`,
    { remedy: 'nothing was changed', fields: { sink: name } },
  )
}

const PAST: Readonly<Record<JobKind, string>> = { replay: 'replayed', rebuild: 'rebuilt', verify: 'verified' }

/** failures in a row, without a step between them, before the command gives up; the job stays as it is */
const ATTEMPTS = 8

async function workOn<State, Held extends HeldJob, Result>(
  at: SinkAt,
  worker: JobWorker<State, Held, Result>,
  open: () => Promise<Held>,
  { signal = new AbortController().signal, onProgress }: JobOptions,
): Promise<JobEnd<Result>> {
  const { name, log, clock, random } = at
  let held: Held | null = await open()
  let attempts = 0
  for (;;) {
    try {
      held ??= await worker.take()
      const meter = progressMeter(clock)
      const desk = openDesk<State>({
        held,
        clock,
        signal,
        progressed(progress) {
          attempts = 0
          onProgress?.(meter(progress))
        },
      })
      const result = await worker.work(held, desk, signal)
      await held.drop()
      return { outcome: 'done', result }
    } catch (error) {
      if (error instanceof Stopped) {
        if (error.wish === 'cancel') await held?.drop()
        else await held?.close()
        return { outcome: error.wish === 'cancel' ? 'cancelled' : 'paused', result: null }
      }
      await held?.close().catch(() => {})
      held = null
      // a session of ours that broke may stand in the store for a while yet
      const passes = isRetried(policyFor(error)) || (attempts > 0 && codeOf(error) === 'MILLRACE_REPLAY_RUNNING')
      if (!passes || ++attempts > ATTEMPTS) throw stays(name, worker.kind, error)
      const delay = backoff(attempts, random)
      log.warn({ err: error, code: codeOf(error), attempts, delay }, `the ${worker.kind} broke off; going on with it`)
      await clock.wait(delay, signal)
      if (signal.aborted) return { outcome: 'paused', result: null }
    }
  }
}

/** what stopped it, and that it can go on */
function stays(sink: string, kind: JobKind, error: unknown): unknown {
  if (!(error instanceof MillraceError)) return error
  const ways = `then millrace ${kind} ${sink} --resume goes on where it stopped, and --cancel ends it`
  return new MillraceError(error.code, error.message, {
    cause: error,
    remedy: error.remedy === undefined ? ways : `${error.remedy}; ${ways}`,
    fields: error.fields,
  })
}

/** by how much of the past the rate is told (ms) */
const WINDOW = 5_000

function progressMeter(clock: Clock): (progress: Progress) => JobProgress {
  let phase = ''
  let marks: { readonly at: number; readonly done: number }[] = []
  return (progress) => {
    const at = clock.elapsed()
    if (progress.phase !== phase) {
      phase = progress.phase
      marks = []
    }
    marks.push({ at, done: progress.done })
    while (marks.length > 2 && at - (marks[1] as { at: number }).at > WINDOW) marks.shift()
    const first = marks[0] as { at: number; done: number }
    const took = at - first.at
    const perSecond = took < 200 ? null : ((progress.done - first.done) * 1_000) / took
    const left =
      perSecond === null || perSecond <= 0 || progress.of === null ? null : ((progress.of - progress.done) * 1_000) / perSecond
    return { ...progress, perSecond, left }
  }
}

/** What people do about a sink's job, whatever its kind, from any process. */
export interface SinkJob {
  /** null: the sink has none */
  status(): Promise<JobStatus | null>
  /**
   * Resolves when nobody works on it any more.
   * @throws MILLRACE_REPLAY_UNKNOWN, MILLRACE_DRAIN_TIMEOUT when its process does not hear
   */
  pause(): Promise<JobStatus>
  /** Resolves when nothing of it is left; what it has mended stays. */
  cancel(): Promise<JobStatus>
}

export interface JobStatus {
  readonly kind: JobKind
  /** as it was asked for */
  readonly asked: Job['asked']
  /** `stopped`: paused, or its process died */
  readonly phase: 'running' | 'stopped' | 'cancelled'
  readonly progress: Progress
  readonly createdAt: Date
  readonly updatedAt: Date
}

/** for how long a process that works on a job may not hear of a wish (ms): one batch and what it waits for */
const HEARING = 60_000
const LOOK = 200

export function sinkJob(name: string, config: () => ParsedConfig, around: Surroundings): SinkJob {
  const asking = <T>(ask: (at: SinkAt, book: JobBook) => Promise<T>): Promise<T> =>
    atSink(name, config(), around, (at) => ask(at, jobsAt(at)))

  async function found(book: JobBook): Promise<CopyRecord> {
    const record = await book.find()
    if (record === null) throw noJob(name)
    return record
  }

  /** Until the holder has heard: the last that was seen of the job; null when it is gone. */
  async function heard(book: JobBook, clock: Clock, wish: CopyWish): Promise<CopyRecord | null> {
    const until = clock.elapsed() + HEARING
    for (;;) {
      const record = await book.find()
      if (record === null || !record.held) return record
      if (clock.elapsed() > until)
        throw new MillraceError(
          'MILLRACE_DRAIN_TIMEOUT',
          `the process that works on ${name} was asked to ${wish}, and works on`,
          {
            remedy:
              'it hears after the batch under way; if its process is stuck, end it: the job stays, and what was asked for holds',
            fields: { sink: name },
          },
        )
      await clock.wait(LOOK)
    }
  }

  return {
    status: () =>
      asking(async (_, book) => {
        const record = await book.find()
        return record === null ? null : statusOf(record)
      }),
    pause: () =>
      asking(async (at, book) => {
        const before = await found(book)
        if (!before.held) return statusOf(before)
        await book.ask('pause')
        return statusOf((await heard(book, at.clock, 'pause')) ?? before)
      }),
    cancel: () =>
      asking(async (at, book) => {
        const before = await found(book)
        if (before.held) await book.ask('cancel')
        // nobody is there to hear it: it is ended here
        if (!before.held || (await heard(book, at.clock, 'cancel')) !== null) await (await book.take()).drop()
        return { ...statusOf(before), phase: 'cancelled' }
      }),
  }
}

function statusOf({ job, held, createdAt, updatedAt }: CopyRecord): JobStatus {
  const { kind, asked, progress } = decodeJob(job)
  return { kind, asked, phase: held ? 'running' : 'stopped', progress, createdAt, updatedAt }
}

function requireKind(sink: string, asked: JobKind, found: JobKind): void {
  if (asked === found) return
  throw new MillraceError('MILLRACE_USAGE', `what was stopped at the sink ${sink} is a ${found}, not a ${asked}`, {
    remedy: `millrace ${found} ${sink} --resume goes on with it`,
    fields: { sink },
  })
}

function noJob(sink: string): MillraceError {
  return new MillraceError('MILLRACE_REPLAY_UNKNOWN', `no replay, rebuild or verification of the sink ${sink} is under way`, {
    remedy: 'there is nothing to pause, to resume or to cancel',
    fields: { sink },
  })
}
