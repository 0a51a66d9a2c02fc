import { MillraceError } from '../../src/core/errors.ts'
import { type Event, orderOf } from '../../src/core/event.ts'
import type { Position } from '../../src/core/position.ts'
import type { TopicPartition } from '../../src/core/queue.ts'
import type { Lane, LaneBatch, ParkedEvent, Parking, PartitionCheckpoint, Sink } from '../../src/core/sink.ts'
import type { Network } from './network.ts'
import type { Process } from './process.ts'

interface Checkpoint extends TopicPartition {
  epoch: number
  offset: bigint | null
  readonly positions: Map<string, Position>
  /** what waits, by order */
  beginning: string | null
  readonly parked: Map<string, readonly ParkedEvent[]>
}

export interface ReplicaRow {
  readonly position: Position
  /** null: deleted, and this is its marker */
  readonly value: string | null
}

/** What was committed in one transaction of the store. */
export interface Applied {
  readonly replica: Replica
  readonly place: TopicPartition
  readonly batch: LaneBatch
  readonly offsetBefore: bigint | null
}

/**
 * A sink with transactions: rows with the position they show, delete markers, checkpoints with owner epochs, and a unique
 * constraint (`handle`). It holds to the contract in `core/sink.ts`, so what comes out wrong is the pipeline's doing.
 */
export class Replica {
  readonly name: string
  readonly parks: boolean
  readonly checkpoints = new Map<string, Checkpoint>()
  /** it was to begin at the end of the log, whatever came before */
  readonly startsLate: boolean
  /** a person has mended the store: it takes what it refused before */
  mended = false
  readonly rows = new Map<string, ReplicaRow>()
  readonly #handles = new Map<string, string>()
  readonly #network: Network
  readonly #applied: (applied: Applied) => void

  constructor(
    name: string,
    { parks, startsLate }: Pick<Replica, 'parks' | 'startsLate'>,
    network: Network,
    applied: (applied: Applied) => void,
  ) {
    this.name = name
    this.parks = parks
    this.startsLate = startsLate
    this.#network = network
    this.#applied = applied
  }

  sink(of: Process): Sink {
    const ask = <T>(op: string, serve: () => T): Promise<T> =>
      this.#network.request(of, { to: 'sink', op, serve, unknown: unreachable })
    return {
      traits: { name: this.name, effect: 'exactly-once', checkpoints: true },
      check: async () => [],
      init: async () => {},
      // what people do about parked keys is not the pipeline's: `redrive` below is theirs
      parking: this.parks ? NO_ONE_PARKS : null,
      copies: null,
      redeliver: null,
      claim: async (place) => {
        const { epoch, checkpoint } = await ask('claim', () => {
          const row = this.#checkpoint(place)
          row.epoch++
          return { epoch: row.epoch, checkpoint: snapshot(row) }
        })
        const lane: Lane = {
          checkpoint,
          apply: (batch) => ask('apply', () => this.#apply(place, epoch, batch)),
          reread: () =>
            ask('reread', () => {
              const row = this.#checkpoint(place)
              if (row.epoch !== epoch) throw fenced(place)
              return snapshot(row)
            }),
          release: async () => {},
        }
        return lane
      },
      checkpoints: () => ask('checkpoints', () => [...this.checkpoints.values()].map(snapshot)),
      close: async () => {},
    }
  }

  #checkpoint({ topic, partition }: TopicPartition): Checkpoint {
    const key = `${topic}/${partition}`
    let row = this.checkpoints.get(key)
    if (row === undefined) {
      row = { topic, partition, epoch: 0, offset: null, positions: new Map(), parked: new Map(), beginning: null }
      this.checkpoints.set(key, row)
    }
    return row
  }

  #apply(place: TopicPartition, epoch: number, batch: LaneBatch): void {
    const row = this.#checkpoint(place)
    if (row.epoch !== epoch) throw fenced(place)
    // a batch that comes late, after its owner has read anew where it stands
    if (row.offset !== null && batch.offset < row.offset) throw fenced(place)
    for (const { source, from } of batch.moves) if ((row.positions.get(source) ?? null) !== from) throw fenced(place)

    for (const event of batch.events) if (row.parked.has(orderOf(event))) throw parkedChanged(place)
    const parked = new Map(row.parked)
    for (const waiting of batch.parked) {
      const order = orderOf(waiting.event)
      const before = parked.get(order)
      if (before === undefined && waiting.reason === null) throw parkedChanged(place)
      parked.set(order, [...(before ?? []), waiting])
    }
    this.#commit(batch.events)
    for (const [order, waiting] of parked) row.parked.set(order, waiting)
    const offsetBefore = row.offset
    row.offset = batch.offset
    row.beginning = batch.beginning ?? row.beginning
    for (const { source, to } of batch.moves) row.positions.set(source, to)
    this.#applied({ replica: this, place, batch, offsetBefore })
  }

  /** A person has the parked events of one key applied, in order, as far as it goes. Null: nothing is parked. */
  redrive(): { readonly order: string; readonly applied: number; readonly remaining: number } | null {
    for (const row of this.checkpoints.values())
      for (const [order, waiting] of row.parked) {
        let applied = 0
        for (const { event } of waiting) {
          if (event.placeholder !== null) break
          try {
            this.#commit([event])
          } catch {
            break
          }
          applied++
        }
        if (applied === waiting.length) row.parked.delete(order)
        else row.parked.set(order, waiting.slice(applied))
        return { order, applied, remaining: waiting.length - applied }
      }
    return null
  }

  #commit(events: readonly Event[]): void {
    const rows = new Map<string, ReplicaRow>()
    const handles = new Map<string, string | null>()
    for (const event of events) this.#write(event, rows, handles)
    for (const [key, value] of rows) this.rows.set(key, value)
    for (const [handle, key] of handles)
      if (key === null) this.#handles.delete(handle)
      else this.#handles.set(handle, key)
  }

  #write(event: Event, rows: Map<string, ReplicaRow>, handles: Map<string, string | null>): void {
    const key = rowKey(event.source, event.type, event.key)
    const before = rows.get(key) ?? this.rows.get(key)
    const at = { position: event.position, source: event.source }
    const value = event.value === null ? null : decoder.decode(event.value)
    if (!this.mended && value?.includes('"poison"'))
      throw new MillraceError('MILLRACE_EVENT_REJECTED', 'the store refuses this event, now and always', { fields: at })
    // the guard: a key that moved stands in two partitions, and who reads both at once meets the newer event first, maybe
    if (before !== undefined && before.position > event.position) return
    for (const handle of handlesOf(before?.value ?? null)) handles.set(handle, null)
    for (const handle of handlesOf(value)) {
      const owner = handles.has(handle) ? handles.get(handle) : this.#handles.get(handle)
      if (owner != null && owner !== key)
        throw new MillraceError('MILLRACE_EVENT_CONFLICT', `the handle ${handle} is another row's`, { fields: at })
      handles.set(handle, key)
    }
    rows.set(key, { position: event.position, value })
  }
}

const decoder = new TextDecoder()

/** types are named `<Aggregate><What>`, so that a row tells its table */
export function rowKey(source: string, type: string, key: Uint8Array | string): string {
  return `${source}/${type.replace(/Put$|Gone$/, '')}/${typeof key === 'string' ? key : decoder.decode(key)}`
}

export function handlesOf(value: string | null): readonly string[] {
  const handle = value === null ? null : /"handle":"([^"]+)"/.exec(value)
  return handle === null ? [] : [handle[1] as string]
}

function snapshot(row: Checkpoint): PartitionCheckpoint {
  return {
    topic: row.topic,
    partition: row.partition,
    offset: row.offset,
    positions: new Map(row.positions),
    parked: new Set(row.parked.keys()),
    beginning: row.beginning,
  }
}

const parkedChanged = ({ topic, partition }: TopicPartition) =>
  new MillraceError('MILLRACE_PARKED_CHANGED', `${topic}/${partition}: what is parked has changed`)

const notHere = (): never => {
  throw new Error('the simulation redrives by itself')
}
const NO_ONE_PARKS: Parking = { totals: notHere, keys: notHere, events: notHere, redrive: notHere, skip: notHere, audit: notHere }

const unreachable = () => new MillraceError('MILLRACE_SINK_UNREACHABLE', 'the sink cannot be reached')
const fenced = ({ topic, partition }: TopicPartition) =>
  new MillraceError('MILLRACE_SINK_FENCED', `${topic}/${partition} is another owner's, or does not stand where it was thought to`)
