import type { TopicPartition } from '../../../src/core/queue.ts'
import type { BrokerLink } from './kafkajs.ts'
import { RequestWriter } from './record-batch.ts'
import { WireReader } from './wire-reader.ts'

/**
 * Fetch, version 11, understood by every broker since 2.3.
 *
 * Request: replica i32, max wait i32, min bytes i32, max bytes i32, isolation i8, session i32 and its epoch i32,
 * [topic, [partition i32, leader epoch i32, offset i64, log start i64, max bytes i32]], [forgotten topics], rack.
 * Answer: throttle time i32, error i16, session i32, [topic, [partition i32, error i16, high watermark i64, last stable
 * offset i64, log start i64, [aborted transactions], preferred replica i32, record batches as bytes]].
 */
const FETCH_VERSION = 11

/**
 * Up to the high watermark: what stands below it can no longer vanish, which is what the contract asks. Waiting for the
 * last stable offset would let a foreign producer's open transaction hold up everybody.
 */
const READ_UNCOMMITTED = 0

export interface Wanted extends TopicPartition {
  readonly offset: bigint
}

export interface Fetched extends TopicPartition {
  readonly errorCode: number
  readonly highWatermark: bigint
  readonly logStart: bigint
  /** whole record batches, but for the last, which may be cut; the first may begin before the offset asked for */
  readonly bytes: Buffer
}

export interface FetchLimits {
  /** ms that the broker waits for the first byte */
  readonly maxWait: number
  readonly maxBytes: number
  readonly maxPartitionBytes: number
}

interface FetchAnswer {
  readonly clientSideThrottleTime: number
  readonly errorCode: number
  readonly fetched: readonly Fetched[]
}

/** One request for some partitions of one leader. A throttled broker's answer lacks partitions: ask again. */
export async function fetchFrom(
  link: BrokerLink,
  wanted: readonly Wanted[],
  limits: FetchLimits,
  requestTimeout: number,
): Promise<Pick<FetchAnswer, 'errorCode' | 'fetched'>> {
  const body = encodeFetch(wanted, limits)
  return link.send('Fetch', FETCH_VERSION, body, decodeFetch, requestTimeout + limits.maxWait)
}

function encodeFetch(wanted: readonly Wanted[], { maxWait, maxBytes, maxPartitionBytes }: FetchLimits): Buffer {
  const writer = new RequestWriter(256)
  writer.int32(-1)
  writer.int32(maxWait)
  writer.int32(1)
  writer.int32(maxBytes)
  writer.int8(READ_UNCOMMITTED)
  writer.int32(0)
  writer.int32(-1)
  const topics = Map.groupBy(wanted, ({ topic }) => topic)
  writer.int32(topics.size)
  for (const [topic, partitions] of topics) {
    writer.string(topic)
    writer.int32(partitions.length)
    for (const { partition, offset } of partitions) {
      writer.int32(partition)
      writer.int32(-1)
      writer.int64(offset)
      writer.int64(-1n)
      writer.int32(maxPartitionBytes)
    }
  }
  writer.int32(0)
  writer.string('')
  return writer.view()
}

export function decodeFetch(payload: Buffer): FetchAnswer {
  const reader = new WireReader(payload)
  const clientSideThrottleTime = reader.int32()
  const errorCode = reader.int16()
  reader.skip(4)
  const fetched = reader.array(() => {
    const topic = reader.string()
    return reader.array(() => {
      const partition = reader.int32()
      const error = reader.int16()
      const highWatermark = reader.int64()
      reader.skip(8)
      const logStart = reader.int64()
      reader.array(() => reader.skip(16))
      reader.skip(4)
      return { topic, partition, errorCode: error, highWatermark, logStart, bytes: reader.bytes() }
    })
  })
  return { clientSideThrottleTime, errorCode, fetched: fetched.flat() }
}
