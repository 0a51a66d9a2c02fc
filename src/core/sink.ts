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
  close(): Promise<void>
}

export interface SinkTraits {
  readonly name: string
  /** what the guarantee table says: `exactly-once` data and checkpoint commit together, `convergent` by position guard, `at-least-once` */
  readonly effect: 'exactly-once' | 'convergent' | 'at-least-once'
  /** false: no checkpoint is kept, every run begins at the configured start */
  readonly checkpoints: boolean
}

export interface Checkpoint {
  readonly position: Position
  /** the next offset to read */
  readonly offset: bigint
}

/** One partition of one sink, in the hands of its owner. Calls must not overlap. */
export interface Lane {
  /** by source, as they stood when the lane was claimed */
  readonly checkpoints: ReadonlyMap<string, Checkpoint>
  /**
   * Applies the events and moves the checkpoint from `from` to `to`, all or nothing; resolves only when durable.
   * @throws MILLRACE_SINK_FENCED when another owner has the partition or the checkpoint is not `from`: nothing was done
   * @throws a permanent code (see policy) naming the event that cannot be applied: nothing was done
   * @throws anything else: the outcome is unknown; claim the lane again and read its checkpoint
   */
  apply(batch: LaneBatch): Promise<void>
  release(): Promise<void>
}

export interface LaneBatch {
  readonly source: string
  /** the checkpoint this batch stands on; null for a sink's first batch of the source */
  readonly from: Position | null
  readonly to: Checkpoint
  /** in commit order; may be empty when only the offset moves */
  readonly events: readonly Event[]
}
