import type { QueueRecord, StoredRecord } from '../../../src/core/queue.ts'

/**
 * Records as they stand in the file: runs of them in one row, as Kafka keeps them in batches, because a row costs more
 * than a record. A batch is records end to end:
 *
 *     u32 key length, u32 value length (NONE: null), u32 number of headers, key, value,
 *     per header: u32 name length, u32 value length, name, value
 *
 * all little-endian, texts in UTF-8.
 */
const NONE = 0xffff_ffff
const FIXED = 12
const PER_HEADER = 8

/** A batch is cut here, so that readers are given bounded pieces and retention goes in small steps. */
export const BATCH = { records: 500, bytes: 128 << 10 } as const

export interface EncodedBatch {
  readonly count: number
  readonly data: Uint8Array
}

/** Writes batches into a buffer that it keeps: what it gives is good until the next `begin`. */
export class BatchEncoder {
  readonly #maxRecordBytes: number
  #buffer = Buffer.allocUnsafe(256 << 10)
  #at = 0

  constructor(maxRecordBytes: number) {
    this.#maxRecordBytes = maxRecordBytes
  }

  begin(): void {
    this.#at = 0
    // one publish of unusual size is no reason to keep its memory
    if (this.#buffer.length > 16 << 20) this.#buffer = Buffer.allocUnsafe(256 << 10)
  }

  /** @throws RangeError, with the record's index as its cause, when a record is larger than the queue takes */
  encode(records: readonly QueueRecord[]): readonly EncodedBatch[] {
    const spans: { readonly start: number; readonly end: number; readonly count: number }[] = []
    let start = this.#at
    let count = 0
    const cut = (): void => {
      if (count > 0) spans.push({ start, end: this.#at, count })
      start = this.#at
      count = 0
    }
    for (const [index, record] of records.entries()) {
      const before = this.#at
      this.#write(record)
      const bytes = this.#at - before
      if (bytes > this.#maxRecordBytes)
        throw new RangeError(`a record of ${bytes} bytes, but at most ${this.#maxRecordBytes} are taken`, { cause: index })
      count++
      if (count === BATCH.records || this.#at - start >= BATCH.bytes) cut()
    }
    cut()
    // the buffer may have grown meanwhile
    return spans.map(({ start, end, count }) => ({ count, data: this.#buffer.subarray(start, end) }))
  }

  #write({ key, value, headers }: QueueRecord): void {
    let most = FIXED + key.length + (value?.length ?? 0)
    for (const [name, header] of headers)
      most += PER_HEADER + 3 * name.length + (typeof header === 'string' ? 3 : 1) * header.length
    this.#reserve(most)
    const buffer = this.#buffer
    let at = this.#at
    buffer.writeUInt32LE(key.length, at)
    buffer.writeUInt32LE(value === null ? NONE : value.length, at + 4)
    buffer.writeUInt32LE(headers.length, at + 8)
    at += FIXED
    buffer.set(key, at)
    at += key.length
    if (value !== null) {
      buffer.set(value, at)
      at += value.length
    }
    for (const [name, header] of headers) {
      const nameAt = at + PER_HEADER
      const headerAt = nameAt + writeText(buffer, name, nameAt)
      let end = headerAt
      if (typeof header === 'string') end += writeText(buffer, header, headerAt)
      else {
        buffer.set(header, headerAt)
        end += header.length
      }
      buffer.writeUInt32LE(headerAt - nameAt, at)
      buffer.writeUInt32LE(end - headerAt, at + 4)
      at = end
    }
    this.#at = at
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#at + bytes))
    larger.set(this.#buffer.subarray(0, this.#at))
    this.#buffer = larger
  }
}

/** Most texts are short ASCII, for which a loop is several times faster than a call into Node's encoder. */
function writeText(buffer: Buffer, text: string, at: number): number {
  const { length } = text
  if (length > 128) return buffer.write(text, at)
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    if (code > 127) return buffer.write(text, at)
    buffer[at + i] = code
  }
  return length
}

export interface StoredBatch {
  readonly base: number
  readonly count: number
  readonly timestamp: number
  readonly data: Uint8Array
}

/**
 * The batch's records from offset `from` to `to` (exclusive), as views into it.
 * @throws RangeError when its lengths do not add up
 */
export function decodeBatch({ base, count, timestamp, data }: StoredBatch, from: number, to: number): StoredRecord[] {
  const buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  const records: StoredRecord[] = []
  let at = 0
  for (let offset = base; offset < base + count; offset++) {
    const keyLength = buffer.readUInt32LE(at)
    const valueLength = buffer.readUInt32LE(at + 4)
    const headerCount = buffer.readUInt32LE(at + 8)
    const keyAt = at + FIXED
    const valueAt = keyAt + keyLength
    const headersAt = valueAt + (valueLength === NONE ? 0 : valueLength)
    at = headersAt
    for (let left = headerCount; left > 0; left--) at += PER_HEADER + buffer.readUInt32LE(at) + buffer.readUInt32LE(at + 4)
    if (at > buffer.length) break
    if (offset < from || offset >= to) continue
    const key = buffer.subarray(keyAt, valueAt)
    const value = valueLength === NONE ? null : buffer.subarray(valueAt, headersAt)
    records.push(new BatchRecord(BigInt(offset), timestamp, key, value, buffer, headersAt, headerCount))
  }
  if (at !== buffer.length) throw new RangeError(`the batch at offset ${base} does not hold ${count} records`)
  return records
}

/** Its headers are decoded when they are first asked for. */
class BatchRecord implements StoredRecord {
  readonly offset: bigint
  readonly timestamp: number
  readonly key: Uint8Array
  readonly value: Uint8Array | null
  readonly #batch: Buffer
  readonly #headersAt: number
  readonly #headerCount: number
  #headers: StoredRecord['headers'] | undefined

  constructor(
    offset: bigint,
    timestamp: number,
    key: Uint8Array,
    value: Uint8Array | null,
    batch: Buffer,
    headersAt: number,
    headerCount: number,
  ) {
    this.offset = offset
    this.timestamp = timestamp
    this.key = key
    this.value = value
    this.#batch = batch
    this.#headersAt = headersAt
    this.#headerCount = headerCount
  }

  get headers(): StoredRecord['headers'] {
    this.#headers ??= this.#decodeHeaders()
    return this.#headers
  }

  #decodeHeaders(): StoredRecord['headers'] {
    const buffer = this.#batch
    const headers: [string, Uint8Array][] = []
    let at = this.#headersAt
    for (let index = 0; index < this.#headerCount; index++) {
      const nameAt = at + PER_HEADER
      const valueAt = nameAt + buffer.readUInt32LE(at)
      at = valueAt + buffer.readUInt32LE(nameAt - 4)
      headers.push([readName(buffer, nameAt, valueAt, index), buffer.subarray(valueAt, at)])
    }
    return headers
  }
}

/** by place among the headers: the name that stood there last; records of one producer name the same ones in one order */
const lastNames: { readonly bytes: Uint8Array; readonly text: string }[] = []
const REMEMBERED = 32

function readName(buffer: Buffer, start: number, end: number, place: number): string {
  const last = lastNames[place]
  if (last !== undefined && last.bytes.length === end - start) {
    let same = 0
    while (start + same < end && buffer[start + same] === last.bytes[same]) same++
    if (start + same === end) return last.text
  }
  const text = buffer.toString('utf8', start, end)
  if (place < REMEMBERED && end - start < 256) lastNames[place] = { bytes: Uint8Array.from(buffer.subarray(start, end)), text }
  return text
}
