import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Event } from '../../src/core/event.ts'
import { position } from '../../src/core/position.ts'
import type { QueueRecord, StoredRecord } from '../../src/core/queue.ts'
import { fromRecord, HEADER, isReservedHeader, recordBytes, toRecord } from '../../src/core/record.ts'

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

const event: Event = {
  source: 'shop',
  position: position(1, 0xabcn, 2),
  prev: position(1, 0xabcn, 1),
  id: '0198c0de-0000-7000-8000-000000000001',
  type: 'OrderPlaced',
  key: utf8('42'),
  value: utf8('{"id":42}'),
  headers: [['traceparent', '00-1-2-01']],
  committedAt: 1_795_264_496_123,
  version: '3',
  orderingKey: null,
  placeholder: null,
}

/** as a queue gives back what was published */
const stored = ({ key, value, headers }: QueueRecord): StoredRecord => ({
  offset: 5n,
  timestamp: 1,
  key,
  value,
  headers: headers.map(([name, header]) => [name, typeof header === 'string' ? utf8(header) : header]),
})

const withHeader = (name: string, value: string | null): StoredRecord => {
  const record = stored(toRecord(event))
  const others = record.headers.filter(([other]) => other !== name)
  return { ...record, headers: value === null ? others : [...others, [name, utf8(value)]] }
}

describe('an event as a record', () => {
  test('has the headers that consumers were promised', () => {
    expect(toRecord(event)).toEqual({
      key: utf8('42'),
      value: utf8('{"id":42}'),
      headers: [
        ['id', '0198c0de-0000-7000-8000-000000000001'],
        ['type', 'OrderPlaced'],
        ['millrace-source', 'shop'],
        ['millrace-position', '00000001-0000000000000abc-00000002'],
        ['millrace-committed-at', '1795264496123'],
        ['millrace-format', '1'],
        ['schema-version', '3'],
        ['millrace-prev', '00000001-0000000000000abc-00000001'],
        ['traceparent', '00-1-2-01'],
      ],
    })
  })

  test('comes back as the event it was', () => {
    const text = fc.string({ unit: 'grapheme', minLength: 1 })
    const bytes = fc.uint8Array({ maxLength: 50 })
    const anyEvent = fc.record({
      source: text,
      position: fc.constant(event.position),
      prev: fc.constantFrom(event.prev, null),
      id: text,
      type: text,
      key: bytes,
      value: fc.option(bytes),
      headers: fc.array(
        fc.tuple(
          text.filter((name) => !isReservedHeader(name)),
          bytes,
        ),
      ),
      committedAt: fc.integer({ min: 0, max: 2 ** 50 }),
      version: fc.nat().map(String),
      orderingKey: fc.option(text, { nil: null }),
      placeholder: fc.constantFrom(null, 'MILLRACE_EVENT_TOO_LARGE'),
    })
    fc.assert(
      fc.property(anyEvent, (sent) => {
        expect(fromRecord(stored(toRecord(sent)))).toEqual(sent)
      }),
    )
    const marked = { ...event, id: '\ufeff1', type: '\ufeffOrderPlaced' }
    expect(fromRecord(stored(toRecord(marked)))).toMatchObject({ id: marked.id, type: marked.type })
  })

  test('a header of an event cannot pass itself off as one of ours', () => {
    for (const name of Object.values(HEADER)) expect(isReservedHeader(name)).toBe(true)
    expect(isReservedHeader('millrace-of-tomorrow')).toBe(true)
    expect(isReservedHeader('traceparent')).toBe(false)
  })

  test('weighs what its parts weigh in UTF-8, and the lengths around them', () => {
    const lean = { key: new Uint8Array(0), value: null, headers: [] }
    expect(recordBytes({ ...lean, key: utf8('1234'), value: utf8('123456') }) - recordBytes(lean)).toBe(10)
    const headers = [
      ['grüße', '🌊'],
      ['b', utf8('123')],
    ] as const
    expect(recordBytes({ ...lean, headers }) - recordBytes(lean)).toBe(7 + 4 + 16 + 1 + 3 + 16)
  })
})

describe('a record as an event', () => {
  test('of a foreign producer is none', () => {
    expect(fromRecord({ offset: 0n, timestamp: 0, key: null, value: utf8('x'), headers: [] })).toBeNull()
    expect(fromRecord(withHeader(HEADER.format, null))).toBeNull()
  })

  test('of a format that is not ours yet is refused with its offset', () => {
    expect(() => fromRecord(withHeader(HEADER.format, '2'))).toThrow(
      expect.objectContaining({
        code: 'MILLRACE_RECORD_INVALID',
        fields: { offset: '5' },
        message: expect.stringContaining('format 2'),
      }),
    )
  })

  test.each([
    [HEADER.position, null],
    [HEADER.position, '1/1A'],
    [HEADER.prev, 'nothing'],
    [HEADER.source, null],
    [HEADER.source, ''],
  ])('that says it is ours is refused with %s %j', (name, value) => {
    expect(() => fromRecord(withHeader(name, value))).toThrow(expect.objectContaining({ code: 'MILLRACE_RECORD_INVALID' }))
  })

  test('that says it is ours is refused without a key', () => {
    const keyless = { ...stored(toRecord(event)), key: null }
    expect(() => fromRecord(keyless)).toThrow(expect.objectContaining({ code: 'MILLRACE_RECORD_INVALID' }))
  })
})
