import type { Header } from '../../../src/core/event.ts'
import type { QueueRecord } from '../../../src/core/queue.ts'
import { crc32c } from './crc32c.ts'

/**
 * Kafka's record batch, format 2 (kafka.apache.org/documentation/#recordbatch), as the body of a request: written in one
 * pass into one growing buffer that the next request reuses. kafkajs builds an object and several buffers a record,
 * which costs about ten times as much.
 *
 * Layout from the batch's first byte: base offset i64, length i32, leader epoch i32, magic i8, crc u32, attributes i16
 * (the crc begins here), last offset delta i32, first and last timestamp i64, producer id i64, its epoch i16, base
 * sequence i32, record count i32, records.
 */
export const BATCH_OVERHEAD = 61
export const CRC_AT = 17
export const ATTRIBUTES_AT = 21
export const MAGIC = 2
/** within the attributes: the three bits of the codec, and the mark of a batch that holds a transaction's marker */
export const CODEC_MASK = 0x07
export const CONTROL = 0x20

/** what a record can need beside the bytes of its key, value and headers: seven varints and its attributes */
const RECORD_OVERHEAD = 36
/** two varints a header */
const HEADER_OVERHEAD = 10

export class RequestWriter {
  /** the bytes written so far are `bytes[0 .. length)`; a growing buffer is replaced, so take views only when done */
  bytes: Buffer<ArrayBuffer>
  length = 0
  /** the width of the last record's length: the next is supposed to have the same, and moved if it has not */
  #width = 2

  constructor(capacity = 64 * 1024) {
    this.bytes = Buffer.allocUnsafeSlow(capacity)
  }

  clear(): void {
    this.length = 0
  }

  /** Room for `size` more bytes. */
  reserve(size: number): void {
    const needed = this.length + size
    if (needed <= this.bytes.length) return
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.bytes.length * 2))
    this.bytes.copy(grown, 0, 0, this.length)
    this.bytes = grown
  }

  /** What has been written, as long as nothing is written after it. */
  view(): Buffer {
    return this.bytes.subarray(0, this.length)
  }

  int8(value: number): void {
    this.reserve(1)
    this.length = this.bytes.writeInt8(value, this.length)
  }

  int16(value: number): void {
    this.reserve(2)
    this.length = this.bytes.writeInt16BE(value, this.length)
  }

  int32(value: number): void {
    this.reserve(4)
    this.length = this.bytes.writeInt32BE(value, this.length)
  }

  int64(value: bigint): void {
    this.reserve(8)
    this.length = this.bytes.writeBigInt64BE(value, this.length)
  }

  /** a string of the classic protocol: i16 length, UTF-8 */
  string(value: string): void {
    const size = Buffer.byteLength(value)
    this.int16(size)
    this.reserve(size)
    this.length += this.bytes.write(value, this.length)
  }

  /** An array, or bytes, whose length is known at its end: the returned function writes it. */
  array(): (length: number) => void {
    const at = this.length
    this.int32(0)
    return (length) => void this.bytes.writeInt32BE(length, at)
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length)
    this.bytes.set(bytes, this.length)
    this.length += bytes.length
  }

  /** Begins a batch, whose fields are filled in by {@link endBatch}. */
  beginBatch(): number {
    const start = this.length
    this.reserve(BATCH_OVERHEAD)
    this.length += BATCH_OVERHEAD
    return start
  }

  endBatch(start: number, count: number, timestamp: number, codec: number): void {
    const { bytes, length: end } = this
    const time = BigInt(timestamp)
    bytes.writeBigInt64BE(0n, start)
    bytes.writeInt32BE(end - start - 12, start + 8)
    bytes.writeInt32BE(-1, start + 12)
    bytes[start + 16] = MAGIC
    bytes.writeInt16BE(codec, start + ATTRIBUTES_AT)
    bytes.writeInt32BE(count - 1, start + 23)
    bytes.writeBigInt64BE(time, start + 27)
    bytes.writeBigInt64BE(time, start + 35)
    bytes.writeBigInt64BE(-1n, start + 43)
    bytes.writeInt16BE(-1, start + 51)
    bytes.writeInt32BE(-1, start + 53)
    bytes.writeInt32BE(count, start + 57)
    bytes.writeUInt32BE(crc32c(bytes, start + ATTRIBUTES_AT, end), start + CRC_AT)
  }

  /** Appends one record; all of a batch share its timestamp. */
  record({ key, value, headers }: QueueRecord, offsetDelta: number): void {
    let bound = RECORD_OVERHEAD + key.length + (value === null ? 0 : value.length)
    for (let i = 0; i < headers.length; i++) {
      const header = headers[i] as Header
      const content = header[1]
      bound += HEADER_OVERHEAD + 3 * header[0].length + (typeof content === 'string' ? 3 * content.length : content.length)
    }
    this.reserve(bound)
    const { bytes, length: start } = this
    let at = start + this.#width
    bytes[at++] = 0 // attributes: none are defined
    bytes[at++] = 0 // timestamp delta
    at = writeVarint(bytes, at, offsetDelta)
    at = writeBytes(bytes, at, key)
    if (value === null)
      bytes[at++] = 1 // the varint of -1
    else at = writeBytes(bytes, at, value)
    at = writeVarint(bytes, at, headers.length)
    for (let i = 0; i < headers.length; i++) {
      const header = headers[i] as Header
      const content = header[1]
      at = writeText(bytes, at, header[0])
      at = typeof content === 'string' ? writeText(bytes, at, content) : writeBytes(bytes, at, content)
    }
    const size = at - start - this.#width
    const width = widthOf(size)
    if (width !== this.#width) {
      bytes.copyWithin(start + width, start + this.#width, at)
      this.#width = width
    }
    writeVarint(bytes, start, size)
    this.length = start + width + size
  }
}

/** the bytes of a zigzag varint of a number that is not negative */
function widthOf(value: number): number {
  return value < 64 ? 1 : value < 8192 ? 2 : value < 1_048_576 ? 3 : value < 134_217_728 ? 4 : 5
}

function writeVarint(bytes: Uint8Array, at: number, value: number): number {
  let rest = (value << 1) >>> 0
  while (rest > 127) {
    bytes[at++] = (rest & 127) | 128
    rest >>>= 7
  }
  bytes[at++] = rest
  return at
}

function writeBytes(bytes: Uint8Array, at: number, content: Uint8Array): number {
  const { length } = content
  at = writeVarint(bytes, at, length)
  // a call of `set` costs more than a short loop
  if (length > 48) bytes.set(content, at)
  else for (let i = 0; i < length; i++) bytes[at + i] = content[i] as number
  return at + length
}

function writeText(bytes: Buffer, start: number, text: string): number {
  const { length } = text
  let at = writeVarint(bytes, start, length)
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    if (code > 127) return writeUtf8(bytes, start, text)
    bytes[at++] = code
  }
  return at
}

function writeUtf8(bytes: Buffer, start: number, text: string): number {
  const at = writeVarint(bytes, start, Buffer.byteLength(text))
  return at + bytes.write(text, at)
}
