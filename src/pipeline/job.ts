import type { Clock } from '../core/clock.ts'
import type { Copies, Copy, CopyWish } from '../core/copy.ts'

/** What is done with a sink's copy, beside the live traffic. One at a time, and it outlives the process that works on it. */
export type JobKind = 'replay' | 'rebuild' | 'verify'

/** What is remembered of it with the copy, as JSON: enough to go on, and to tell people what it is. */
export interface Job<State = unknown> {
  readonly kind: JobKind
  /** what was asked for, in words of the command line */
  readonly asked: Readonly<Record<string, string | number | boolean | null>>
  /** of the work's own */
  readonly state: State
  readonly progress: Progress
}

export interface Progress {
  /** what it is at: a word for people */
  readonly phase: string
  readonly unit: 'events' | 'keys'
  readonly done: number
  /** null: not known */
  readonly of: number | null
}

export const BEGUN: Progress = { phase: 'begun', unit: 'events', done: 0, of: null }

/** Where a job is remembered: a sink's copies are such a place; for a sink without copies the queue has one. */
export interface JobBook extends Pick<Copies, 'find' | 'ask'> {
  /** as `Copies.take` */
  take(): Promise<HeldJob>
}
/** One that this process works on. */
export type HeldJob = Pick<Copy, 'job' | 'keep' | 'close' | 'drop'>

/** A job while it is worked on. */
export interface Desk<State> {
  readonly job: Job<State>
  /**
   * What the work has come to. Kept twice a second at most; at once when what follows depends on it.
   * @throws Stopped when the job is to pause or to be cancelled; what was noted is kept
   */
  note(change: Partial<Pick<Job<State>, 'state' | 'progress'>>, atOnce?: boolean): Promise<void>
}

/** Thrown through the work when it is to end before it is done. */
export class Stopped extends Error {
  override readonly name = 'Stopped'
  readonly wish: CopyWish

  constructor(wish: CopyWish) {
    super(`asked to ${wish}`)
    this.wish = wish
  }
}

/** how long what is noted may be unknown to others (ms) */
const KEEP_INTERVAL = 500

export function openDesk<State>(options: {
  readonly held: HeldJob
  readonly clock: Clock
  /** aborted: pause */
  readonly signal: AbortSignal
  readonly progressed: (progress: Progress) => void
}): Desk<State> {
  const { held, clock, signal, progressed } = options
  let job = decodeJob<State>(held.job)
  let keptAt = clock.elapsed()
  let keeping: Promise<void> = Promise.resolve()

  async function keep(): Promise<void> {
    keptAt = clock.elapsed()
    const wish = await held.keep(encodeJob(job))
    if (wish !== null) throw new Stopped(wish)
    if (signal.aborted) throw new Stopped('pause')
  }

  return {
    get job() {
      return job
    },
    async note(change, atOnce = false) {
      job = { ...job, ...change }
      if (change.progress !== undefined) progressed(job.progress)
      if (!atOnce && !signal.aborted && clock.elapsed() - keptAt < KEEP_INTERVAL) return
      // several partitions are worked on at once: what they note is kept one after the other
      const turn = keeping.then(keep)
      keeping = turn.catch(() => {})
      await turn
    },
  }
}

export function encodeJob(job: Job): string {
  return JSON.stringify(job)
}

export function decodeJob<State>(text: string): Job<State> {
  return JSON.parse(text) as Job<State>
}
