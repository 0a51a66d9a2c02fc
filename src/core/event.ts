import type { Position } from './position.ts'

/** An event: what travels from the source to the sinks. */
export interface Event {
  /** the source's name; positions compare only within a source */
  readonly source: string
  readonly position: Position
  /** the position of the event before it on the same (source, topic, partition); null for the very first */
  readonly prev: Position | null
  readonly id: string
  readonly type: string
  /** the aggregate id as UTF-8 */
  readonly key: Uint8Array
  /** the payload's bytes as written; null is a tombstone */
  readonly value: Uint8Array | null
  /** the user's headers, as they were written */
  readonly headers: readonly Header[]
  /** ms since the Unix epoch; for people and lag, never for order */
  readonly committedAt: number
  readonly version: string
  /** what the writer gave to order by; null: the aggregate id */
  readonly orderingKey: string | null
  /**
   * The code of why the relay could not publish the event whole; null for every other. A placeholder stands in the chain
   * at the event's own position, without its payload and headers, and parks its key at every sink (PROTOCOL 2.3).
   */
  readonly placeholder: string | null
}

/** The unit that waits together when an event cannot be applied: (source, ordering key), as one text. */
export function orderOf(event: Pick<Event, 'source' | 'orderingKey' | 'key'>): string {
  return `${event.source}/${event.orderingKey ?? text.decode(event.key)}`
}

const text = new TextDecoder('utf-8', { ignoreBOM: true })

export type Header = readonly [name: string, value: Uint8Array | string]
