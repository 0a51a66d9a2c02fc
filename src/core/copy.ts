import type { Position } from './position.ts'
import type { TopicPartition } from './queue.ts'
import type { Lane } from './sink.ts'

/**
 * The folded copy (PROTOCOL 2.5): what the stream makes of a sink's rows, built beside them by the sink's own mapping, then
 * compared with them or written to them. Replay, repair, rebuild and verify are this one mechanism.
 *
 * A sink has at most one copy at a time, and one process works on it. The pipeline decides what is folded and when; the
 * sink knows its rows.
 */
export interface Copies {
  /** null: there is none. Takes nothing. */
  find(): Promise<CopyRecord | null>
  /**
   * Makes the copy, empty, and takes it.
   * @param job what the pipeline wants to remember of it
   * @throws MILLRACE_REPLAY_RUNNING when there is one
   */
  create(job: string, shape: CopyShape): Promise<Copy>
  /**
   * Takes the copy that is there, to go on with it.
   * @throws MILLRACE_REPLAY_RUNNING when another process works on it
   * @throws MILLRACE_REPLAY_UNKNOWN when there is none
   */
  take(): Promise<Copy>
  /**
   * Asks whoever works on the copy to pause or to cancel; null takes the wish back. Durable: it holds for whoever takes it next.
   * @throws MILLRACE_REPLAY_UNKNOWN
   */
  ask(wish: CopyWish | null): Promise<void>
}

/**
 * `rows`: of the mapped columns, as little as the comparison needs, lost with a crash of the store's server at worst (then
 * it is folded again). `table`: whole tables with all that belongs to them, to take the place of the sink's own.
 */
export type CopyShape = 'rows' | 'table'
export type CopyWish = 'pause' | 'cancel'

export interface CopyRecord {
  readonly job: string
  readonly wish: CopyWish | null
  /** whether a process works on it now */
  readonly held: boolean
  readonly createdAt: Date
  readonly updatedAt: Date
}

export interface Copy {
  /** the last one that was kept */
  readonly job: string
  /** Keeps the job's text. @returns what was asked for meanwhile */
  keep(job: string): Promise<CopyWish | null>
  /**
   * One partition on its way into the copy: a lane with a checkpoint of the copy's own, of the same contract. What a batch
   * parks is folded apart, so that its rows can be told.
   */
  fold(partition: TopicPartition): Promise<Lane>
  /** What is in the copy now is selected: only these keys are compared and mended, however far the fold goes on. */
  select(): Promise<number>
  /** Empties the copy and its checkpoints; the selection stays. */
  restart(): Promise<void>
  /** the sink's tables, by name, in a fixed order */
  readonly targets: readonly string[]
  /**
   * Compares the next keys of a target, in one snapshot of rows, markers and checkpoints.
   * @param after where the comparison before ended; null: from the first key on
   */
  compare(target: string, after: string | null, options: CompareOptions): Promise<Comparison>
  /** Looks at these keys again. */
  recheck(keys: readonly Difference[], options: CompareOptions): Promise<readonly Difference[]>
  /**
   * Brings the keys to their folded state, one absolute write each, in one transaction under the locks of their partitions:
   * each only where the replica shows nothing newer. The folded position becomes the row's.
   * @throws MILLRACE_COPY_BEHIND when a delete beyond what is folded may have left no trace: fold on, then again
   */
  mend(keys: readonly Difference[], options: MendOptions): Promise<Mended>
  /** Lets go; the copy stays, for whoever takes it. */
  close(): Promise<void>
  /** Ends it: the copy and all that belongs to it is removed. */
  drop(): Promise<void>
}

export interface CompareOptions {
  /** at most so many keys in one comparison */
  readonly limit: number
  /** null: keys that are not in the copy are not looked for (what was folded is not all there is) */
  readonly reach: Reach | null
}

/** How far back the queue could be folded. */
export interface Reach {
  /** every partition from its very first record on: a key that is not in the copy is not in the stream */
  readonly whole: boolean
  /** by source: rows that show an older position (or none) may be of events that the queue no longer holds */
  readonly since: ReadonlyMap<string, Position>
}

export interface Comparison {
  /** null: the target has no more keys */
  readonly next: string | null
  /** keys that were looked at, on either side */
  readonly keys: number
  /** all that is not equal */
  readonly differences: readonly Difference[]
}

/**
 * `missing`: folded, and not in the replica. `extra`: in the replica, and deleted or never made in the stream. `different`:
 * other values, or a guard that cannot be true. `newer`: the replica has gone on beyond the fold. `parked`: its events
 * wait. `partial`: under `merge`, the queue no longer holds where the key began. `unverifiable`: older than the queue
 * reaches.
 */
export type DifferenceKind = 'missing' | 'extra' | 'different' | 'newer' | 'parked' | 'partial' | 'unverifiable'

export interface Difference {
  readonly target: string
  /** the row's key as the sink's markers and guards write it */
  readonly key: string
  readonly kind: DifferenceKind
  /** where the folded state stands, and what the replica shows; null: no such row, or none shown */
  readonly folded: Position | null
  readonly shown: Position | null
}

export interface MendOptions {
  /** whether rows that are not in the stream are removed too */
  readonly extras: boolean
}

export interface Mended {
  readonly written: number
  readonly removed: number
  /** left alone: newer, parked, partial, unverifiable, or equal by now */
  readonly left: number
}
