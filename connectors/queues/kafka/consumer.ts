import type { Log } from '../../../src/core/connector.ts'
import type { Assignment, ConsumeOptions, Consumer, OffsetRange, StoredRecord, TopicPartition } from '../../../src/core/queue.ts'
import type { Cluster, Topics } from './cluster.ts'
import type { Codecs } from './codecs.ts'
import { Follower } from './follower.ts'
import type { Modules } from './kafkajs.ts'
import { Membership, pinned } from './membership.ts'
import { rangeOf } from './offsets.ts'

/** ms between two reports to the group, and two looks at whether the topics are what they were */
const REPORT_INTERVAL = 1_000
const TOPICS_INTERVAL = 30_000
/** ms; who leaves while the others join waits for them no longer */
const LEAVE_WITHIN = 1_000

export interface ConsumerDeps {
  readonly kafkajs: Modules
  /** its own, so that a rebalance, which keeps a connection waiting, holds up nobody else */
  readonly cluster: Cluster
  readonly codecs: Codecs
  readonly log: Log
}

/** One member of a group: membership says what is ours, and each assignment reads it from where the sink says. */
export class KafkaConsumer implements Consumer {
  readonly #cluster: Cluster
  readonly #codecs: Codecs
  readonly #log: Log
  readonly #options: ConsumeOptions
  readonly #membership: Membership
  readonly #closing = new AbortController()
  readonly #reported = new Map<string, TopicPartition & { readonly offset: bigint }>()
  readonly #waiting: Assignment[] = []
  #wake: () => void = () => {}
  /** ends what is ours in this generation of the group */
  #generation = new AbortController()
  #topics: Topics
  #failure: unknown
  #patience: NodeJS.Timeout | undefined
  readonly #ended: Promise<void>

  private constructor(deps: ConsumerDeps, options: ConsumeOptions, topics: Topics) {
    this.#cluster = deps.cluster
    this.#codecs = deps.codecs
    this.#log = deps.log
    this.#options = options
    this.#topics = topics
    this.#membership = new Membership(deps.kafkajs, deps.cluster, { ...options, signal: this.#closing.signal })
    options.signal.addEventListener('abort', this.#abort)
    if (options.signal.aborted) this.#abort()
    this.#ended = this.#run()
  }

  /** @throws MILLRACE_QUEUE_NOT_READY when a topic does not exist */
  static async open(deps: ConsumerDeps, options: ConsumeOptions): Promise<KafkaConsumer> {
    return new KafkaConsumer(deps, options, await pinned(deps.cluster, options.topics, null))
  }

  /** @throws what ended the membership: a connection, a refusal, topics that are no longer what they were */
  async *[Symbol.asyncIterator](): AsyncGenerator<Assignment> {
    for (;;) {
      const next = this.#waiting.shift()
      if (next) {
        if (!next.signal.aborted) yield next
      } else if (this.#failure) throw this.#failure
      else if (this.#closing.signal.aborted) return
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
    }
  }

  async close(): Promise<void> {
    this.#abort()
    await this.#ended
  }

  readonly #abort = (): void => {
    if (this.#closing.signal.aborted) return
    this.#closing.abort()
    this.#generation.abort()
    this.#wake()
    this.#patience = setTimeout(() => this.#cluster.close(), LEAVE_WITHIN)
  }

  async #run(): Promise<void> {
    const timers = [
      setInterval(() => {
        if (!this.#generation.signal.aborted) void this.#report().catch(() => {})
      }, REPORT_INTERVAL),
      setInterval(() => void this.#watchTopics(), TOPICS_INTERVAL),
    ]
    try {
      while (!this.#closing.signal.aborted) {
        this.#assign(await this.#membership.join(this.#topics))
        await this.#membership.untilRebalance()
        this.#generation.abort()
        if (!this.#closing.signal.aborted) this.#topics = await pinned(this.#cluster, this.#options.topics, this.#topics)
      }
    } catch (error) {
      this.#fail(error)
    }
    for (const timer of timers) clearInterval(timer)
    this.#options.signal.removeEventListener('abort', this.#abort)
    await this.#leave()
  }

  #assign(partitions: readonly TopicPartition[]): void {
    const generation = new AbortController()
    this.#generation = generation
    this.#reported.clear()
    if (this.#closing.signal.aborted) generation.abort()
    const follower = new Follower(this.#cluster, this.#codecs)
    generation.signal.addEventListener('abort', () => follower.close())
    this.#log.debug({ group: this.#options.group, partitions: partitions.length }, 'the group has divided its partitions')
    for (const at of partitions) this.#waiting.push(this.#assignment(at, follower, generation.signal))
    this.#wake()
  }

  #assignment({ topic, partition }: TopicPartition, follower: Follower, signal: AbortSignal): Assignment {
    const at = { topic, partition }
    const cluster = this.#cluster
    const reported = this.#reported
    return {
      ...at,
      signal,
      range(): Promise<OffsetRange> {
        return rangeOf(cluster, at)
      },
      read(from: bigint): AsyncIterable<readonly StoredRecord[]> {
        return follower.follow(at, from, signal)
      },
      report(offset: bigint): void {
        if (!signal.aborted) reported.set(`${partition}/${topic}`, { ...at, offset })
      },
    }
  }

  /** Best effort: a report that fails is followed by another. */
  async #report(): Promise<void> {
    if (this.#reported.size === 0) return
    const offsets = [...this.#reported.values()]
    this.#reported.clear()
    await this.#membership.commit(offsets)
  }

  async #watchTopics(): Promise<void> {
    try {
      await pinned(this.#cluster, this.#options.topics, this.#topics)
    } catch (error) {
      this.#fail(error)
      this.#abort()
    }
  }

  #fail(error: unknown): void {
    if (!this.#closing.signal.aborted) this.#failure ??= error
    this.#generation.abort()
    this.#wake()
  }

  async #leave(): Promise<void> {
    try {
      await this.#report()
      await this.#membership.leave()
    } catch (error) {
      this.#log.debug({ group: this.#options.group, error: String(error) }, 'the group was left without saying so')
    } finally {
      clearTimeout(this.#patience)
      this.#cluster.close()
    }
  }
}
