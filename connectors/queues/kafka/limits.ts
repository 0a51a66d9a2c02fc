import type { Cluster } from './cluster.ts'
import { brokerSettings, topicSettings } from './configs.ts'
import { BATCH_OVERHEAD } from './record-batch.ts'

/** Kafka's own default of `message.max.bytes`, where the principal may not read it. */
const DEFAULT_MAX_BATCH = 1024 * 1024 + 12

/** How large a batch may be, as brokers and topics are set; what one record may hold follows from it. */
export class Limits {
  readonly #topics = new Map<string, number>()
  #brokers: number | undefined

  /** by recordBytes, the largest record that every topic seen so far takes */
  get maxRecordBytes(): number {
    return Math.min(this.#brokers ?? DEFAULT_MAX_BATCH, ...this.#topics.values()) - BATCH_OVERHEAD
  }

  /** by recordBytes; a record's own overhead in a batch is never more than is counted there */
  maxRecordBytesOf(topic: string): number {
    return this.maxBatchBytes(topic) - BATCH_OVERHEAD
  }

  /** bytes of the largest batch that the topic takes; {@link learn} must have seen it */
  maxBatchBytes(topic: string): number {
    return this.#topics.get(topic) ?? this.#brokers ?? DEFAULT_MAX_BATCH
  }

  /** Asks for what is not known yet; the cluster must have seen metadata. */
  async learn(cluster: Cluster, topics: readonly string[]): Promise<void> {
    this.#brokers ??= await brokerLimit(cluster)
    const fresh = topics.filter((topic) => !this.#topics.has(topic))
    for (const [topic, settings] of await topicSettings(cluster, fresh, ['max.message.bytes']))
      this.#topics.set(topic, number(settings?.get('max.message.bytes')) ?? this.#brokers)
  }
}

async function brokerLimit(cluster: Cluster): Promise<number> {
  const [node] = cluster.nodes.keys()
  const settings = node === undefined ? null : await brokerSettings(cluster, node, ['message.max.bytes'])
  return number(settings?.get('message.max.bytes')) ?? DEFAULT_MAX_BATCH
}

function number(text: string | undefined): number | undefined {
  return text === undefined || !/^\d+$/.test(text) ? undefined : Number(text)
}
