import { MillraceError } from './errors.ts'
import type { Event, Header } from './event.ts'
import { isPosition } from './position.ts'
import type { QueueRecord, StoredRecord } from './queue.ts'

/**
 * An event as a record of the queue. `id` and `type` are unprefixed, as Debezium's outbox router writes them, so that
 * its consumers read our records unchanged; ours carry the prefix. Readers accept format N and N-1.
 */
export const HEADER = {
  id: 'id',
  type: 'type',
  source: 'millrace-source',
  position: 'millrace-position',
  prev: 'millrace-prev',
  committedAt: 'millrace-committed-at',
  format: 'millrace-format',
  version: 'schema-version',
  orderingKey: 'millrace-ordering-key',
  placeholder: 'millrace-placeholder',
} as const

export const FORMAT = '1'

/** sinks make a time of it; the bound is that of Date */
const isTime = (text: string): boolean => /^-?\d{1,16}$/.test(text) && Math.abs(Number(text)) <= 8.64e15

const OWN = new Set<string>(Object.values(HEADER))

/** whether a header name is ours: refused at emit, never passed as a user's */
export function isReservedHeader(name: string): boolean {
  return OWN.has(name) || name.startsWith('millrace-')
}

export function toRecord(event: Event): QueueRecord {
  const headers: Header[] = [
    [HEADER.id, event.id],
    [HEADER.type, event.type],
    [HEADER.source, event.source],
    [HEADER.position, event.position],
    [HEADER.committedAt, String(event.committedAt)],
    [HEADER.format, FORMAT],
    [HEADER.version, event.version],
  ]
  if (event.prev !== null) headers.push([HEADER.prev, event.prev])
  if (event.orderingKey !== null) headers.push([HEADER.orderingKey, event.orderingKey])
  if (event.placeholder !== null) headers.push([HEADER.placeholder, event.placeholder])
  for (const header of event.headers) headers.push(header)
  return { key: event.key, value: event.value, headers }
}

/**
 * What a record weighs in a queue, in bytes: key, value, header names and values, and 16 for the lengths around each
 * of them, which no queue exceeds.
 */
export function recordBytes(record: QueueRecord): number {
  let bytes = 64 + record.key.length + (record.value?.length ?? 0)
  for (const [name, value] of record.headers)
    bytes += 16 + utf8Bytes(name) + (typeof value === 'string' ? utf8Bytes(value) : value.length)
  return bytes
}

const encoder = new TextEncoder()
const utf8Bytes = (value: string): number => encoder.encode(value).length

// a text that begins with U+FEFF keeps it
const text = new TextDecoder('utf-8', { ignoreBOM: true })

/**
 * The event that a record carries, or null for a record of a foreign producer (it has no `millrace-format` header).
 * @throws MILLRACE_RECORD_INVALID for a record that says it is ours and cannot be read
 */
export function fromRecord(record: StoredRecord): Event | null {
  let format: string | undefined
  let id = ''
  let type = ''
  let source = ''
  let position = ''
  let prev: string | null = null
  let committedAt = ''
  let version = '1'
  let orderingKey: string | null = null
  let placeholder: string | null = null
  const headers: Header[] = []
  for (const [name, value] of record.headers) {
    switch (name) {
      case HEADER.format:
        format = text.decode(value)
        break
      case HEADER.id:
        id = text.decode(value)
        break
      case HEADER.type:
        type = text.decode(value)
        break
      case HEADER.source:
        source = text.decode(value)
        break
      case HEADER.position:
        position = text.decode(value)
        break
      case HEADER.prev:
        prev = text.decode(value)
        break
      case HEADER.committedAt:
        committedAt = text.decode(value)
        break
      case HEADER.version:
        version = text.decode(value)
        break
      case HEADER.orderingKey:
        orderingKey = text.decode(value)
        break
      case HEADER.placeholder:
        placeholder = text.decode(value)
        break
      default:
        headers.push([name, value])
    }
  }
  if (format === undefined) return null
  if (format !== FORMAT)
    throw new MillraceError('MILLRACE_RECORD_INVALID', `record format ${format} is not one this version reads (${FORMAT})`, {
      remedy: 'upgrade appliers before relays',
      fields: { offset: String(record.offset) },
    })
  if (
    !isPosition(position) ||
    (prev !== null && !isPosition(prev)) ||
    source === '' ||
    record.key === null ||
    !isTime(committedAt)
  )
    throw new MillraceError(
      'MILLRACE_RECORD_INVALID',
      'a record of format 1 lacks its source, key, position or commit time, or one is malformed',
      {
        // they may be anything, of any length
        fields: { offset: String(record.offset), source: source.slice(0, 64), position: position.slice(0, 64) },
      },
    )
  return {
    source,
    position,
    prev,
    id,
    type,
    key: record.key,
    value: record.value,
    headers,
    committedAt: Number(committedAt),
    version,
    orderingKey,
    placeholder,
  }
}
