import fc from 'fast-check'
import { Partitioners } from 'kafkajs'
import { expect, test } from 'vitest'
import { murmur2, partitionOf } from '../../src/core/murmur2.ts'

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** org.apache.kafka.common.utils.UtilsTest.testMurmur2 */
test.each([
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
])('%s hashes as in Kafka', (text, hash) => {
  expect(murmur2(utf8(text))).toBe(hash)
})

test('a key goes to the partition that a Kafka producer would choose for it', () => {
  const choose = Partitioners.DefaultPartitioner()
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.integer({ min: 1, max: 200 }), (key, partitions) => {
      const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({
        partitionErrorCode: 0,
        partitionId,
        leader: 1,
        replicas: [1],
        isr: [1],
      }))
      const chosen = choose({ topic: 't', partitionMetadata, message: { key: Buffer.from(key), value: null } })
      expect(partitionOf(key, partitions)).toBe(chosen)
    }),
  )
})
