import { setImmediate as turn } from 'node:timers/promises'
import type { Log as Logger } from '../../../src/core/connector.ts'
import type { Assignment, Consumer, StoredRecord, TopicPartition } from '../../../src/core/queue.ts'
import type { Changes } from './changes.ts'
import type { Membership } from './group.ts'
import type { Log } from './log.ts'

/** ms; how often a member looks what of its group's partitions is its own to hold */
const SETTLE = 200

export interface ConsumerOptions {
  readonly log: Log
  readonly changes: Changes
  readonly membership: Membership
  readonly topics: readonly string[]
  readonly signal: AbortSignal
  readonly logger: Logger
  readonly closed: (consumer: Consumer) => void
}

/** A member of a group: what it holds is settled with the others now and then, and each partition is followed on its own. */
export class LocalConsumer implements Consumer {
  readonly #options: ConsumerOptions
  readonly #held = new Map<number, AbortController>()
  readonly #pending: Assignment[] = []
  #wake: (() => void) | undefined
  #timer: NodeJS.Timeout | undefined
  #failure: unknown
  #closed = false
  readonly #onAbort = (): void => {
    void this.close()
  }

  constructor(options: ConsumerOptions) {
    this.#options = options
    options.signal.addEventListener('abort', this.#onAbort)
    if (options.signal.aborted) this.#end()
    else this.#settle()
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Assignment> {
    try {
      for (;;) {
        for (let next = this.#pending.shift(); next !== undefined; next = this.#pending.shift())
          if (!next.signal.aborted) yield next
        if (this.#failure !== undefined) throw this.#failure
        if (this.#closed) return
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      await this.close()
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#end()
    try {
      this.#options.membership.leave()
    } catch (error) {
      this.#options.logger.debug(
        { err: error },
        'a member could not say that it leaves; the others take over when its lease expires',
      )
    }
    // those in other handles of this process see it by the file's version; these at once
    this.#options.changes.notify()
  }

  #end(): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#options.signal.removeEventListener('abort', this.#onAbort)
    this.#options.closed(this)
    for (const controller of this.#held.values()) controller.abort()
    this.#held.clear()
    this.#wake?.()
  }

  #settle(): void {
    try {
      const holds = this.#options.membership.settle(new Set(this.#held.keys()))
      for (const [id, controller] of this.#held)
        if (!holds.has(id)) {
          this.#held.delete(id)
          controller.abort()
        }
      if (![...holds].every((id) => this.#held.has(id))) this.#assign(holds)
    } catch (error) {
      this.#failure = error
      void this.close()
      return
    }
    this.#timer = setTimeout(() => this.#settle(), SETTLE)
  }

  #assign(holds: ReadonlySet<number>): void {
    for (const topic of this.#options.topics)
      for (const [partition, id] of this.#options.log.partitionsOf(topic).entries()) {
        if (!holds.has(id) || this.#held.has(id)) continue
        const controller = new AbortController()
        this.#held.set(id, controller)
        this.#pending.push(this.#assignment({ topic, partition }, id, controller.signal))
      }
    this.#wake?.()
  }

  #assignment({ topic, partition }: TopicPartition, id: number, signal: AbortSignal): Assignment {
    const { log, changes } = this.#options
    return {
      topic,
      partition,
      signal,
      range: async () => log.range(id),
      read: (from) => follow(log, changes, { topic, partition }, id, from, signal),
      // the one display of lag there is reads the sinks' checkpoints
      report() {},
    }
  }
}

async function* follow(
  log: Log,
  changes: Changes,
  place: TopicPartition,
  id: number,
  from: bigint,
  signal: AbortSignal,
): AsyncIterable<readonly StoredRecord[]> {
  let at = Number(from)
  while (!signal.aborted) {
    const records = log.read(place, id, at)
    const last = records.at(-1)
    if (last === undefined) {
      await changes.next(signal)
      continue
    }
    at = Number(last.offset) + 1
    yield records
    // a backlog is read without waiting for anything: timers and sockets get their turn between its batches
    await turn()
  }
}
