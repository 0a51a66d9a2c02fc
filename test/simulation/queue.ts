import { MillraceError } from '../../src/core/errors.ts'
import type { OffsetRange, PartitionRecords, Publisher, Queue, StoredRecord, TopicPartition } from '../../src/core/queue.ts'
import type { Broker, PartitionLog } from './broker.ts'
import type { Dice } from './dice.ts'
import type { Groups } from './group.ts'
import { type Network, NOT_YET } from './network.ts'
import type { Process } from './process.ts'
import type { Scheduler } from './scheduler.ts'

/** a record that no queue would take is an event that cannot be published */
export const MAX_RECORD_BYTES = 8_192

export interface QueueServers {
  readonly scheduler: Scheduler
  readonly network: Network
  readonly dice: Dice
  readonly broker: Broker
  readonly groups: Groups
  /** a publisher has heard of an offset that it had heard of before: what stood there is lost, and its relay must halt */
  readonly acknowledgedAgain: (place: string, offset: bigint) => void
  /** a relay's state has just become durable */
  readonly recorded: (state: string) => void
  /** records have just become durable */
  readonly appended: (place: TopicPartition, records: readonly StoredRecord[], by: Process) => void
}

/** The queue as one process sees it: core's contract, over requests that may be late, lost or unanswered. */
export function simulatedQueue(servers: QueueServers, of: Process): Queue {
  const { network, broker, dice, scheduler } = servers

  const ask = <T>(op: string, serve: () => T): Promise<T> => network.request(of, { to: 'queue', op, serve, unknown: unreachable })

  const logOf = ({ topic, partition }: TopicPartition): PartitionLog => {
    const log = broker.log(topic, partition)
    if (log === undefined || isStale()) throw notReady(topic)
    return log
  }
  const isStale = (): boolean => broker.staleUntil > scheduler.now && dice.chance(0.5, `${of.name} stale`)

  /** one request per partition: their brokers differ, and so do their fates */
  function publishTo(place: PartitionRecords): Promise<bigint> {
    return network.request(of, {
      to: 'queue',
      op: 'publish',
      unknown: () => new MillraceError('MILLRACE_PUBLISH_UNKNOWN', 'it is unknown whether events were written'),
      serve: () => {
        const log = broker.log(place.topic, place.partition)
        if (log === undefined) throw notReady(place.topic)
        if (dice.chance(0.02, 'offset skipped')) log.skip()
        const base = log.end
        servers.appended(place, log.append(place.records, of.clock.now()), of)
        return base
      },
    })
  }

  function fetch(place: TopicPartition, from: bigint, signal?: AbortSignal): Promise<readonly StoredRecord[] | null> {
    return network.request<readonly StoredRecord[] | null>(of, {
      to: 'queue',
      op: 'fetch',
      unknown: unreachable,
      bell: () => broker.log(place.topic, place.partition)?.news,
      ...(signal !== undefined && { signal }),
      aborted: null,
      serve: () => {
        const log = broker.log(place.topic, place.partition)
        if (log === undefined) throw notReady(place.topic)
        if (from < log.start || from > log.end) throw offsetGone(place, from, log)
        const records = log.from(from, 1 + dice.below(6, `${of.name} fetch`))
        return records.length === 0 ? NOT_YET : records
      },
    })
  }

  const queue: Queue = {
    traits: { name: 'simulated', maxRecordBytes: MAX_RECORD_BYTES, durability: 'as the schedule says' },
    check: async () => [],
    topics: (names) =>
      ask('topics', () => {
        if (isStale()) return new Map()
        const found = new Map<string, number>()
        for (const { name, partitions } of broker.topics.values())
          if (names.some((wanted) => (wanted.endsWith('*') ? name.startsWith(wanted.slice(0, -1)) : name === wanted)))
            found.set(name, partitions.length)
        return found
      }),
    createTopic: (name) =>
      ask('create topic', () => {
        broker.create(name)
      }),
    ranges: (topic) =>
      ask('ranges', () => {
        const found = broker.topics.get(topic)
        if (found === undefined) throw notReady(topic)
        return found.partitions.map((log) => {
          // a leader that was deposed without knowing it ends earlier
          const end = isStale() && log.end > log.start ? log.end - 1n : log.end
          return { start: log.start, end }
        })
      }),
    offsetAt: (topic, partition, time) =>
      ask('offset at', () => {
        const log = logOf({ topic, partition })
        return log.records.find(({ timestamp }) => timestamp >= time)?.offset ?? log.end
      }),
    async *read(place, { start, end }: OffsetRange, signal) {
      for (let at = start; at < end; ) {
        const last: bigint = at
        const records: readonly StoredRecord[] | null = await network.request(of, {
          to: 'queue',
          op: 'read',
          unknown: unreachable,
          ...(signal !== undefined && { signal }),
          aborted: null,
          serve: () => {
            const log = logOf(place)
            if (last < log.start || last > log.end) throw offsetGone(place, last, log)
            return log.from(last, 5)
          },
        })
        if (records === null || records.length === 0) return
        const wanted = records.filter(({ offset }) => offset < end)
        at = (records.at(-1)?.offset as bigint) + 1n
        if (wanted.length > 0) yield wanted
      }
    },
    async publisher(): Promise<Publisher> {
      await ask('publisher', () => {})
      const acknowledged = new Map<string, bigint>()
      return {
        publish: async (batches) => {
          const bases = await Promise.all(batches.map(publishTo))
          for (const [i, { topic, partition, records }] of batches.entries()) {
            const place = `${topic}/${partition}`
            const base = bases[i] as bigint
            if (base < (acknowledged.get(place) ?? 0n) && !of.ending) servers.acknowledgedAgain(place, base)
            acknowledged.set(place, base + BigInt(records.length))
          }
          return bases
        },
        close: async () => {},
      }
    },
    consume: (options) =>
      servers.groups.join(of, options, {
        join: (serve) => ask('join', serve),
        range: (place) =>
          ask('range', () => {
            const { start, end } = logOf(place)
            return { start, end }
          }),
        async *read(place, from, signal) {
          for (let at = from; ; ) {
            const records = await fetch(place, at, signal)
            if (records === null || signal.aborted) return
            at = (records.at(-1)?.offset as bigint) + 1n
            yield records
          }
        },
      }),
    state: {
      read: (prefix) =>
        ask('state read', () => {
          if (isStale()) throw unreachable()
          return new Map([...broker.state].filter(([key]) => key.startsWith(prefix)))
        }),
      write: (key, value) =>
        ask('state write', () => {
          broker.state.set(key, value)
          servers.recorded(value)
        }),
      remove: (key) =>
        ask('state remove', () => {
          broker.state.delete(key)
        }),
    },
    close: async () => {},
  }
  return queue
}

const unreachable = () => new MillraceError('MILLRACE_QUEUE_UNREACHABLE', 'the queue cannot be reached')
const notReady = (topic: string) => new MillraceError('MILLRACE_QUEUE_NOT_READY', `the topic ${topic} does not exist`)
const offsetGone = ({ topic, partition }: TopicPartition, at: bigint, { start, end }: OffsetRange) =>
  new MillraceError('MILLRACE_QUEUE_OFFSET_GONE', `${topic}/${partition}: ${at} is not in ${start} to ${end}`, {
    fields: { topic, partition },
  })
