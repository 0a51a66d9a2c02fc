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
}

export type Header = readonly [name: string, value: Uint8Array | string]
