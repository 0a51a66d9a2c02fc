import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Change } from '../../src/core/change.ts'
import { codeOf } from '../../src/core/errors.ts'
import { Capture } from '../../src/postgres/capture.ts'
import { ChangeBuffer } from '../../src/postgres/change-buffer.ts'
import { FrameReader } from '../../src/postgres/frames.ts'
import { DEFAULT_OUTBOX } from '../../src/postgres/options.ts'
import { OutboxRows } from '../../src/postgres/outbox-row.ts'
import {
  begin,
  commit,
  frame,
  keepalive,
  OUTBOX_COLUMNS,
  outboxRelation,
  outboxRow,
  relation,
  row,
  walData,
} from './pgoutput-writer.ts'

interface Decoded {
  readonly changes: readonly Change[]
  readonly end: bigint | null
  readonly requested: readonly bigint[]
  readonly passedOver: readonly string[]
}

const TABLE = { schema: 'millrace', name: 'outbox' }
/** as `pgoutput-writer.ts` describes it */
const OUTBOX_OID = 1
const EPOCHS = [{ epoch: 1, systemId: '7', timeline: 1, began: 0n, from: 0n }]

function decode(chunks: readonly Buffer[]): Decoded {
  const buffer = new ChangeBuffer()
  const requested: bigint[] = []
  const passedOver: string[] = []
  const capture = new Capture(
    new OutboxRows(TABLE, DEFAULT_OUTBOX.columns, OUTBOX_OID),
    buffer,
    (lsn) => requested.push(lsn),
    (what, { schema, name }) => passedOver.push(`${what} of ${schema}.${name}`),
  )
  capture.countEpochs(EPOCHS)
  const frames = new FrameReader({ copyData: (bytes, start, end) => capture.message(bytes, start, end), message() {} })
  for (const chunk of chunks) frames.push(chunk)
  return { ...buffer.take({ maxChanges: 1e6, maxBytes: 1e9 }), requested, passedOver }
}

const decodeAll = (...frames: readonly Buffer[]): Decoded => decode([Buffer.concat(frames)])

function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...at].map((from, i) => bytes.subarray(from, at[i] ?? bytes.length))
}

const plain = ({ changes, end }: Decoded): unknown => ({
  end,
  changes: changes.map((change) => ({
    ...change,
    aggregateId: Buffer.from(change.aggregateId).toString(),
    payload: change.payload && Buffer.from(change.payload).toString(),
    orderingKey: change.orderingKey && Buffer.from(change.orderingKey).toString(),
  })),
})

/** two transactions, a fresh relation in the second, a keepalive behind them, notices among them */
const STREAM = Buffer.concat([
  frame('W', Buffer.from([0, 0, 0])),
  begin(0x100n, 1_000_000n),
  outboxRelation(),
  outboxRow('1'),
  outboxRow('ä', null),
  commit(0x100n, 0x140n),
  frame('N', Buffer.from('SNOTICE\0\0')),
  keepalive(0x150n),
  begin(0x200n),
  outboxRelation(2),
  outboxRow('3', '"x"', 2),
  walData(Buffer.concat([Buffer.from('Y'), Buffer.alloc(4), Buffer.from('public\0mood\0')])),
  walData(Buffer.concat([Buffer.from('O'), Buffer.alloc(8), Buffer.from('elsewhere\0')])),
  commit(0x200n, 0x240n),
  keepalive(0x300n, true),
])

describe('decoding', () => {
  test('positions are the commit LSN and the place among our rows, from 1', () => {
    const { changes, end, requested } = decode([STREAM])
    expect(changes.map(({ position }) => position)).toEqual([
      '00000001-0000000000000100-00000001',
      '00000001-0000000000000100-00000002',
      '00000001-0000000000000200-00000001',
    ])
    expect(changes[0]?.committedAt).toBe(Date.UTC(2000, 0, 1) + 1_000)
    expect(changes[1]?.payload).toBeNull()
    expect(Buffer.from(changes[1]?.aggregateId ?? []).toString()).toBe('ä')
    expect(end).toBe(0x300n)
    expect(requested).toEqual([0x300n])
  })

  test('the LSNs of rows, which run backwards where transactions were written side by side, are not looked at', () => {
    const { changes } = decodeAll(
      begin(0x100n),
      outboxRelation(),
      outboxRow('a', null, 1, 0xe0n),
      commit(0x100n, 0x140n),
      begin(0x200n),
      outboxRow('b', null, 1, 0x90n),
      commit(0x200n, 0x240n),
    )
    expect(changes.map(({ position }) => position)).toEqual([
      '00000001-0000000000000100-00000001',
      '00000001-0000000000000200-00000001',
    ])
  })

  test('split at every byte boundary the stream decodes the same', () => {
    const whole = plain(decode([STREAM]))
    for (let at = 0; at <= STREAM.length; at++) expect(plain(decode(cut(STREAM, [at])))).toEqual(whole)
    expect(plain(decode(cut(STREAM, [...STREAM.keys()])))).toEqual(whole)
  })

  test('in chunks of any sizes the stream decodes the same', () => {
    const whole = plain(decode([STREAM]))
    fc.assert(
      fc.property(fc.array(fc.nat(STREAM.length), { maxLength: 40 }), (places) => {
        expect(plain(decode(cut(STREAM, places)))).toEqual(whole)
      }),
    )
  })

  test('damaged bytes never crash and never hang: they decode, or end in an error that says so', () => {
    const expected = new Set(['MILLRACE_STREAM_INVALID', 'MILLRACE_OUTBOX_ROW_INVALID', 'MILLRACE_SOURCE_NOT_READY'])
    const mutation = fc.record({ at: fc.nat(STREAM.length - 1), value: fc.nat(255) })
    let refused = 0
    fc.assert(
      fc.property(
        fc.array(mutation, { minLength: 1, maxLength: 8 }),
        fc.array(fc.nat(STREAM.length), { maxLength: 5 }),
        (mutations, places) => {
          const damaged = Buffer.from(STREAM)
          for (const { at, value } of mutations) damaged[at] = value
          try {
            decode(cut(damaged, places))
          } catch (error) {
            refused++
            expect(expected).toContain(codeOf(error))
          }
        },
      ),
      { numRuns: 3_000 },
    )
    expect(refused).toBeGreaterThan(100)
  })

  test('a stream cut short at any byte waits for the rest', () => {
    for (let length = 0; length < STREAM.length; length++) expect(() => decode([STREAM.subarray(0, length)])).not.toThrow()
  })

  test('a keepalive inside a transaction is no end', () => {
    const { end, requested } = decodeAll(begin(0x100n), outboxRelation(), outboxRow('1'), keepalive(0xf0n, true))
    expect(end).toBeNull()
    expect(requested).toEqual([0xf0n])
  })
})

describe('what cannot be true is refused', () => {
  const invalid: Readonly<Record<string, readonly Buffer[]>> = {
    'a row outside a transaction': [outboxRelation(), outboxRow('1')],
    'a Begin inside a transaction': [begin(1n), begin(2n)],
    'a Commit outside a transaction': [commit(1n, 2n)],
    'a Commit of another transaction': [begin(1n), commit(2n, 3n)],
    'a Commit that ends where it begins': [begin(1n), commit(1n, 1n)],
    'a transaction that commits before the last one': [begin(2n), commit(2n, 3n), begin(1n)],
    'a row of a relation that was not described': [begin(1n), outboxRow('1', '{}', 9)],
    'a row with fewer columns than its relation': [begin(1n), outboxRelation(), row('I', 1, ['x'])],
    'an unknown message': [begin(1n), walData(Buffer.from('Z'))],
    'an unknown replication message': [frame('d', Buffer.from('x'))],
    'bytes behind a message': [walData(Buffer.concat([begin(1n).subarray(30), Buffer.alloc(1)]))],
    'an empty message': [frame('d', Buffer.alloc(0))],
    'a length below its own': [Buffer.from([0x64, 0, 0, 0, 3])],
    'a length beyond any row': [Buffer.from([0x64, 0x7f, 0xff, 0xff, 0xff])],
  }
  test.each(Object.entries(invalid))('%s', (_, frames) => {
    expect(() => decodeAll(...frames)).toThrow(expect.objectContaining({ code: 'MILLRACE_STREAM_INVALID' }))
  })

  test('a frame of a length that is only promised costs no memory', () => {
    const before = process.memoryUsage().arrayBuffers
    const header = Buffer.from([0x64, 0x0f, 0, 0, 0])
    expect(() => decode([header, Buffer.alloc(1_000)])).not.toThrow()
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 << 20)
  })
})

describe('what an altered publication sends besides inserts into the outbox is passed over, counts nothing, and is told', () => {
  test.each([
    ['updates of millrace.outbox', [row('U', 1, [])]],
    ['deletes of millrace.outbox', [row('D', 1, [])]],
    ['truncates of millrace.outbox', [walData(Buffer.concat([Buffer.from('T'), Buffer.from([0, 0, 0, 1, 0, 0, 0, 0, 1])]))]],
    ['inserts of public.orders', [relation(5, 'public', 'orders', [['id', 23]]), row('I', 5, ['1'])]],
  ])('%s', (what, messages) => {
    const { changes, end, passedOver } = decodeAll(
      begin(0x100n),
      outboxRelation(),
      outboxRow('1'),
      ...messages,
      outboxRow('2'),
      commit(0x100n, 0x180n),
    )
    expect(changes.map(({ position }) => position.slice(-1))).toEqual(['1', '2'])
    expect(end).toBe(0x180n)
    expect(passedOver).toEqual([what])
  })

  test('an outbox that had another name when its row was written is still the outbox', () => {
    const renamed = relation(1, 'millrace', 'outbox_old', OUTBOX_COLUMNS)
    expect(decodeAll(begin(0x100n), renamed, outboxRow('1')).changes).toHaveLength(1)
  })
})

describe('a row that cannot become an event is refused with its position and what was expected', () => {
  const good = ['b6c5e0a2-0000-4000-8000-000000000000', 'order', '42', 'OrderPlaced', '{}', null, null, '1']
  const withColumn = (name: string, value: string | null): Buffer =>
    row(
      'I',
      1,
      good.map((was, i) => (OUTBOX_COLUMNS[i]?.[0] === name ? value : was)),
    )

  test.each([
    ['aggregate_type', null],
    ['aggregate_type', 'a topic/of its own'],
    ['aggregate_id', null],
    ['aggregate_id', ''],
  ])('%s is %j', (column, value) => {
    expect(() => decodeAll(begin(0x100n), outboxRelation(), withColumn(column, value))).toThrow(
      expect.objectContaining({
        code: 'MILLRACE_OUTBOX_ROW_INVALID',
        message: expect.stringContaining(
          `00000001-0000000000000100-00000001 cannot become an event: column ${column} of millrace.outbox`,
        ),
      }),
    )
  })

  test.each([
    ['id', null],
    ['id', ''],
    ['type', null],
    ['type', ''],
  ])('%s is %j: a change with a fault, whose place in its chain is known', (column, value) => {
    const { changes } = decodeAll(begin(0x100n), outboxRelation(), withColumn(column, value), row('I', 1, good))
    expect(changes[0]).toMatchObject({
      aggregateType: changes[1]?.aggregateType,
      aggregateId: changes[1]?.aggregateId,
      fault: {
        code: 'MILLRACE_OUTBOX_ROW_INVALID',
        message: expect.stringContaining(
          `00000001-0000000000000100-00000001 cannot become an event: column ${column} of millrace.outbox`,
        ),
      },
    })
    expect(changes[1]?.fault).toBeNull()
  })

  test('a table that lost a column', () => {
    const columns = OUTBOX_COLUMNS.filter(([name]) => name !== 'type')
    expect(() =>
      decodeAll(
        begin(1n),
        relation(1, 'millrace', 'outbox', columns),
        row(
          'I',
          1,
          good.filter((_, i) => i !== 3),
        ),
      ),
    ).toThrow(
      expect.objectContaining({ code: 'MILLRACE_OUTBOX_ROW_INVALID', fields: expect.objectContaining({ column: 'type' }) }),
    )
  })

  test('bytea that is not in hex', () => {
    const columns = OUTBOX_COLUMNS.map(([name, type]) => [name, name === 'payload' ? 17 : type] as const)
    const decodePayload = (text: string): Decoded =>
      decodeAll(begin(1n), relation(1, 'millrace', 'outbox', columns), withColumn('payload', text))
    expect(decodePayload('\\x00ff').changes[0]?.payload).toEqual(Buffer.from([0, 255]))
    for (const text of ['\\x0', '\\xzz', 'abc', ''])
      expect(decodePayload(text).changes[0]?.fault?.message).toMatch(/bytea in its hex form/)
  })
})
