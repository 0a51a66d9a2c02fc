import { setTimeout as sleep } from 'node:timers/promises'
import { MillraceError } from '../../../src/core/errors.ts'
import { isLocal } from '../../../src/core/tls.ts'
import { answered, connectionFailure, topicMissing } from './failure.ts'
import { BrokerLink, type LinkOptions, type Modules } from './kafkajs.ts'
import { type Address, parseAddress } from './options.ts'
import { ERROR, errorName, hasMoved } from './protocol-errors.ts'

export interface PartitionMetadata {
  readonly partition: number
  /** the node that leads it; -1 while there is none */
  readonly leader: number
  readonly replicas: readonly number[]
  readonly isr: readonly number[]
}

/** What a broker answers to a Metadata request, in kafkajs' words. */
interface MetadataAnswer {
  readonly brokers: readonly { readonly nodeId: number; readonly host: string; readonly port: number }[]
  readonly controllerId: number
  readonly topicMetadata: readonly {
    readonly topicErrorCode: number
    readonly topic: string
    readonly isInternal: boolean
    readonly partitionMetadata: readonly {
      readonly partitionId: number
      readonly leader: number
      readonly replicas: readonly number[]
      readonly isr: readonly number[]
    }[]
  }[]
}

export type Topics = ReadonlyMap<string, readonly PartitionMetadata[]>

/** how often metadata is read again while partitions have no leader, in ms */
const REFRESH_PAUSE = 100

/**
 * One client's view of a Kafka cluster: its brokers, who leads what, and a connection to each. Nothing is retried but
 * the search for a broker that answers, and for a leader where the metadata was old.
 */
export class Cluster {
  readonly #kafkajs: Modules
  readonly #bootstrap: readonly Address[]
  readonly #options: LinkOptions
  readonly #links = new Map<string, BrokerLink>()
  #nodes = new Map<number, Address>()
  #controller = -1
  readonly #topics = new Map<string, readonly PartitionMetadata[]>()
  #closed = false

  constructor(kafkajs: Modules, brokers: readonly string[], options: LinkOptions) {
    this.#kafkajs = kafkajs
    this.#bootstrap = brokers.map(parseAddress)
    this.#options = options
  }

  get requestTimeout(): number {
    return this.#options.requestTimeout
  }

  get closed(): boolean {
    return this.#closed
  }

  get nodes(): ReadonlyMap<number, Address> {
    return this.#nodes
  }

  /** how many brokers the config names */
  get named(): number {
    return new Set(this.#bootstrap.map(({ host, port }) => `${host}:${port}`)).size
  }

  /**
   * Sends a request with kafkajs' encoding to one broker.
   * @throws a connection failure as one of ours; the connection is not used again
   */
  async call<Answer>(link: BrokerLink, api: string, options: object, doing: string): Promise<Answer> {
    return this.using(link, doing, () => link.call<Answer>(api, options))
  }

  async using<Answer>(link: BrokerLink, doing: string, request: () => Promise<Answer>): Promise<Answer> {
    try {
      return await request()
    } catch (error) {
      this.#drop(link)
      throw connectionFailure(error, link.address, doing)
    }
  }

  /** Any broker that answers: one we are connected to, else those we know, else those of the config. */
  async any(): Promise<BrokerLink> {
    for (const link of [...this.#links.values()]) {
      if (await this.#connected(link).catch(() => false)) return link
      this.#drop(link)
    }
    const failures: MillraceError[] = []
    for (const address of [...this.#bootstrap, ...this.#nodes.values()]) {
      if (failures.some(({ fields }) => fields['broker'] === `${address.host}:${address.port}`)) continue
      const link = this.#link(address)
      try {
        await this.#connected(link)
        return link
      } catch (error) {
        this.#drop(link)
        failures.push(connectionFailure(error, link.address, 'to begin with'))
      }
    }
    // a refusal says more than a broker that is away
    throw failures.find(({ code }) => code !== 'MILLRACE_QUEUE_UNREACHABLE') ?? (failures[0] as MillraceError)
  }

  /** Each broker of the config by itself: null, or why it cannot be used. */
  async probe(): Promise<ReadonlyMap<string, MillraceError | null>> {
    const found = new Map<string, MillraceError | null>()
    for (const address of this.#bootstrap) {
      const link = this.#link(address)
      const failure = await this.#connected(link).then(
        () => null,
        (error) => connectionFailure(error, link.address, 'to begin with'),
      )
      if (failure) this.#drop(link)
      found.set(link.address, failure)
    }
    return found
  }

  /** The existing ones of the topics (null: all topics), as the cluster sees them now. A topic is never made by asking. */
  async metadata(topics: readonly string[] | null): Promise<Topics> {
    if (topics?.length === 0) return new Map()
    const link = await this.any()
    const answer = await this.call<MetadataAnswer>(
      link,
      'Metadata',
      { topics: topics ?? [], allowAutoTopicCreation: false },
      'for its metadata',
    )
    // a broker that has just started, or is fenced: what it says of topics, and of how many replicas there may be, is not to be used
    if (answer.brokers.length === 0)
      throw new MillraceError('MILLRACE_QUEUE_UNREACHABLE', `${link.address} answers, but knows of no broker that serves`, {
        remedy: 'nothing, if the cluster is starting; else see whether its brokers are fenced (kafka-metadata-quorum.sh)',
      })
    this.#nodes = new Map(answer.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }]))
    this.#controller = answer.controllerId
    const found = new Map<string, readonly PartitionMetadata[]>()
    for (const { topic, topicErrorCode, isInternal, partitionMetadata } of answer.topicMetadata) {
      this.#topics.delete(topic)
      if (topicErrorCode === ERROR.UNKNOWN_TOPIC_OR_PARTITION || (topics === null && isInternal)) continue
      if (topicErrorCode === ERROR.TOPIC_AUTHORIZATION_FAILED && topics === null) continue
      if (topicErrorCode !== ERROR.NONE && topicErrorCode !== ERROR.LEADER_NOT_AVAILABLE)
        throw answered(topicErrorCode, `for the topic ${topic}`, { topic })
      const partitions = partitionMetadata
        .map(({ partitionId, leader, replicas, isr }) => ({ partition: partitionId, leader, replicas, isr }))
        .sort((a, b) => a.partition - b.partition)
      found.set(topic, partitions)
      this.#topics.set(topic, partitions)
    }
    return found
  }

  /** @throws MILLRACE_QUEUE_NOT_READY when the topic does not exist */
  async partitions(topic: string): Promise<readonly PartitionMetadata[]> {
    const known = this.#topics.get(topic) ?? (await this.metadata([topic])).get(topic)
    if (!known) throw topicMissing(topic)
    return known
  }

  /** The node that leads the partition as far as we know, or -1. */
  async leaderOf(topic: string, partition: number): Promise<number> {
    const found = (await this.partitions(topic)).find((each) => each.partition === partition)
    if (!found)
      throw new MillraceError('MILLRACE_PARTITIONS_CHANGED', `the topic ${topic} has no partition ${partition}`, {
        fields: { topic, partition },
      })
    return found.leader
  }

  forget(topic: string): void {
    this.#topics.delete(topic)
  }

  /** The connections to a node that metadata has named. */
  async node(id: number): Promise<BrokerLink> {
    if (!this.#nodes.has(id)) await this.metadata([...this.#topics.keys()])
    const address = this.#nodes.get(id)
    if (!address)
      throw new MillraceError('MILLRACE_QUEUE_UNREACHABLE', `Kafka names node ${id} as leader and gives no address of it`, {
        remedy: 'a broker is down, or just starting: wait',
      })
    return this.#link(address)
  }

  /** A connection to an address that a broker gave us, the group's coordinator for one. */
  at(address: Address): BrokerLink {
    return this.#link(address)
  }

  /** The node that metadata named as controller; with KRaft any broker passes on what is the controller's. */
  async controller(): Promise<BrokerLink> {
    return this.#nodes.has(this.#controller) ? this.node(this.#controller) : this.any()
  }

  /**
   * Asks the partition's leader. Where it has moved, its successor is looked for until the request timeout has passed:
   * for requests that change nothing.
   */
  async onLeader<Answer>(
    topic: string,
    partition: number,
    ask: (link: BrokerLink) => Promise<{ readonly errorCode: number; readonly answer: Answer }>,
    doing: string,
  ): Promise<{ readonly errorCode: number; readonly answer: Answer }> {
    const until = performance.now() + this.#options.requestTimeout
    for (;;) {
      const leader = await this.leaderOf(topic, partition)
      let errorCode: number = ERROR.LEADER_NOT_AVAILABLE
      if (leader !== -1) {
        const link = await this.node(leader)
        const result = await this.using(link, doing, () => ask(link))
        if (!hasMoved(result.errorCode)) return result
        errorCode = result.errorCode
      }
      this.forget(topic)
      if (performance.now() > until || this.#closed)
        throw new MillraceError(
          'MILLRACE_QUEUE_UNREACHABLE',
          `${topic}/${partition} has no leader that serves it: Kafka answered ${errorName(errorCode)} ${doing}`,
          {
            fields: { topic, partition },
            remedy: 'see which brokers are down (kafka-topics.sh --describe --unavailable-partitions)',
          },
        )
      await sleep(REFRESH_PAUSE)
    }
  }

  close(): void {
    this.#closed = true
    for (const link of this.#links.values()) link.destroy()
    this.#links.clear()
  }

  async #connected(link: BrokerLink): Promise<true> {
    await link.connect()
    return true
  }

  #link(address: Address): BrokerLink {
    if (this.#closed) throw new MillraceError('MILLRACE_QUEUE_UNREACHABLE', 'the connection to Kafka was closed by us')
    const key = `${address.host}:${address.port}`
    const { tls, clearAnywhere } = this.#options
    // the config may name loopback addresses alone, and the cluster others
    if (tls === false && !clearAnywhere && !isLocal(address.host))
      throw new MillraceError(
        'MILLRACE_TLS',
        `the cluster sends us to ${key}, which is not this machine, and nothing says how to secure it`,
        {
          fields: { broker: key },
          remedy:
            'set queue.tls ({} for certificates of known authorities; mode: disable for none, which SASL plain does not go with)',
        },
      )
    const known = this.#links.get(key)
    if (known && !known.destroyed) return known
    const link = new BrokerLink(this.#kafkajs, address, this.#options)
    this.#links.set(key, link)
    return link
  }

  #drop(link: BrokerLink): void {
    link.destroy()
    if (this.#links.get(link.address) === link) this.#links.delete(link.address)
    // who was leader may be another by now
    this.#topics.clear()
  }
}
