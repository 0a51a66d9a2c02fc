import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BATCH, BatchEncoder, decodeBatch } from '../../../connectors/queues/local/record-batch.ts'
import type { QueueRecord, StoredRecord } from '../../../src/core/queue.ts'

const bytes = fc.uint8Array({ maxLength: 40 })
const text = fc.string({ unit: 'binary', maxLength: 200 })
const record: fc.Arbitrary<QueueRecord> = fc.record({
  key: bytes,
  value: fc.option(bytes),
  headers: fc.array(fc.tuple(text, fc.oneof(bytes, text)), { maxLength: 6 }),
})

const buffer = (value: Uint8Array | string | null): Buffer | null => (value === null ? null : Buffer.from(value as Uint8Array))
const plain = ({ key, value, headers }: QueueRecord | StoredRecord): object => ({
  key: buffer(key),
  value: buffer(value),
  // a text that is not well formed cannot be written as UTF-8
  headers: headers.map(([name, header]) => [name.toWellFormed(), buffer(header)]),
})

function decodeAll(encoder: BatchEncoder, records: readonly QueueRecord[]): readonly StoredRecord[] {
  encoder.begin()
  let base = 100
  return encoder.encode(records).flatMap(({ count, data }) => {
    const batch = { base, count, timestamp: 5, data: Uint8Array.from(data) }
    base += count
    return decodeBatch(batch, 0, Number.MAX_SAFE_INTEGER)
  })
}

test('whatever records are encoded come back, in order, at growing offsets', () => {
  const encoder = new BatchEncoder(1 << 20)
  fc.assert(
    fc.property(fc.array(record, { maxLength: 30 }), (records) => {
      const decoded = decodeAll(encoder, records)
      expect(decoded.map(plain)).toEqual(records.map(plain))
      expect(decoded.map(({ offset }) => offset)).toEqual(records.map((_, index) => 100n + BigInt(index)))
    }),
  )
})

test('batches are cut by number and by bytes, and the buffer grows with what is put into it', () => {
  const encoder = new BatchEncoder(1 << 20)
  const small = Array.from({ length: BATCH.records * 2 + 1 }, (_, n) => ({ key: Buffer.from(`${n}`), value: null, headers: [] }))
  const large = Array.from({ length: 9 }, (_, n) => ({ key: Buffer.from(`${n}`), value: Buffer.alloc(100_000, n), headers: [] }))
  encoder.begin()
  expect(encoder.encode(small).map(({ count }) => count)).toEqual([BATCH.records, BATCH.records, 1])
  expect(encoder.encode(large).map(({ count }) => count)).toEqual([2, 2, 2, 2, 1])
  expect(decodeAll(encoder, large).map(plain)).toEqual(large.map(plain))
})

test('a part of a batch is given by its offsets', () => {
  const encoder = new BatchEncoder(1 << 20)
  encoder.begin()
  const [batch] = encoder.encode(Array.from({ length: 10 }, (_, n) => ({ key: Buffer.from(`${n}`), value: null, headers: [] })))
  const { count, data } = batch as { count: number; data: Uint8Array }
  const part = decodeBatch({ base: 50, count, timestamp: 1, data }, 53, 55)
  expect(part.map(({ offset, key }) => [offset, String(key)])).toEqual([
    [53n, '3'],
    [54n, '4'],
  ])
})

test('a batch that was damaged is refused or gives other bytes, but is never read beyond its end', () => {
  const encoder = new BatchEncoder(1 << 20)
  fc.assert(
    fc.property(fc.array(record, { minLength: 1, maxLength: 5 }), fc.nat(), fc.nat({ max: 255 }), (records, place, byte) => {
      encoder.begin()
      const [{ count, data }] = encoder.encode(records) as [{ count: number; data: Uint8Array }]
      const damaged = Uint8Array.from(data)
      damaged[place % damaged.length] = byte
      try {
        for (const { key, value, headers } of decodeBatch({ base: 0, count, timestamp: 0, data: damaged }, 0, 100))
          for (const view of [key, value, ...headers.map(([, header]) => header)])
            if (view !== null) expect(view.byteOffset + view.length).toBeLessThanOrEqual(damaged.byteOffset + damaged.length)
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError)
      }
    }),
  )
  encoder.begin()
  const [{ count, data }] = encoder.encode([{ key: Buffer.from('k'), value: null, headers: [] }]) as [
    { count: number; data: Uint8Array },
  ]
  for (let length = 0; length < data.length; length++)
    expect(() => decodeBatch({ base: 0, count, timestamp: 0, data: data.subarray(0, length) }, 0, 1)).toThrow(RangeError)
  expect(() => decodeBatch({ base: 0, count: 2, timestamp: 0, data }, 0, 2)).toThrow(RangeError)
})
