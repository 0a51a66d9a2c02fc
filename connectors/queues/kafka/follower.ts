import { setTimeout as sleep } from 'node:timers/promises'
import { MillraceError } from '../../../src/core/errors.ts'
import type { StoredRecord, TopicPartition } from '../../../src/core/queue.ts'
import type { Cluster } from './cluster.ts'
import type { Codecs } from './codecs.ts'
import { answered } from './failure.ts'
import { type Fetched, fetchFrom } from './fetch.ts'
import { offsetGone, rangeOf } from './offsets.ts'
import { ERROR, hasMoved } from './protocol-errors.ts'
import { offsetAfter, RecordReader } from './record-reader.ts'

/**
 * How long a broker holds a fetch back that has nothing to bring, in ms; the first record ends it. It begins short and
 * doubles, since a partition that is not in the request waits for its end: while partitions are being taken up, and while
 * a reader is busy with one batch and has the next at hand.
 */
const WAIT = { first: 5, idle: 500, busy: 100 }
const BATCH_BYTES = 384 * 1024
const RESPONSE_BYTES = 4 * BATCH_BYTES
/** ms between two looks for a partition's new leader */
const MOVED_PAUSE = 100
/** beyond every offset */
const END = 2n ** 63n - 1n

/** One partition that somebody follows. What was fetched waits here, one answer at most, until its reader takes it. */
interface Following extends TopicPartition {
  /** the node it is fetched from; -1 while its leader is looked for */
  leader: number
  /** the next offset to fetch */
  offset: bigint
  ready: { readonly from: bigint; readonly bytes: Buffer } | null
  failure: unknown
  wake: () => void
}

/**
 * Follows partitions by fetching from their leaders: one request at a time to each leader, for all its partitions whose
 * readers have taken what came before. A broker answers one connection's requests in turn, so a fetch for one partition
 * alone would hold up all others for as long as it waits.
 */
export class Follower {
  readonly #cluster: Cluster
  readonly #codecs: Codecs
  readonly #following = new Set<Following>()
  /** by node: how long its next fetch may wait */
  readonly #fetching = new Map<number, { idle: number; busy: number; wake: () => void }>()
  #closed = false

  constructor(cluster: Cluster, codecs: Codecs) {
    this.#cluster = cluster
    this.#codecs = codecs
  }

  /** The log from the offset on, until the signal; see Assignment.read. */
  async *follow(
    { topic, partition }: TopicPartition,
    from: bigint,
    signal: AbortSignal,
  ): AsyncGenerator<readonly StoredRecord[]> {
    const following: Following = { topic, partition, leader: -1, offset: from, ready: null, failure: null, wake: () => {} }
    const stop = (): void => following.wake()
    signal.addEventListener('abort', stop)
    this.#following.add(following)
    try {
      await this.#attach(following)
      while (!signal.aborted) {
        if (following.failure) throw following.failure
        const { ready } = following
        if (!ready) {
          await new Promise<void>((resolve) => {
            following.wake = resolve
          })
          continue
        }
        following.ready = null
        this.#fetching.get(following.leader)?.wake()
        const reader = new RecordReader(ready.bytes, this.#codecs, ready.from, END)
        for (let batch = await reader.next(BATCH_BYTES); batch && !signal.aborted; batch = await reader.next(BATCH_BYTES))
          yield batch
      }
    } finally {
      signal.removeEventListener('abort', stop)
      this.#following.delete(following)
      this.#fetching.get(following.leader)?.wake()
    }
  }

  close(): void {
    this.#closed = true
    for (const { wake } of this.#fetching.values()) wake()
  }

  async #attach(following: Following): Promise<void> {
    const leader = await this.#cluster.leaderOf(following.topic, following.partition)
    if (leader === -1) return void this.#search(following, ERROR.LEADER_NOT_AVAILABLE)
    following.leader = leader
    const fetching = this.#fetching.get(leader)
    if (!fetching) return void this.#fetchLoop(leader)
    fetching.idle = WAIT.first
    fetching.wake()
  }

  /** Runs as long as the node leads a partition that somebody follows. */
  async #fetchLoop(node: number): Promise<void> {
    const own = { idle: WAIT.first, busy: WAIT.first, wake: () => {} }
    this.#fetching.set(node, own)
    try {
      for (let led = this.#ledBy(node); led.length > 0 && !this.#closed; led = this.#ledBy(node)) {
        const wanted = led.filter(({ ready }) => ready === null)
        if (wanted.length === 0) {
          await new Promise<void>((resolve) => {
            own.wake = resolve
          })
          continue
        }
        const idle = wanted.length === led.length
        const came = await this.#fetch(node, wanted, idle ? own.idle : own.busy)
        if (came) own.busy = WAIT.first
        else if (idle) own.idle = Math.min(WAIT.idle, own.idle * 2)
        else own.busy = Math.min(WAIT.busy, own.busy * 2)
      }
    } catch (error) {
      for (const each of this.#ledBy(node)) fail(each, error)
    } finally {
      this.#fetching.delete(node)
    }
  }

  #ledBy(node: number): readonly Following[] {
    return [...this.#following].filter(({ leader, failure }) => leader === node && !failure)
  }

  /** @returns whether anything came */
  async #fetch(node: number, wanted: readonly Following[], maxWait: number): Promise<boolean> {
    const link = await this.#cluster.node(node)
    const asked = new Map(wanted.map((each) => [keyOf(each), { following: each, from: each.offset }]))
    const limits = { maxWait, maxBytes: RESPONSE_BYTES, maxPartitionBytes: BATCH_BYTES }
    const { errorCode, fetched } = await this.#cluster.using(link, 'to follow its partitions', () =>
      fetchFrom(link, wanted, limits, this.#cluster.requestTimeout),
    )
    if (errorCode !== ERROR.NONE) throw answered(errorCode, 'to a fetch')
    let came = false
    for (const answer of fetched) {
      const found = asked.get(keyOf(answer))
      if (found && this.#accept(found.following, found.from, answer)) came = true
    }
    return came
  }

  #accept(following: Following, from: bigint, { errorCode, bytes }: Fetched): boolean {
    const { topic, partition } = following
    if (hasMoved(errorCode)) void this.#search(following, errorCode)
    else if (errorCode === ERROR.OFFSET_OUT_OF_RANGE) void this.#gone(following, from)
    else if (errorCode !== ERROR.NONE)
      fail(following, answered(errorCode, `to a fetch of ${topic}/${partition}`, { topic, partition }))
    let next: bigint | null = null
    try {
      if (errorCode === ERROR.NONE) next = offsetAfter(bytes, from)
    } catch (error) {
      fail(following, error)
    }
    if (next === null) return false
    following.offset = next
    following.ready = { from, bytes }
    following.wake()
    // an answer is bounded, and filled in the order asked for: who was served stands behind the others
    if (this.#following.delete(following)) this.#following.add(following)
    return true
  }

  async #gone(following: Following, offset: bigint): Promise<void> {
    following.leader = -1
    fail(
      following,
      await rangeOf(this.#cluster, following)
        .then((range) => offsetGone(following, offset, range))
        .catch((error) => error),
    )
  }

  /** Its leader is another by now: it is looked for until the request timeout has passed. */
  async #search(following: Following, errorCode: number): Promise<void> {
    const { topic, partition } = following
    const until = performance.now() + this.#cluster.requestTimeout
    following.leader = -1
    try {
      do {
        await sleep(MOVED_PAUSE)
        if (this.#closed || !this.#following.has(following)) return
        this.#cluster.forget(topic)
        if ((await this.#cluster.leaderOf(topic, partition)) !== -1) return await this.#attach(following)
      } while (performance.now() < until)
      throw answered(errorCode, `to a fetch of ${topic}/${partition}`, { topic, partition })
    } catch (error) {
      fail(following, error)
    }
  }
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${partition}/${topic}`
}

function fail(following: Following, error: unknown): void {
  following.failure ??= error instanceof Error ? error : new MillraceError('MILLRACE_INTERNAL', String(error))
  following.wake()
}
