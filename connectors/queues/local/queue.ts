import { randomUUID } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import type { ConnectorDeps } from '../../../src/core/connector.ts'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Finding } from '../../../src/core/finding.ts'
import type {
  Consumer,
  OffsetRange,
  Publisher,
  Queue,
  QueueTraits,
  StateStore,
  StoredRecord,
  TopicPartition,
} from '../../../src/core/queue.ts'
import { Changes } from './changes.ts'
import { LocalConsumer } from './consumer.ts'
import { type LocalFile, openFile } from './file.ts'
import { Membership } from './group.ts'
import { Log, offsetGone } from './log.ts'
import type { LocalSettings } from './options.ts'
import { openPublisher } from './publisher.ts'
import { openState } from './state.ts'

const HOUR = 3_600_000
/** ms; how often retention looks for what is to go, while this handle publishes */
const RETENTION_INTERVAL = 1_000

/** One handle on the file. Any number of them, in any process of the machine, may have it open. */
export class LocalQueue implements Queue {
  readonly traits: QueueTraits
  readonly state: StateStore
  readonly #settings: LocalSettings
  readonly #deps: ConnectorDeps
  readonly #file: LocalFile
  readonly #log: Log
  readonly #changes: Changes
  /** partitions are never removed, so an id is good for ever */
  readonly #ids = new Map<string, readonly number[]>()
  readonly #consumers = new Set<Consumer>()
  readonly #publishers = new Set<Publisher>()
  #retention: NodeJS.Timeout | undefined
  #retaining = false

  static async open(settings: LocalSettings, deps: ConnectorDeps): Promise<LocalQueue> {
    return new LocalQueue(settings, deps, await openFile(settings.path))
  }

  private constructor(settings: LocalSettings, deps: ConnectorDeps, file: LocalFile) {
    this.#settings = settings
    this.#deps = deps
    this.#file = file
    this.#log = new Log(this.#file)
    this.#changes = new Changes(() => this.#file.version())
    this.state = openState(this.#file, deps.pipeline)
    this.traits = {
      name: 'local',
      maxRecordBytes: settings.maxRecordBytes,
      durability:
        'every acknowledged record is on the disk (fsynced) before it is acknowledged; the disk itself is the only copy',
    }
  }

  async check(topics: readonly string[]): Promise<readonly Finding[]> {
    const findings: Finding[] = []
    const { path, topics: wanted } = this.#settings
    const existing = await this.topics(topics)
    findings.push({ level: 'ok', subject: 'queue', message: `${path} holds ${existing.size} of the topics that are wanted` })
    for (const topic of topics)
      if (!wanted.create && !topic.endsWith('*') && !existing.has(topic))
        findings.push({
          level: 'blocker',
          subject: 'queue',
          message: `the topic ${topic} does not exist, and topics.create is false`,
          remedy: 'set queue.topics.create to true',
        })
    if (wanted.retention < HOUR)
      findings.push({
        level: 'warning',
        subject: 'queue',
        message: `events are kept for ${wanted.retention} ms only: a sink that stands still for longer must be rebuilt`,
        remedy: 'set queue.topics.retention to days',
      })
    return findings
  }

  async topics(names: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const wanted = (topic: string): boolean =>
      names.some((name) => (name.endsWith('*') ? topic.startsWith(name.slice(0, -1)) : topic === name))
    return new Map([...this.#log.topics()].filter(([topic]) => wanted(topic)))
  }

  async createTopic(name: string): Promise<void> {
    const { create, partitions } = this.#settings.topics
    if (this.#log.partitionsOf(name).length > 0) return
    if (!create)
      throw new MillraceError('MILLRACE_QUEUE_NOT_READY', `the topic ${name} does not exist, and topics.create is false`, {
        remedy: 'set queue.topics.create to true',
        fields: { topic: name },
      })
    this.#log.createTopic(name, partitions)
  }

  async ranges(topic: string): Promise<readonly OffsetRange[]> {
    return this.#idsOf(topic).map((id) => this.#log.range(id))
  }

  async offsetAt(topic: string, partition: number, time: number): Promise<bigint> {
    return this.#log.offsetAt(this.#idOf(topic, partition), time)
  }

  async *read(place: TopicPartition, range: OffsetRange, signal?: AbortSignal): AsyncIterable<readonly StoredRecord[]> {
    const id = this.#idOf(place.topic, place.partition)
    let at = Number(range.start)
    const end = Number(range.end)
    while (at < end && !signal?.aborted) {
      const records = this.#log.read(place, id, at, end)
      const last = records.at(-1)
      if (last === undefined) throw offsetGone(place, at, this.#log.range(id))
      at = Number(last.offset) + 1
      yield records
      await turn()
    }
  }

  async publisher(): Promise<Publisher> {
    const publisher = openPublisher({
      log: this.#log,
      maxRecordBytes: this.#settings.maxRecordBytes,
      partitionId: (topic, partition) => this.#idOf(topic, partition),
      now: this.#deps.now,
      appended: () => this.#changes.notify(),
      closed: () => {
        this.#publishers.delete(publisher)
        if (this.#publishers.size === 0) this.#stopRetention()
      },
    })
    this.#publishers.add(publisher)
    this.#retention ??= setInterval(() => void this.#retain(), RETENTION_INTERVAL).unref()
    return publisher
  }

  async consume({ group, topics, signal }: Parameters<Queue['consume']>[0]): Promise<Consumer> {
    const consumer = new LocalConsumer({
      log: this.#log,
      changes: this.#changes,
      membership: new Membership(this.#file, group, randomUUID(), topics, this.#deps.now),
      topics,
      signal,
      logger: this.#deps.log,
      closed: (consumer) => this.#consumers.delete(consumer),
    })
    if (!signal.aborted) this.#consumers.add(consumer)
    return consumer
  }

  async close(): Promise<void> {
    await Promise.all([...this.#publishers, ...this.#consumers].map((open) => open.close()))
    this.#stopRetention()
    this.#file.close()
  }

  /** One step after the other until nothing is due; publishing goes on in between. */
  async #retain(): Promise<void> {
    if (this.#retaining) return
    this.#retaining = true
    const { topics, maxBytes = Number.POSITIVE_INFINITY } = this.#settings
    try {
      while (this.#retention !== undefined && this.#log.sweep(this.#deps.now() - topics.retention, maxBytes)) await turn()
    } catch (error) {
      this.#deps.log.warn({ err: error }, 'what is beyond its retention could not be removed; trying again')
    } finally {
      this.#retaining = false
    }
  }

  #stopRetention(): void {
    clearInterval(this.#retention)
    this.#retention = undefined
  }

  #idsOf(topic: string): readonly number[] {
    let ids = this.#ids.get(topic)
    if (ids === undefined) {
      ids = this.#log.partitionsOf(topic)
      if (ids.length === 0)
        throw new MillraceError('MILLRACE_QUEUE_NOT_READY', `the topic ${topic} does not exist in ${this.#settings.path}`, {
          remedy: 'if it was there before, another file stands at this path: acknowledged events went with the old one',
          fields: { topic },
        })
      this.#ids.set(topic, ids)
    }
    return ids
  }

  #idOf(topic: string, partition: number): number {
    const id = this.#idsOf(topic)[partition]
    if (id !== undefined) return id
    throw new MillraceError('MILLRACE_QUEUE_NOT_READY', `the topic ${topic} has no partition ${partition}`, {
      fields: { topic, partition },
    })
  }
}
