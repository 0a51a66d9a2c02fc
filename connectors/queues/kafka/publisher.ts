import { MillraceError } from '../../../src/core/errors.ts'
import type { Header } from '../../../src/core/event.ts'
import type { PartitionRecords, Publisher, QueueRecord } from '../../../src/core/queue.ts'
import { recordBytes } from '../../../src/core/record.ts'
import type { Cluster } from './cluster.ts'
import type { Codecs } from './codecs.ts'
import { connectionFailure } from './failure.ts'
import type { BrokerLink } from './kafkajs.ts'
import type { Limits } from './limits.ts'
import { beginProduce, decodeProduce, PRODUCE_VERSION, type ProduceAnswer } from './produce.ts'
import { ERROR, errorName, isRefused } from './protocol-errors.ts'
import { BATCH_OVERHEAD, RequestWriter } from './record-batch.ts'

/** A batch goes out when it has grown to this, unless one record alone is larger; a request at four times that. */
const BATCH_TARGET = 1024 * 1024
const REQUEST_TARGET = 4 * BATCH_TARGET
/** the part of our patience that the leader may wait for its followers, so that its answer comes while we still listen */
const LEADER_PATIENCE = 0.9

/** The records of one entry of a publish, on their way: requests take them from the front. */
interface Outgoing {
  readonly topic: string
  readonly partition: number
  readonly records: readonly QueueRecord[]
  sent: number
  base: bigint | null
}

/** What one request carries of an entry. */
interface Chunk {
  readonly entry: Outgoing
  readonly count: number
}

/**
 * Writes with acks=all, one request at a time to each leader, and nothing is ever sent again: whatever fails leaves an
 * unknown outcome, and this publisher is over (PROTOCOL 2.3 rules 3 and 4).
 */
export class KafkaPublisher implements Publisher {
  readonly #cluster: Cluster
  readonly #codecs: Codecs
  readonly #limits: Limits
  readonly #now: () => number
  readonly #writers = new Map<number, RequestWriter>()
  readonly #known = new Set<string>()
  #state: 'idle' | 'publishing' | 'over' = 'idle'

  constructor(cluster: Cluster, codecs: Codecs, limits: Limits, now: () => number) {
    this.#cluster = cluster
    this.#codecs = codecs
    this.#limits = limits
    this.#now = now
  }

  /**
   * @throws MILLRACE_EVENT_TOO_LARGE when a record is larger than its topic takes
   * @throws MILLRACE_PUBLISH_UNKNOWN, and other codes where the brokers say more: the outcome is unknown all the same
   */
  async publish(batches: readonly PartitionRecords[]): Promise<readonly bigint[]> {
    if (this.#state !== 'idle')
      throw new MillraceError('MILLRACE_INTERNAL', `publish was called on a publisher that is ${this.#state}`, {
        remedy: 'calls must not overlap, and none may follow a rejection: open another publisher',
      })
    this.#state = 'publishing'
    try {
      const entries = batches.map(({ topic, partition, records }) => ({
        topic,
        partition,
        records,
        sent: 0,
        base: null as bigint | null,
      }))
      const leaders = await this.#byLeader(entries)
      for (const entry of entries) refuseTooLarge(entry, this.#limits.maxRecordBytesOf(entry.topic))
      await Promise.all(Array.from(leaders, ([node, part]) => this.#send(node, part)))
      this.#state = 'idle'
      return entries.map(({ base }) => base ?? -1n)
    } catch (error) {
      await this.close()
      throw error
    }
  }

  async close(): Promise<void> {
    this.#state = 'over'
    this.#cluster.close()
  }

  async #byLeader(entries: readonly Outgoing[]): Promise<ReadonlyMap<number, readonly Outgoing[]>> {
    const fresh = [...new Set(entries.map(({ topic }) => topic))].filter((topic) => !this.#known.has(topic))
    if (fresh.length > 0) {
      await this.#cluster.metadata(fresh)
      await this.#limits.learn(this.#cluster, fresh)
      for (const topic of fresh) this.#known.add(topic)
    }
    const leaders = new Map<number, Outgoing[]>()
    for (const entry of entries) {
      if (entry.records.length === 0) continue
      const leader = await this.#cluster.leaderOf(entry.topic, entry.partition)
      if (leader === -1) throw unknown(`${entry.topic}/${entry.partition} has no leader`, entry)
      const part = leaders.get(leader)
      if (part) part.push(entry)
      else leaders.set(leader, [entry])
    }
    return leaders
  }

  async #send(node: number, entries: readonly Outgoing[]): Promise<void> {
    const link = await this.#cluster.node(node)
    let writer = this.#writers.get(node)
    if (!writer) this.#writers.set(node, (writer = new RequestWriter()))
    for (let left = entries; left.length > 0; left = left.filter(({ sent, records }) => sent < records.length)) {
      const chunks = await this.#encode(writer, left)
      accept(chunks, await this.#request(link, writer))
    }
  }

  /** One request: at most one batch a partition, as Kafka asks, from the front of what is left. */
  async #encode(writer: RequestWriter, left: readonly Outgoing[]): Promise<readonly Chunk[]> {
    const chosen = new Map<string, Map<number, Outgoing>>()
    for (const entry of left) {
      let partitions = chosen.get(entry.topic)
      if (!partitions) chosen.set(entry.topic, (partitions = new Map()))
      // a second entry for a partition waits for the first
      if (!partitions.has(entry.partition)) partitions.set(entry.partition, entry)
    }
    const chunks: Chunk[] = []
    const full = (): boolean => chunks.length > 0 && writer.length >= REQUEST_TARGET
    beginProduce(writer, Math.ceil(this.#cluster.requestTimeout * LEADER_PATIENCE))
    const endTopics = writer.array()
    let topics = 0
    for (const [topic, partitions] of chosen) {
      if (full()) break
      topics++
      writer.string(topic)
      const endPartitions = writer.array()
      let count = 0
      for (const entry of partitions.values()) {
        if (full()) break
        count++
        chunks.push(await this.#encodeBatch(writer, entry))
      }
      endPartitions(count)
    }
    endTopics(topics)
    return chunks
  }

  async #encodeBatch(writer: RequestWriter, entry: Outgoing): Promise<Chunk> {
    const { records, sent } = entry
    const target = Math.min(this.#limits.maxBatchBytes(entry.topic), BATCH_TARGET)
    writer.int32(entry.partition)
    const endBytes = writer.array()
    const start = writer.beginBatch()
    let count = 0
    for (; sent + count < records.length; count++) {
      const before = writer.length
      writer.record(records[sent + count] as QueueRecord, count)
      if (count > 0 && writer.length - start > target) {
        writer.length = before
        break
      }
    }
    const { own } = this.#codecs
    if (own) {
      const compressed = await own.compress(writer.view().subarray(start + BATCH_OVERHEAD))
      writer.length = start + BATCH_OVERHEAD
      writer.raw(compressed)
    }
    writer.endBatch(start, count, this.#now(), own?.id ?? 0)
    endBytes(writer.length - start)
    return { entry, count }
  }

  async #request(link: BrokerLink, writer: RequestWriter): Promise<ProduceAnswer> {
    try {
      return await link.send('Produce', PRODUCE_VERSION, writer.view(), decodeProduce, this.#cluster.requestTimeout)
    } catch (cause) {
      const failure = connectionFailure(cause, link.address, 'to publish')
      // a refused login or certificate: nothing was sent, and a person must act
      if (failure.code !== 'MILLRACE_QUEUE_UNREACHABLE') throw failure
      throw new MillraceError('MILLRACE_PUBLISH_UNKNOWN', `it is unknown whether events were written: ${failure.message}`, {
        cause,
        fields: { broker: link.address },
      })
    }
  }
}

/** Checks the answer to each chunk, and that a partition's chunks stand one behind the other. */
function accept(chunks: readonly Chunk[], { produced }: ProduceAnswer): void {
  for (const { entry, count } of chunks) {
    const { topic, partition } = entry
    const answer = produced.find((each) => each.partition === partition && each.topic === topic)
    if (!answer) throw unknown(`the answer says nothing of ${topic}/${partition}`, entry)
    if (answer.errorCode !== ERROR.NONE) throw refused(entry, answer.errorCode)
    if (entry.base === null) entry.base = answer.baseOffset
    else if (answer.baseOffset !== entry.base + BigInt(entry.sent))
      throw unknown(`somebody else wrote to ${topic}/${partition} between two parts of one publish`, entry)
    entry.sent += count
  }
}

function unknown(what: string, { topic, partition }: Outgoing): MillraceError {
  return new MillraceError('MILLRACE_PUBLISH_UNKNOWN', `it is unknown whether events were written: ${what}`, {
    fields: { topic, partition },
  })
}

function refused(entry: Outgoing, errorCode: number): MillraceError {
  const { topic, partition } = entry
  const said = `Kafka answered ${errorName(errorCode)} to a publish to ${topic}/${partition}`
  const fields = { topic, partition }
  switch (errorCode) {
    case ERROR.MESSAGE_TOO_LARGE:
    case ERROR.RECORD_LIST_TOO_LARGE:
      return new MillraceError('MILLRACE_EVENT_TOO_LARGE', said, {
        fields: { ...fields, records: entry.records.length },
        remedy: 'raise max.message.bytes of the topic (and message.max.bytes of the brokers)',
      })
    case ERROR.INVALID_TIMESTAMP:
      return new MillraceError('MILLRACE_QUEUE_NOT_READY', said, {
        fields,
        remedy: 'set the clocks of this machine and the broker',
      })
    case ERROR.INVALID_RECORD:
    case ERROR.UNSUPPORTED_COMPRESSION_TYPE:
      return new MillraceError('MILLRACE_QUEUE_NOT_READY', said, {
        fields,
        remedy: 'the topic takes no record like ours: see its cleanup.policy, compression.type and queue.compression',
      })
    case ERROR.NOT_ENOUGH_REPLICAS:
    case ERROR.NOT_ENOUGH_REPLICAS_AFTER_APPEND:
      return new MillraceError('MILLRACE_PUBLISH_UNKNOWN', said, {
        fields,
        remedy: 'fewer replicas are in sync than min.insync.replicas asks for: bring the brokers back',
      })
    default:
      return new MillraceError(isRefused(errorCode) ? 'MILLRACE_QUEUE_AUTH' : 'MILLRACE_PUBLISH_UNKNOWN', said, {
        fields,
        ...(isRefused(errorCode) && { remedy: 'give the principal the ACL Write on the topic (kafka-acls.sh)' }),
      })
  }
}

/** Before anything is sent: a publish is refused whole. */
function refuseTooLarge({ topic, partition, records }: Outgoing, limit: number): void {
  for (let i = 0; i < records.length; i++) {
    const record = records[i] as QueueRecord
    // the exact weight needs the texts' bytes; nearly every record is far below
    if (weightAtMost(record) <= limit) continue
    const bytes = recordBytes(record)
    if (bytes <= limit) continue
    throw new MillraceError(
      'MILLRACE_EVENT_TOO_LARGE',
      `record ${i} of a publish to ${topic}/${partition} weighs ${bytes} bytes, the topic takes ${limit}`,
      {
        fields: { topic, partition, record: i, bytes, limit },
        remedy: 'raise max.message.bytes of the topic, or make events smaller',
      },
    )
  }
}

function weightAtMost({ key, value, headers }: QueueRecord): number {
  let bytes = 64 + key.length + (value === null ? 0 : value.length) + 16 * headers.length
  for (let i = 0; i < headers.length; i++) {
    const header = headers[i] as Header
    const content = header[1]
    bytes += 3 * header[0].length + (typeof content === 'string' ? 3 * content.length : content.length)
  }
  return bytes
}
