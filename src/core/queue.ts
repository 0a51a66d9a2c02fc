import type { Header } from './event.ts'
import type { Finding } from './finding.ts'

/**
 * The queue: named topics, each a fixed number of partitions, each an append-only log of records with dense or
 * growing offsets. Every implementation passes `test/connectors/queue-contract.ts`.
 *
 * What a queue must hold to (the relay's and the appliers' proofs stand on it):
 * - `publish` resolves only when every record is durable. A rejection means that the outcome is *unknown*: any part
 *   may or may not stand in the log, now or later. The queue never retries by itself and never has two requests
 *   under way for one partition.
 * - Within one `publish`, records of a partition stand contiguously, in the order given.
 * - Reading never skips a retained record, and never returns one that could still vanish without a fault of the store.
 * - Offsets are never silently reset: reading from an offset that is not there rejects with MILLRACE_QUEUE_OFFSET_GONE.
 */
export interface Queue {
  readonly traits: QueueTraits
  /** What is unsafe or unreachable, said for people; never throws for what it can express as a finding. */
  check(topics: readonly string[]): Promise<readonly Finding[]>
  /** the topics that exist, of those named (all that match, when a name ends in `*`), with their partition counts */
  topics(names: readonly string[]): Promise<ReadonlyMap<string, number>>
  /** Makes the topic with the configured settings; one that exists is left as it is. Resolves when it can be used. */
  createTopic(name: string): Promise<void>
  /** the log of each partition, by partition number: start is the first retained offset, end the next to be written */
  ranges(topic: string): Promise<readonly OffsetRange[]>
  /** the offset of the first record published at or after the time (ms), or the end of the log */
  offsetAt(topic: string, partition: number, time: number): Promise<bigint>
  /** the records from `from` (inclusive) to `to` (exclusive), in order, in batches of bounded bytes */
  read(partition: TopicPartition, range: OffsetRange, signal?: AbortSignal): AsyncIterable<readonly StoredRecord[]>
  publisher(): Promise<Publisher>
  consume(options: ConsumeOptions): Promise<Consumer>
  /** small durable values: the relay's state. Keyed, last write wins, read whole. */
  readonly state: StateStore
  close(): Promise<void>
}

export interface QueueTraits {
  readonly name: string
  /** bytes of the largest record (key, value and headers) that `publish` takes */
  readonly maxRecordBytes: number
  /** whether an acknowledged record survives the power cut of one machine, in words for the guarantee table */
  readonly durability: string
}

export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

export interface OffsetRange {
  readonly start: bigint
  readonly end: bigint
}

/** A record to publish. */
export interface QueueRecord {
  readonly key: Uint8Array
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
}

/** A record as it stands in the log. Header values are bytes; a record of a foreign producer may lack key or headers. */
export interface StoredRecord {
  readonly offset: bigint
  /** time of publishing, ms since the Unix epoch */
  readonly timestamp: number
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers: readonly (readonly [name: string, value: Uint8Array])[]
}

export interface PartitionRecords extends TopicPartition {
  readonly records: readonly QueueRecord[]
}

/** One writer. After any rejection it must be closed and another one opened. Calls must not overlap. */
export interface Publisher {
  /** @returns the offset of the first record of each entry, in the order given */
  publish(batches: readonly PartitionRecords[]): Promise<readonly bigint[]>
  close(): Promise<void>
}

export interface StateStore {
  /** every value under the keys that begin with the prefix */
  read(prefix: string): Promise<ReadonlyMap<string, string>>
  /** Resolves when durable. */
  write(key: string, value: string): Promise<void>
  remove(key: string): Promise<void>
}

export interface ConsumeOptions {
  /** members of one group share the partitions; group offsets are for lag display only, the sink holds the truth */
  readonly group: string
  readonly topics: readonly string[]
  readonly clientId: string
  readonly signal: AbortSignal
}

/** One member of a group. Iterate it for its assignments; each begins when the partition is ours and ends with its signal. */
export interface Consumer extends AsyncIterable<Assignment> {
  close(): Promise<void>
}

export interface Assignment extends TopicPartition {
  /** aborted when the partition is taken from this member, or the consumer closes */
  readonly signal: AbortSignal
  range(): Promise<OffsetRange>
  /**
   * Follows the log from the offset, for ever, in batches of bounded bytes; ends with the signal. Asking for the next
   * batch gives the one before back: nothing is read ahead without bound, and the member keeps its partition while
   * its reader takes its time. Leaving the loop stops reading this partition; the others flow on.
   */
  read(from: bigint): AsyncIterable<readonly StoredRecord[]>
  /** tells the group how far this partition is, for lag displays; best effort, never the truth */
  report(offset: bigint): void
}
