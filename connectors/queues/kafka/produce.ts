import type { RequestWriter } from './record-batch.ts'
import { WireReader } from './wire-reader.ts'

/**
 * Produce, version 7: the first that knows zstd, understood by every broker since 2.1.
 *
 * Request: transactional id, acks i16, timeout i32, [topic, [partition i32, record batch as bytes]].
 * Answer: [topic, [partition i32, error i16, base offset i64, log append time i64, log start i64]], throttle time i32.
 */
export const PRODUCE_VERSION = 7

const ACKS_ALL = -1
/** the length of a string that is null */
const NO_TRANSACTION = -1

/** @param timeout ms that the leader may wait for its followers */
export function beginProduce(writer: RequestWriter, timeout: number): void {
  writer.clear()
  writer.int16(NO_TRANSACTION)
  writer.int16(ACKS_ALL)
  writer.int32(timeout)
}

export interface Produced {
  readonly topic: string
  readonly partition: number
  readonly errorCode: number
  readonly baseOffset: bigint
}

export interface ProduceAnswer {
  readonly produced: readonly Produced[]
  /** ms; kafkajs holds the next request back for it */
  readonly clientSideThrottleTime: number
}

export function decodeProduce(payload: Buffer): ProduceAnswer {
  const reader = new WireReader(payload)
  const produced = reader.array(() => {
    const topic = reader.string()
    return reader.array(() => {
      const partition = reader.int32()
      const errorCode = reader.int16()
      const baseOffset = reader.int64()
      reader.skip(16)
      return { topic, partition, errorCode, baseOffset }
    })
  })
  return { produced: produced.flat(), clientSideThrottleTime: reader.int32() }
}
