import { createHash } from 'node:crypto'
import type { Event, Header } from '../../../src/core/event.ts'
import { recordBytes, toRecord } from '../../../src/core/record.ts'

/**
 * JSON in ASCII. As the type `json` it can be kept by a database of any encoding, and holds what its texts cannot: a
 * character beyond the encoding, `\u0000`. An event is often parked because of just that.
 */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** A key of fixed size: an order may be longer than an index takes. */
export function digestOf(order: string): Buffer {
  return createHash('sha256').update(order, 'utf8').digest()
}

/** what an event takes of the parking limit */
export function parkedBytes(event: Event): number {
  return recordBytes(toRecord(event))
}

/** the event without its payload, which is kept as bytes beside it */
export function encodeEvent({ value: _value, key, headers, ...event }: Event): string {
  const encoded = headers.map(([name, value]) => [name, base64(typeof value === 'string' ? encoder.encode(value) : value)])
  return asciiJson({ ...event, key: base64(key), headers: encoded })
}

/** header values come back as bytes */
export function decodeEvent(text: string, value: Uint8Array | null): Event {
  const { key, headers, ...event } = JSON.parse(text) as Omit<Event, 'key' | 'value' | 'headers'> & {
    readonly key: string
    readonly headers: readonly (readonly [string, string])[]
  }
  return {
    ...event,
    key: Buffer.from(key, 'base64'),
    value,
    headers: headers.map(([name, encoded]): Header => [name, Buffer.from(encoded, 'base64')]),
  }
}

export function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
}

const encoder = new TextEncoder()
