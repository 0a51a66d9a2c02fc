import { type ConnectorDeps, defineQueue } from '../../src/core/connector.ts'
import { MillraceError } from '../../src/core/errors.ts'
import type {
  ConsumeOptions,
  Consumer,
  OffsetRange,
  Publisher,
  Queue,
  QueueTraits,
  StateStore,
  StoredRecord,
  TopicPartition,
} from '../../src/core/queue.ts'
import { tlsFor } from '../../src/core/tls.ts'
import { checkKafka } from './kafka/check.ts'
import { Cluster } from './kafka/cluster.ts'
import { type Codecs, openCodecs } from './kafka/codecs.ts'
import { KafkaConsumer } from './kafka/consumer.ts'
import { type LinkOptions, loadKafkajs, type Modules } from './kafka/kafkajs.ts'
import { Limits } from './kafka/limits.ts'
import { readRange } from './kafka/log-reader.ts'
import { offsetAtTime, rangeOf } from './kafka/offsets.ts'
import { type KafkaSettings, kafkaOptions, secured } from './kafka/options.ts'
import { KafkaPublisher } from './kafka/publisher.ts'
import { KafkaState } from './kafka/state.ts'
import { ensureTopic, eventTopic, findTopics } from './kafka/topics.ts'

export type { KafkaOptions } from './kafka/options.ts'

/** Kafka 4.x, and older clusters that know Fetch 11 (2.3). Nothing is connected before it is needed. */
export default defineQueue<KafkaSettings>({
  name: 'kafka',
  options: kafkaOptions,
  async open(settings, deps) {
    return new KafkaQueue(settings, deps, await loadKafkajs(), await openCodecs(settings.compression))
  },
})

const DURABILITY =
  'with 3 replicas and min.insync.replicas 2, yes: Kafka acknowledges what the replicas hold in memory and writes it to disk later. A single broker can lose acknowledged records in a power cut'

class KafkaQueue implements Queue {
  readonly #settings: KafkaSettings
  readonly #deps: ConnectorDeps
  readonly #kafkajs: Modules
  readonly #codecs: Codecs
  readonly #limits = new Limits()
  /** what has connections of its own, and how it is ended */
  readonly #open = new Map<Cluster, () => Promise<void>>()
  readonly #state: KafkaState
  #cluster: Cluster | undefined
  #closed = false

  constructor(settings: KafkaSettings, deps: ConnectorDeps, kafkajs: Modules, codecs: Codecs) {
    this.#settings = settings
    this.#deps = deps
    this.#kafkajs = kafkajs
    this.#codecs = codecs
    this.#state = new KafkaState({
      topic: `millrace.${deps.pipeline}.state`,
      topics: settings.topics,
      cluster: () => this.#shared(),
      codecs,
      publisher: () => this.#publisher(),
    })
  }

  /** `maxRecordBytes` is Kafka's default until a broker has been asked, and the least of the topics seen from then on. */
  get traits(): QueueTraits {
    return { name: 'kafka', maxRecordBytes: this.#limits.maxRecordBytes, durability: DURABILITY }
  }

  get state(): StateStore {
    return this.#state
  }

  check(topics: readonly string[]): ReturnType<Queue['check']> {
    return checkKafka(this.#shared(), this.#settings, topics)
  }

  async topics(names: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const cluster = this.#shared()
    const found = await findTopics(cluster, names)
    await this.#limits.learn(cluster, [...found.keys()])
    return found
  }

  async createTopic(name: string): Promise<void> {
    const { topics } = this.#settings
    await ensureTopic(this.#shared(), topics.create, (brokers) => eventTopic(name, topics, brokers))
  }

  async ranges(topic: string): Promise<readonly OffsetRange[]> {
    const cluster = this.#shared()
    cluster.forget(topic)
    const partitions = await cluster.partitions(topic)
    return Promise.all(partitions.map(({ partition }) => rangeOf(cluster, { topic, partition })))
  }

  offsetAt(topic: string, partition: number, time: number): Promise<bigint> {
    return offsetAtTime(this.#shared(), { topic, partition }, time)
  }

  read(at: TopicPartition, range: OffsetRange, signal?: AbortSignal): AsyncIterable<readonly StoredRecord[]> {
    return readRange(this.#shared(), this.#codecs, at, range, signal)
  }

  async publisher(): Promise<Publisher> {
    return this.#publisher()
  }

  async consume(options: ConsumeOptions): Promise<Consumer> {
    const cluster = this.#connect(options.clientId)
    try {
      const deps = { kafkajs: this.#kafkajs, cluster, codecs: this.#codecs, log: this.#deps.log }
      const consumer = await KafkaConsumer.open(deps, options)
      this.#open.set(cluster, () => consumer.close())
      return consumer
    } catch (error) {
      cluster.close()
      throw error
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(Array.from(this.#open.values(), (close) => close()))
    this.#cluster?.close()
  }

  #publisher(): KafkaPublisher {
    const cluster = this.#connect()
    const publisher = new KafkaPublisher(cluster, this.#codecs, this.#limits, this.#deps.now)
    this.#open.set(cluster, () => publisher.close())
    return publisher
  }

  /** for everything that changes nothing: publishers and consumers have connections of their own */
  #shared(): Cluster {
    this.#cluster ??= this.#connect()
    return this.#cluster
  }

  #connect(clientId?: string): Cluster {
    if (this.#closed) throw new MillraceError('MILLRACE_INTERNAL', 'the queue was used after it was closed')
    const { brokers, tls, sasl, requestTimeout } = this.#settings
    const options: LinkOptions = {
      clientId: clientId ?? this.#settings.clientId ?? `millrace-${this.#deps.pipeline}`,
      tls: secured(tls, brokers) ? tlsFor('', tls) : false,
      clearAnywhere: tls?.mode === 'disable' && sasl?.mechanism !== 'plain',
      sasl,
      requestTimeout,
      log: this.#deps.log,
    }
    for (const cluster of this.#open.keys()) if (cluster.closed) this.#open.delete(cluster)
    return new Cluster(this.#kafkajs, brokers, options)
  }
}
