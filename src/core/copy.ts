import type { Position } from './position.ts'
import type { TopicPartition } from './queue.ts'
import type { Lane, ParkReason } from './sink.ts'

/**
 * The folded copy (PROTOCOL 2.5): what the stream makes of a sink's rows, built beside them by the sink's own mapping, then
 * compared with them or written to them. Replay, repair, rebuild and verify are this one mechanism.
 *
 * A sink has at most one copy at a time, and one process works on it. The pipeline decides what is folded and when; the
 * sink knows its rows.
 */
export interface Copies {
  /** how events become rows here, known without asking the store */
  readonly rows: RowTraits
  /** null: there is none. Takes nothing. */
  find(): Promise<CopyRecord | null>
  /**
   * Makes the copy, empty, and takes it.
   * @param job what the pipeline wants to remember of it
   * @param remap whether the mapping may be another than the one that the sink's rows were written by. Default: false
   * @throws MILLRACE_REPLAY_RUNNING when there is one
   * @throws MILLRACE_MAPPING_CHANGED unless `remap`
   */
  create(job: string, shape: CopyShape, remap?: boolean): Promise<Copy>
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
  /** the tables that a swap has put aside, by their names now */
  aside(): Promise<readonly string[]>
  /** Removes them. @returns which */
  dropAside(): Promise<readonly string[]>
}

/** They decide what has to be folded for a key's true state. */
export interface RowTraits {
  /** some events write a part of a row (`merge`): its state needs every event of its key, from the first on */
  readonly parts: boolean
  /** some rows are written by events of several keys or topics */
  readonly shared: boolean
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
   * parks is folded apart, so that its rows can be told. A fold whose first batch moves the offset to 0 begins with the
   * partition's very first record: then no key of it began before. A partition is folded up to the sink's offset, by a
   * batch without events where nothing is retained: else what lies between counts as not folded.
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
  /** the sink's mapping is not the one that its rows were written by, and it follows nothing until `adopt` */
  readonly remapped: boolean
  /**
   * From now on nobody has a partition of the sink, nor takes one, until `adopt`: to be called before the first row is
   * written by another mapping. Durable, also when the copy is dropped: then rows of two mappings would stand side by side.
   */
  halt(): Promise<void>
  /** The copy's mapping is the one of the sink's rows from now on. */
  adopt(): Promise<void>
  /** shape `table`: what stands against a swap, in words; none: it can be done. To be asked before the fold. */
  obstacles(): Promise<readonly string[]>
  /** shape `table`: The sink's own rows take the place of the copy's, so that a swap leaves them as they are. @returns rows */
  carry(keys: readonly Difference[]): Promise<number>
  /**
   * shape `table`: The copy's tables take the place of the sink's, with guards, markers and mapping, in one transaction that
   * holds the locks of all partitions. The old tables are put aside.
   * @param last is awaited under the locks, and has seconds: folds on to where the sink stands now
   * @throws MILLRACE_COPY_BEHIND when the copy does not stand there then: nothing was changed
   */
  swap(last: () => Promise<void>): Promise<void>
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
  /** only the values are compared: the positions in the copy are not those of the stream, they just say what is newer */
  readonly values?: boolean
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
  /** left alone: newer, parked, partial, unverifiable, equal by now, or refused */
  readonly left: number
  /** what the store does not take as it is folded: a constraint, a trigger. The other keys are written. */
  readonly refused: readonly Refused[]
}

export interface Refused {
  readonly key: Difference
  readonly reason: ParkReason
}
