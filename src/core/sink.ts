import type { Copies } from './copy.ts'
import type { Event } from './event.ts'
import type { Finding } from './finding.ts'
import type { Position } from './position.ts'
import type { TopicPartition } from './queue.ts'

/**
 * A sink: a store that follows. Every implementation passes `test/connectors/sink-contract.ts`.
 *
 * The applier decides *what* is applied (it drops what is not newer than the checkpoint and halts on a gap); the sink
 * makes it so: data and checkpoint move together, and only from the checkpoint the applier supposed.
 */
export interface Sink {
  readonly traits: SinkTraits
  check(): Promise<readonly Finding[]>
  /** Makes the sink's own bookkeeping (checkpoints, markers) where it needs any; safe to repeat. */
  init(): Promise<void>
  /**
   * Takes the partition for this owner: raises its owner epoch, so that whoever held it before can no longer write.
   * Once per assignment, and never retaken without a new one.
   */
  claim(partition: TopicPartition): Promise<Lane>
  /** the keys that wait, and what a person may do about them; null: this sink parks nothing, it halts instead */
  readonly parking: Parking | null
  /** what replay, rebuild and verify work with; null: what the sink did cannot be looked at, so events can only be delivered again */
  readonly copies: Copies | null
  /**
   * Delivers events of one partition once more, in order, marked as replayed; moves no checkpoint, takes no partition.
   * Null: the sink has rows (`copies`), or cannot.
   * @throws a permanent code with `fields.position` and `fields.source` of the event that cannot be delivered
   */
  readonly redeliver: ((partition: TopicPartition, events: readonly Event[]) => Promise<void>) | null
  /** every checkpoint of this sink, of all owners, read without taking anything: for status and for conflicts */
  checkpoints(): Promise<readonly PartitionCheckpoint[]>
  close(): Promise<void>
}

export interface SinkTraits {
  readonly name: string
  /**
   * What the guarantee table says: `exactly-once` data and checkpoint commit together, `convergent` by position guard,
   * `at-least-once` otherwise. Where this contract says that nothing was done, those two may have written events, which come
   * again; never the checkpoint.
   */
  readonly effect: 'exactly-once' | 'convergent' | 'at-least-once'
  /** false: no checkpoint is kept, every run begins at the configured start */
  readonly checkpoints: boolean
}

export interface PartitionCheckpoint extends TopicPartition {
  /** by source: the position up to which the partition has been applied */
  readonly positions: ReadonlyMap<string, Position>
  /** the next offset to read, for all sources of the partition; null before the first */
  readonly offset: bigint | null
  /** the keys of this partition that are parked, as `orderOf` writes them: their events go into `LaneBatch.parked` */
  readonly parked: ReadonlySet<string>
  /** the last `LaneBatch.beginning` that was given, as it was; null before */
  readonly beginning: string | null
}

/** One partition of one sink, in the hands of its owner. Calls must not overlap. */
export interface Lane {
  /** as it stood when the lane was claimed */
  readonly checkpoint: PartitionCheckpoint
  /**
   * Applies the events and moves the checkpoint, all or nothing; resolves only when durable.
   * @throws MILLRACE_SINK_FENCED when another owner has the partition, a source does not stand at its `from`, or the offset
   *   would go back (a late request of the same owner, after a `reread`): nothing was done
   * @throws a permanent code (see policy) with `fields.position` and `fields.source` of the event that cannot be applied: nothing was done
   * @throws MILLRACE_PARKED_CHANGED when a key was parked no more, or was parked, since the checkpoint was read (somebody
   *   redrove it): nothing was done; `reread` tells the keys
   * @throws MILLRACE_PARKING_FULL when what is parked would pass the sink's limits: nothing was done
   * @throws anything else: the outcome is unknown; `reread` tells it
   */
  apply(batch: LaneBatch): Promise<void>
  /**
   * The checkpoint as it stands now, read as the same owner after an unknown outcome; takes nothing anew, or two
   * members on one partition would take it in turn for ever.
   * @throws MILLRACE_SINK_FENCED when another owner has the partition
   */
  reread(): Promise<PartitionCheckpoint>
  release(): Promise<void>
}

export interface LaneBatch {
  /** each source that has events here: from the position the checkpoint must stand at (null: none yet) to the last one applied */
  readonly moves: readonly { readonly source: string; readonly from: Position | null; readonly to: Position }[]
  /** the next offset to read, set for every source of the partition */
  readonly offset: bigint
  /** in log order, which is commit order within each source; may be empty when only the offset moves */
  readonly events: readonly Event[]
  /** events that wait instead of being applied, in log order: durable with the checkpoint that passes them */
  readonly parked: readonly ParkedEvent[]
  /** a text of the applier's (how it began to read), to be kept with the checkpoint; null: what is kept stays */
  readonly beginning: string | null
}

export interface ParkedEvent {
  readonly event: Event
  /** where it stands in its partition */
  readonly offset: bigint
  /** why it cannot be applied; null: it waits behind an earlier event of its key */
  readonly reason: ParkReason | null
}

export interface ParkReason {
  readonly code: string
  /** never holds a payload */
  readonly message: string
}

/**
 * What people do about parked keys. Each works under the lock of the key's partition, so that it cannot cross what the
 * owner applies, and leaves an audit record in the same transaction.
 */
export interface Parking {
  totals(): Promise<ParkedTotals>
  /** by the time the first event was parked, at most `limit` */
  keys(limit: number): Promise<readonly ParkedKey[]>
  /** the events of one key in order, at most `limit`: what identifies them, and the payload's bytes */
  events(key: KeyPlace, limit: number): Promise<readonly StoredParkedEvent[]>
  /**
   * Applies the key's events in order, as far as it goes; a key without events is parked no more.
   * @throws MILLRACE_NOT_PARKED
   */
  redrive(key: KeyPlace, by: Audit): Promise<Redriven>
  /**
   * Gives up the first event of the key, which must stand at the position, and redrives the rest.
   * @throws MILLRACE_NOT_PARKED when the key is not parked or its first event is another
   */
  skip(key: KeyPlace, position: Position, by: Audit): Promise<Redriven>
  /** what was done, latest first */
  audit(limit: number): Promise<readonly AuditRecord[]>
}

/** What names a parked key: two topics may use the same ordering key, and each waits for itself. */
export interface KeyPlace extends TopicPartition {
  /** as `orderOf` writes it */
  readonly order: string
}

export interface ParkedTotals {
  readonly keys: number
  readonly events: number
  /** of keys, payloads and headers */
  readonly bytes: number
}

export interface ParkedKey extends KeyPlace {
  /** the first event: what all others wait for */
  readonly position: Position
  readonly reason: ParkReason
  readonly events: number
  readonly bytes: number
  readonly since: Date
}

export interface StoredParkedEvent extends ParkedEvent {
  readonly parkedAt: Date
}

export interface Audit {
  /** who asked for it */
  readonly actor: string
  readonly note: string | null
}

export interface AuditRecord extends Audit, KeyPlace {
  readonly at: Date
  readonly action: 'redrive' | 'skip'
  /** what was given up */
  readonly skipped: Position | null
  readonly applied: number
  readonly remaining: number
}

export interface Redriven {
  readonly applied: number
  /** events of the key that are still parked */
  readonly remaining: number
  /** why the first of them is */
  readonly reason: ParkReason | null
}
