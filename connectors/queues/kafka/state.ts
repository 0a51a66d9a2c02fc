import type { QueueRecord, StateStore } from '../../../src/core/queue.ts'
import type { Cluster } from './cluster.ts'
import type { Codecs } from './codecs.ts'
import { readRange } from './log-reader.ts'
import { rangeOf } from './offsets.ts'
import type { TopicSettings } from './options.ts'
import type { KafkaPublisher } from './publisher.ts'
import { ensureTopic, stateTopic } from './topics.ts'

const PARTITION = 0

export interface StateDeps {
  readonly topic: string
  readonly topics: TopicSettings
  readonly cluster: () => Cluster
  readonly codecs: Codecs
  readonly publisher: () => KafkaPublisher
}

/** Values by key in a compacted topic of one partition, made by the first write. */
export class KafkaState implements StateStore {
  readonly #deps: StateDeps
  readonly #text = new TextDecoder()
  readonly #bytes = new TextEncoder()
  #publisher: KafkaPublisher | undefined
  /** writes go out one after the other, in the order they were asked for */
  #last: Promise<unknown> = Promise.resolve()

  constructor(deps: StateDeps) {
    this.#deps = deps
  }

  async read(prefix: string): Promise<ReadonlyMap<string, string>> {
    const { cluster, codecs, topic } = this.#deps
    const values = new Map<string, string>()
    if (!(await cluster().metadata([topic])).has(topic)) return values
    const at = { topic, partition: PARTITION }
    for await (const batch of readRange(cluster(), codecs, at, await rangeOf(cluster(), at)))
      for (const { key, value } of batch) {
        const name = key === null ? null : this.#text.decode(key)
        if (name === null || !name.startsWith(prefix)) continue
        if (value === null) values.delete(name)
        else values.set(name, this.#text.decode(value))
      }
    return values
  }

  write(key: string, value: string): Promise<void> {
    return this.#append({ key: this.#bytes.encode(key), value: this.#bytes.encode(value), headers: [] })
  }

  remove(key: string): Promise<void> {
    return this.#append({ key: this.#bytes.encode(key), value: null, headers: [] })
  }

  #append(record: QueueRecord): Promise<void> {
    const written = this.#last.then(() => this.#publish(record))
    this.#last = written.catch(() => {})
    return written
  }

  async #publish(record: QueueRecord): Promise<void> {
    const { cluster, topic, topics } = this.#deps
    if (!this.#publisher) {
      await ensureTopic(cluster(), topics.create, (brokers) => stateTopic(topic, topics, brokers))
      this.#publisher = this.#deps.publisher()
    }
    try {
      await this.#publisher.publish([{ topic, partition: PARTITION, records: [record] }])
    } catch (error) {
      this.#publisher = undefined
      throw error
    }
  }
}
