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
  /** every checkpoint of this sink, of all owners, read without taking anything: for status and for conflicts */
  checkpoints(): Promise<readonly PartitionCheckpoint[]>
  close(): Promise<void>
}

export interface SinkTraits {
  readonly name: string
  /**
   * What the guarantee table says: `exactly-once` data and checkpoint commit together, `convergent` by position guard,
   * `at-least-once` otherwise.
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
}

/** One partition of one sink, in the hands of its owner. Calls must not overlap. */
export interface Lane {
  /** as it stood when the lane was claimed */
  readonly checkpoint: PartitionCheckpoint
  /**
   * Applies the events and moves the checkpoint, all or nothing; resolves only when durable.
   * @throws MILLRACE_SINK_FENCED when another owner has the partition or a source does not stand at its `from`: nothing was done
   * @throws a permanent code (see policy) with `fields.position` and `fields.source` of the event that cannot be applied: nothing was done
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
}
