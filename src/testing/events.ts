import { randomUUID } from 'node:crypto'
import type { Event, Header } from '../core/event.ts'
import { type Position, position } from '../core/position.ts'
import type { LaneBatch, ParkedEvent } from '../core/sink.ts'

export interface EventSpec {
  readonly type: string
  /** the aggregate id */
  readonly key: string
  /** a text is the payload as written, bytes are bytes, anything else is stringified; absent or null: a tombstone */
  readonly payload?: unknown
  readonly id?: string
  readonly headers?: readonly Header[]
}

/** Makes the events of one source on one partition: each at the next position, chained to the one before. */
export interface EventStream {
  readonly source: string
  /** the last position made */
  readonly at: Position | null
  next(spec: EventSpec): Event
}

/** `firstCommit` sets streams apart that must not meet; the step between two commits is 16 */
export function eventStream({ source = 'shop', epoch = 1, firstCommit = 0x1000n } = {}): EventStream {
  let at: Position | null = null
  let commit = firstCommit
  return {
    source,
    get at() {
      return at
    },
    next({ type, key, payload = null, id = randomUUID(), headers = [] }) {
      commit += 16n
      const prev = at
      at = position(epoch, commit, 1)
      return {
        source,
        position: at,
        prev,
        id,
        type,
        key: Buffer.from(key),
        value: payloadBytes(payload),
        headers,
        committedAt: 1_795_000_000_000 + Number(commit),
        version: '1',
        orderingKey: null,
        placeholder: null,
      }
    },
  }
}

function payloadBytes(payload: unknown): Uint8Array | null {
  if (payload === null) return null
  if (payload instanceof Uint8Array) return payload
  return Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload))
}

/** The batch that applies the events, and parks others, from where their sources stood; `offset` is the next one to read. */
export function batchOf(events: readonly Event[], offset: bigint, parked: readonly ParkedEvent[] = []): LaneBatch {
  const all = [...events, ...parked.map(({ event }) => event)].sort((a, b) => (a.position < b.position ? -1 : 1))
  const moves = [...Map.groupBy(all, ({ source }) => source)].map(([source, own]) => ({
    source,
    from: (own[0] as Event).prev,
    to: (own.at(-1) as Event).position,
  }))
  return { moves, offset, events, parked, beginning: null }
}
