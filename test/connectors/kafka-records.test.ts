import { createRequire } from 'node:module'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Codecs, openCodecs } from '../../connectors/queues/kafka/codecs.ts'
import { crc32c } from '../../connectors/queues/kafka/crc32c.ts'
import type { CodecFactory } from '../../connectors/queues/kafka/options.ts'
import { BATCH_OVERHEAD, RequestWriter } from '../../connectors/queues/kafka/record-batch.ts'
import { offsetAfter, RecordReader } from '../../connectors/queues/kafka/record-reader.ts'
import type { QueueRecord, StoredRecord } from '../../src/core/queue.ts'

const require = createRequire(import.meta.url)
const Decoder = require('kafkajs/src/protocol/decoder')
const decodeBatch = require('kafkajs/src/protocol/recordBatch/v0/decoder') as (
  decoder: unknown,
) => Promise<{ records: KafkajsRecord[] }>

interface KafkajsRecord {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: Record<string, Buffer>
  readonly timestamp: string
  readonly offset: string
}

const NOW = 1_763_727_000_123
const END = 2n ** 62n
const none: Codecs = await openCodecs('none')

/** one batch, as it would stand in a log at the offset */
function batchOf(records: readonly QueueRecord[], offset = 0n, writer = new RequestWriter(64)): Buffer {
  writer.clear()
  const start = writer.beginBatch()
  records.forEach((record, delta) => {
    writer.record(record, delta)
  })
  writer.endBatch(start, records.length, NOW, 0)
  const bytes = Buffer.from(writer.view())
  bytes.writeBigInt64BE(offset)
  return bytes
}

async function readAll(bytes: Buffer, from = 0n, to = END): Promise<readonly StoredRecord[]> {
  const reader = new RecordReader(bytes, none, from, to)
  const records: StoredRecord[] = []
  for (let batch = await reader.next(1e6); batch; batch = await reader.next(1e6)) records.push(...batch)
  return records
}

const plain = ({ key, value, headers }: QueueRecord | StoredRecord): object => ({
  key: key && Buffer.from(key).toString('hex'),
  value: value && Buffer.from(value).toString('hex'),
  headers: headers.map(([name, content]) => [name, Buffer.from(content as Uint8Array).toString('hex')]),
})

const bytes = fc.uint8Array({ maxLength: 300 })
/** whole characters only: a lone surrogate has no UTF-8 */
const text = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 80 }), fc.string({ unit: 'binary-ascii', maxLength: 200 }))
const record: fc.Arbitrary<QueueRecord> = fc.record({
  key: bytes,
  value: fc.oneof(
    fc.constant(null),
    bytes,
    fc.nat(20_000).map((size) => new Uint8Array(size).fill(size)),
  ),
  headers: fc.array(fc.tuple(text, fc.oneof(text, bytes)), { maxLength: 12 }),
})
const asBytes = ({ headers, ...rest }: QueueRecord): QueueRecord => ({
  ...rest,
  headers: headers.map(([name, content]) => [name, Buffer.from(content as Uint8Array)]),
})

describe('the checksum', () => {
  test('is CRC-32C, as its published vectors say', () => {
    // RFC 3720 B.4
    const vectors: [Uint8Array, number][] = [
      [Buffer.from('123456789'), 0xe3069283],
      [new Uint8Array(32), 0x8a9136aa],
      [new Uint8Array(32).fill(0xff), 0x62a8ab43],
      [Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ]
    for (const [input, expected] of vectors) expect(crc32c(input, 0, input.length)).toBe(expected)
  })

  test('is the same wherever in a buffer the bytes stand', () => {
    const bit = (input: Uint8Array): number => {
      let crc = -1
      for (const each of input) {
        crc ^= each
        for (let k = 0; k < 8; k++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
      }
      return ~crc >>> 0
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(9), fc.nat(9), (content, before, after) => {
        const buffer = new Uint8Array(before + content.length + after).fill(7)
        buffer.set(content, before)
        expect(crc32c(buffer, before, before + content.length)).toBe(bit(content))
      }),
    )
  })
})

describe('a record batch', () => {
  test('that we write is read by us as it was', async () => {
    const writer = new RequestWriter(64)
    await fc.assert(
      fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 20 }), fc.bigInt(0n, 2n ** 40n), async (records, offset) => {
        const stored = await readAll(batchOf(records, offset, writer))
        expect(stored.map(plain)).toEqual(records.map(asBytes).map(plain))
        expect(stored.map((each) => each.offset)).toEqual(records.map((_, delta) => offset + BigInt(delta)))
        for (const { timestamp } of stored) expect(timestamp).toBe(NOW)
      }),
    )
  })

  test('that we write is read by kafkajs as it was', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 20 }), async (records) => {
        // kafkajs gathers headers in an object: the same name twice becomes an array there, and __proto__ is lost
        const distinct = records.map((each) => ({
          ...each,
          headers: [...new Map(each.headers)].filter(([name]) => !(name in {})),
        }))
        const decoded = await decodeBatch(new Decoder(batchOf(distinct, 5n)))
        expect(decoded.records).toHaveLength(distinct.length)
        for (const [delta, { key, value, headers, timestamp, offset }] of decoded.records.entries()) {
          expect(plain({ key: key as Buffer, value, headers: Object.entries(headers) })).toEqual({
            ...plain(asBytes(distinct[delta] as QueueRecord)),
            headers: expect.toSatisfy((found: [string, string][]) => sameHeaders(found, asBytes(distinct[delta] as QueueRecord))),
          })
          expect([timestamp, offset]).toEqual([String(NOW), String(5 + delta)])
        }
      }),
    )
  })

  test('begins a record anew when its length needs another width than the one before', async () => {
    const sizes = [0, 10, 20, 60, 70, 8_000, 8_200, 100, 1_050_000, 3]
    const records = sizes.map((size) => ({ key: Buffer.from('k'), value: new Uint8Array(size).fill(size), headers: [] }))
    expect((await readAll(batchOf(records))).map(plain)).toEqual(records.map(plain))
  })

  test('is cut to the offsets asked for, and a cut end is left for the next fetch', async () => {
    const records = Array.from({ length: 10 }, (_, n) => ({ key: Buffer.from(`${n}`), value: null, headers: [] }))
    const log = Buffer.concat([batchOf(records, 100n), batchOf(records, 110n), batchOf(records, 120n)])
    expect((await readAll(log, 105n, 123n)).map(({ offset }) => offset)).toEqual(
      Array.from({ length: 18 }, (_, n) => BigInt(105 + n)),
    )
    const cut = log.subarray(0, log.length - 1)
    expect(offsetAfter(cut)).toBe(120n)
    expect((await readAll(cut)).at(-1)?.offset).toBe(119n)
    expect(offsetAfter(log.subarray(0, 30))).toBe(null)
  })

  test('whose bytes are damaged is an error that names its offset', async () => {
    const damaged = batchOf([{ key: Buffer.from('k'), value: Buffer.from('value'), headers: [] }], 77n)
    damaged.writeUInt8(damaged.readUInt8(damaged.length - 3) ^ 1, damaged.length - 3)
    await expect(readAll(damaged)).rejects.toMatchObject({ code: 'MILLRACE_RECORD_INVALID', fields: { offset: '77' } })
    const old = batchOf([{ key: Buffer.from('k'), value: null, headers: [] }], 78n)
    old[16] = 1
    await expect(readAll(old)).rejects.toMatchObject({ code: 'MILLRACE_RECORD_INVALID', fields: { offset: '78' } })
  })
})

describe('a compressed batch', () => {
  const written: QueueRecord[] = [{ key: Buffer.from('k'), value: Buffer.from('value'), headers: [] }]

  test.each(['gzip', 'zstd'] as const)('of %s is opened by anybody', async (name) => {
    expect((await readAll(await compressed(await openCodecs(name), written))).map(plain)).toEqual(written.map(plain))
  })

  test('of another codec is opened by its plug-in, and without it says what is needed', async () => {
    const flipped = async (buffer: Buffer): Promise<Buffer> => buffer.map((byte) => byte ^ 0xff) as Buffer
    const codec: CodecFactory = () => ({ compress: ({ buffer }) => flipped(buffer), decompress: flipped })
    const lz4 = await openCodecs({ type: 'lz4', codec })
    const batch = await compressed(lz4, written)
    expect((await new RecordReader(batch, lz4, 0n, END).next(1))?.map(plain)).toEqual(written.map(plain))
    await expect(readAll(batch)).rejects.toMatchObject({
      code: 'MILLRACE_QUEUE_NOT_READY',
      remedy: expect.stringContaining('{ type: lz4, codec: kafkajs-lz4 }'),
    })
  })
})

async function compressed({ own }: Codecs, records: readonly QueueRecord[]): Promise<Buffer> {
  const writer = new RequestWriter(64)
  const start = writer.beginBatch()
  records.forEach((record, delta) => {
    writer.record(record, delta)
  })
  const packed = await own?.compress(Buffer.from(writer.view().subarray(BATCH_OVERHEAD)))
  writer.length = start + BATCH_OVERHEAD
  writer.raw(packed as Buffer)
  writer.endBatch(start, records.length, NOW, own?.id as number)
  return Buffer.from(writer.view())
}

function sameHeaders(found: readonly [string, string][], { headers }: QueueRecord): boolean {
  const wanted = new Map(headers.map(([name, content]) => [name, Buffer.from(content as Uint8Array).toString('hex')]))
  return found.length === wanted.size && found.every(([name, hex]) => wanted.get(name) === hex)
}
