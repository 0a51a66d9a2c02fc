import type { Clock } from '../../src/core/clock.ts'
import type { RowTraits } from '../../src/core/copy.ts'
import { MillraceError } from '../../src/core/errors.ts'
import type { Event } from '../../src/core/event.ts'
import { type Position, position } from '../../src/core/position.ts'
import type { OffsetRange, Queue, StoredRecord, TopicPartition } from '../../src/core/queue.ts'
import { toRecord } from '../../src/core/record.ts'
import type { Parking } from '../../src/core/sink.ts'
import { planLane } from '../../src/pipeline/lane-plan.ts'
import { type MemoryStore, memoryStore } from '../support/copies.ts'

export const TOPIC = 'outbox.event.order'
const text = new TextEncoder()

/** A queue of one topic, a sink that follows it, and its writers: all in memory, and nothing moves but when it is told to. */
export interface MemoryStream {
  readonly queue: Pick<Queue, 'read' | 'ranges'>
  readonly store: MemoryStore
  /** as replay and fold take it */
  readonly sink: { checkpoints(): Promise<ReturnType<MemoryStore['checkpoints']>>; readonly parking: Parking | null }
  /** commits and publishes; keys have partitions of their own */
  write(key: string, type: 'Put' | 'Part' | 'Gone', columns?: Record<string, string>): Event
  /** publishes a run once more, as a relay does that was replaced */
  again(partition: number, from: number, to: number): void
  /** retention takes what stands before */
  trim(partition: number, start: bigint): void
  /** the sink applies what the queue holds, at most so many records of each partition */
  apply(most?: number): Promise<void>
  /** the sink parks this key's events from now on */
  readonly unfit: Set<string>
  /** events that people gave up, as the audit tells */
  readonly givenUp: { readonly order: string; readonly position: Position }[]
  partitionOf(key: string): number
  range(partition: number): OffsetRange
  /** what the rows must be, by all that was applied, parked keys aside */
  truth(): ReadonlyMap<string, Readonly<Record<string, string>>>
}

export function memoryStream({
  partitions = 2,
  traits = { parts: false, shared: false } as RowTraits,
  refuses = (_: Event): boolean => false,
} = {}): MemoryStream {
  const logs: { records: StoredRecord[]; start: bigint }[] = Array.from({ length: partitions }, () => ({
    records: [],
    start: 0n,
  }))
  const prevs: (Position | null)[] = logs.map(() => null)
  const store = memoryStore(traits, refuses)
  const unfit = new Set<string>()
  const givenUp: { order: string; position: Position }[] = []
  const truth = new Map<string, Readonly<Record<string, string>>>()
  let commit = 0x1000n

  const partitionOf = (key: string): number => [...key].reduce((sum, one) => sum + one.charCodeAt(0), 0) % partitions
  const rangeOf = (partition: number): OffsetRange => {
    const { records, start } = logs[partition] as (typeof logs)[number]
    return { start, end: BigInt(records.length) }
  }
  const publish = (partition: number, event: Event): void => {
    const log = (logs[partition] as (typeof logs)[number]).records
    const { key, value, headers } = toRecord(event)
    log.push({
      offset: BigInt(log.length),
      timestamp: event.committedAt,
      key,
      value,
      headers: headers.map(([name, one]) => [name, typeof one === 'string' ? text.encode(one) : one] as const),
    })
  }
  const published: Event[][] = logs.map(() => [])

  const queue: Pick<Queue, 'read' | 'ranges'> = {
    ranges: async () => logs.map((_, partition) => rangeOf(partition)),
    async *read({ partition }: TopicPartition, { start, end }: OffsetRange) {
      const { records, start: retained } = logs[partition] as (typeof logs)[number]
      if (start < retained) throw new MillraceError('MILLRACE_QUEUE_OFFSET_GONE', `${start} is gone`)
      const own = records.slice(Number(start), Number(end))
      for (let from = 0; from < own.length; from += 4) yield own.slice(from, from + 4)
    },
  }

  const parking = {
    audit: async () => givenUp.map(({ order, position: skipped }) => ({ order, skipped })),
  } as unknown as Parking

  async function applyPartition(partition: number, most: number): Promise<void> {
    const place = { topic: TOPIC, partition }
    const lane = store.claim(place)
    const { offset, positions, parked } = lane.checkpoint
    const from = offset ?? 0n
    const records = (logs[partition] as (typeof logs)[number]).records.slice(Number(from), Number(from) + most)
    const state = {
      chains: new Map([...positions].map(([source, at]) => [source, { at, founding: false }])),
      parked,
      offset: from,
      beginning: { until: 0n, founding: new Set<string>() },
    }
    const events = planLane(state, records, { ...place, sources: null, parks: true }).batch.events
    const verdicts = new Map(
      events
        .filter(({ key }) => unfit.has(new TextDecoder().decode(key)))
        .map((event) => [`${event.source}/${event.position}`, { park: { code: 'X', message: 'unfit' } }]),
    )
    const plan = planLane(state, records, { ...place, sources: null, parks: true }, verdicts)
    if (plan.stopped !== null) throw plan.stopped
    await lane.apply(plan.batch)
    for (const { key, type, value } of plan.batch.events) {
      const id = new TextDecoder().decode(key)
      if (type === 'Gone') truth.delete(id)
      else {
        const columns = JSON.parse(new TextDecoder().decode(value as Uint8Array)) as Record<string, string>
        truth.set(id, type === 'Part' ? { ...truth.get(id), ...columns } : columns)
      }
    }
  }

  return {
    queue,
    store,
    sink: { checkpoints: async () => store.checkpoints(), parking },
    unfit,
    givenUp,
    write(key, type, columns = {}) {
      const partition = partitionOf(key)
      commit += 16n
      const event: Event = {
        source: 'shop',
        position: position(1, commit, 1),
        prev: prevs[partition] as Position | null,
        id: String(commit),
        type,
        key: text.encode(key),
        value: type === 'Gone' ? null : text.encode(JSON.stringify(columns)),
        headers: [],
        committedAt: Number(commit),
        version: '1',
        orderingKey: null,
        placeholder: null,
      }
      prevs[partition] = event.position
      publish(partition, event)
      ;(published[partition] as Event[]).push(event)
      return event
    },
    again(partition, from, to) {
      for (const event of (published[partition] as Event[]).slice(from, to)) publish(partition, event)
    },
    trim(partition, start) {
      ;(logs[partition] as (typeof logs)[number]).start = start
    },
    async apply(most = Number.POSITIVE_INFINITY) {
      for (const partition of logs.keys()) await applyPartition(partition, most)
    },
    partitionOf,
    range: rangeOf,
    truth: () => truth,
  }
}

/** Time that passes only while somebody waits for it. */
export function steppingClock(): Clock & { readonly waited: number } {
  let at = 0
  return {
    get waited() {
      return at
    },
    now: () => 1_795_000_000_000 + at,
    elapsed: () => at,
    async wait(ms) {
      at += ms
      await Promise.resolve()
    },
  }
}
