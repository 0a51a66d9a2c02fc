import type { Stage } from './stage.ts'
import type { Trial, TrialOptions } from './trial.ts'

/**
 * A row of the fault matrix (PROTOCOL 2.7): what is broken, when, over which services. Rows stand in `rows/`, one family a
 * file; every exported row of every file there is run.
 */
export interface Row {
  /** its number in the matrix; several definitions may share one */
  readonly row: string
  /** what is injected, for the evidence page: `kill -9 relay` */
  readonly fault: string
  /** the moment: `at each failpoint` */
  readonly when: string
  readonly runs: readonly Run[]
  /** throws where a promise did not hold */
  run(ctx: RowContext): Promise<void>
}

export type PostgresVersion = 15 | 18
export type QueueKind = 'kafka' | 'local'

/** What one run of a row stands on. */
export interface Run {
  readonly postgres: PostgresVersion
  readonly queue: QueueKind
}

/** every version with every queue */
export function over(versions: readonly PostgresVersion[], queues: readonly QueueKind[]): readonly Run[] {
  return versions.flatMap((postgres) => queues.map((queue) => ({ postgres, queue })))
}

export interface RowContext extends Run {
  readonly seed: number
  /** the run's own, from the seed: the same seed gives the same faults (their moments are the machine's) */
  readonly random: () => number
  /** a whole number from 0 to below `n` */
  pick(n: number): number
  /** how often to do something: the first in the short form that `npm test` runs, the second (times `--rounds`) in the full one */
  times(short: number, full: number): number
  readonly stage: Stage
  /** one pipeline with its writers, processes and services; ended by the harness whatever happens */
  trial(options?: TrialOptions): Promise<Trial>
  /** to be called for every fault, when it has been injected */
  injected(count?: number): void
  /** what a row judged by itself, that had no `Trial.judge` to do it */
  judged(evidence: Judged): void
  /** a promise beyond I1 to I8 that was checked and held, in words for the evidence page; the same words count once */
  checked(promise: string): void
  /** progress, for whoever looks on */
  say(text: string): void
  /** runs when the row ends, last one first */
  defer(end: () => Promise<unknown>): void
}

/** What a run of a row adds to the evidence. `Trial.judge` adds what it judged. */
export interface Evidence {
  readonly injected: number
  /** committed events that were held against topic and replica */
  readonly events: number
  /** of the topics judged */
  readonly partitions: number
  /** records in the topics that repeat an earlier one: allowed, and without effect */
  readonly duplicates: number
  /** COMMITs whose outcome the writer had to ask for */
  readonly unknownOutcomes: number
  readonly invariants: readonly string[]
  readonly checked: readonly string[]
  readonly seconds: number
}

export type Judged = Pick<Evidence, 'events' | 'partitions' | 'duplicates' | 'unknownOutcomes' | 'invariants'>

export function defineRow(row: Row): Row {
  return row
}
