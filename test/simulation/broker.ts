import type { QueueRecord, StoredRecord } from '../../src/core/queue.ts'
import { Bell } from './network.ts'
import { utf8 } from './postgres.ts'

/** The log of one partition, dense but for what a broker writes for itself. */
export class PartitionLog {
  start = 0n
  end = 0n
  readonly records: StoredRecord[] = []
  readonly news = new Bell()

  append(records: readonly QueueRecord[], timestamp: number): readonly StoredRecord[] {
    const stored = records.map((record, i) => ({
      offset: this.end + BigInt(i),
      timestamp,
      key: record.key,
      value: record.value,
      headers: record.headers.map(([name, value]) => [name, typeof value === 'string' ? utf8(value) : value] as const),
    }))
    this.records.push(...stored)
    this.end += BigInt(stored.length)
    this.news.ring()
    return stored
  }

  /** an offset that carries no record */
  skip(): void {
    this.end++
    this.news.ring()
  }

  from(offset: bigint, count: number): readonly StoredRecord[] {
    let i = this.records.length
    while (i > 0 && (this.records[i - 1] as StoredRecord).offset >= offset) i--
    return this.records.slice(i, i + count)
  }

  /** retention */
  trim(before: bigint): void {
    let count = 0
    while (count < this.records.length && (this.records[count] as StoredRecord).offset < before) count++
    this.start = before
    this.records.splice(0, count)
  }

  /** the loss of what was acknowledged: an unclean leader, a restored disk */
  truncate(to: bigint): void {
    let count = 0
    while (count < this.records.length && (this.records.at(-1 - count) as StoredRecord).offset >= to) count++
    this.end = to
    this.news.ring()
    if (count > 0) this.records.splice(-count)
  }
}

export interface Topic {
  readonly name: string
  readonly partitions: PartitionLog[]
}

/** The queue's servers: topics and the relays' state. Everything here is durable, until a step of the schedule loses it. */
export class Broker {
  readonly topics = new Map<string, Topic>()
  readonly state = new Map<string, string>()
  /** until then some answers are those of a broker that has just come back and does not know better (virtual ms) */
  staleUntil = 0
  readonly partitionsPerTopic: number

  constructor(partitionsPerTopic: number) {
    this.partitionsPerTopic = partitionsPerTopic
  }

  create(name: string): Topic {
    let topic = this.topics.get(name)
    if (topic === undefined) {
      topic = { name, partitions: Array.from({ length: this.partitionsPerTopic }, () => new PartitionLog()) }
      this.topics.set(name, topic)
    }
    return topic
  }

  delete(name: string): Topic | undefined {
    const topic = this.topics.get(name)
    this.topics.delete(name)
    for (const log of topic?.partitions ?? []) log.news.ring()
    return topic
  }

  addPartition(name: string): boolean {
    return this.topics.get(name)?.partitions.push(new PartitionLog()) !== undefined
  }

  log(topic: string, partition: number): PartitionLog | undefined {
    return this.topics.get(topic)?.partitions[partition]
  }
}
