import { MillraceError } from '../../../src/core/errors.ts'
import type { StoredRecord } from '../../../src/core/queue.ts'
import type { Codecs } from './codecs.ts'
import { crc32c } from './crc32c.ts'
import { ATTRIBUTES_AT, BATCH_OVERHEAD, CODEC_MASK, CONTROL, CRC_AT, MAGIC } from './record-batch.ts'

/** base offset and length: what must be there to know where a batch ends */
const PREFIX = 12
/** more than any producer writes; foreign ones' batches are read too, and what is in them takes far more memory than bytes */
const MAX_RECORDS = 1_000_000
const MAX_HEADERS = 10_000
/** the timestamp of every record is the batch's last: the broker's own clock */
const LOG_APPEND_TIME = 0x08

/** Kafka's record batches as a fetch brings them: whole ones, but for the last, which may be cut. */
export class RecordReader {
  readonly #bytes: Buffer
  readonly #codecs: Codecs
  readonly #from: bigint
  readonly #to: bigint
  #at = 0

  /** @param to exclusive */
  constructor(bytes: Buffer, codecs: Codecs, from: bigint, to: bigint) {
    this.#bytes = bytes
    this.#codecs = codecs
    this.#from = from
    this.#to = to
  }

  /**
   * The next records, about `maxBytes` of them: whole batches, whose bytes the records are views of. Null at the end.
   * @throws MILLRACE_RECORD_INVALID where a batch is not what its checksum says, or of a format before 2
   */
  async next(maxBytes: number): Promise<readonly StoredRecord[] | null> {
    const records: StoredRecord[] = []
    let taken = 0
    while (taken < maxBytes) {
      const end = batchEnd(this.#bytes, this.#at)
      if (end === null) break
      const start = this.#at
      this.#at = end
      const attributes = checked(this.#bytes, start, end)
      // a batch with a transaction's marker holds nothing for anybody
      if (attributes & CONTROL || lastOffset(this.#bytes, start) < this.#from || this.#bytes.readBigInt64BE(start) >= this.#to)
        continue
      const codec = attributes & CODEC_MASK
      const plain = this.#bytes.subarray(start + BATCH_OVERHEAD, end)
      try {
        const content = codec === 0 ? plain : await this.#codecs.decompress(codec, plain)
        readRecords(content, this.#bytes, start, attributes, this.#from, this.#to, records)
        taken += content.length
      } catch (error) {
        // what a length or a codec found beyond the bytes that there are
        throw error instanceof MillraceError ? error : invalid(this.#bytes, start, 'cannot be read', error)
      }
    }
    return records.length > 0 ? records : null
  }
}

/**
 * The offset after the last whole batch of a fetch from the given one, or null when there is none.
 * @throws MILLRACE_RECORD_INVALID where it is none beyond: the checksum does not cover a batch's place, and the same would be
 * fetched for ever
 */
export function offsetAfter(bytes: Buffer, from = -1n): bigint | null {
  let next: bigint | null = null
  let last = 0
  let at = 0
  for (let end = batchEnd(bytes, at); end !== null; end = batchEnd(bytes, at)) {
    if (end - at < BATCH_OVERHEAD) throw invalid(bytes, at, 'is too short to be one')
    next = lastOffset(bytes, at) + 1n
    last = at
    at = end
  }
  if (next !== null && next <= from) throw invalid(bytes, last, `ends before the offset ${from}, which was asked for`)
  return next
}

function batchEnd(bytes: Buffer, at: number): number | null {
  if (at + PREFIX > bytes.length) return null
  const end = at + PREFIX + bytes.readInt32BE(at + 8)
  return end > at + PREFIX && end <= bytes.length ? end : null
}

/** The batch's own last offset: compaction may have taken the record that had it. */
function lastOffset(bytes: Buffer, start: number): bigint {
  return bytes.readBigInt64BE(start) + BigInt(bytes.readInt32BE(start + 23))
}

function checked(bytes: Buffer, start: number, end: number): number {
  if (end - start < BATCH_OVERHEAD || bytes[start + 16] !== MAGIC)
    throw invalid(bytes, start, `is of format ${bytes[start + 16]}, expected ${MAGIC}`)
  if (crc32c(bytes, start + ATTRIBUTES_AT, end) !== bytes.readUInt32BE(start + CRC_AT))
    throw invalid(bytes, start, 'is not what its checksum says')
  return bytes.readInt16BE(start + ATTRIBUTES_AT)
}

function invalid(bytes: Buffer, start: number, what: string, cause?: unknown): MillraceError {
  const offset = bytes.readBigInt64BE(start)
  return new MillraceError('MILLRACE_RECORD_INVALID', `the record batch at offset ${offset} ${what}`, {
    ...(cause !== undefined && { cause }),
    fields: { offset: String(offset) },
    remedy: 'the broker’s log or the network is damaged: verify the log with kafka-dump-log.sh --deep-iteration',
  })
}

/** Where a varint ended, beside its value: two results without an object for each. */
let cursor = 0

function readRecords(
  content: Buffer,
  batch: Buffer,
  start: number,
  attributes: number,
  from: bigint,
  to: bigint,
  records: StoredRecord[],
): void {
  const base = batch.readBigInt64BE(start)
  const firstTime = Number(batch.readBigInt64BE(start + 27))
  const lastTime = Number(batch.readBigInt64BE(start + 35))
  const count = batch.readInt32BE(start + 57)
  if (count > MAX_RECORDS) throw invalid(batch, start, `says that it holds ${count} records`)
  cursor = 0
  for (let i = 0; i < count; i++) {
    const size = varint(content)
    const end = cursor + size
    if (!(size > 0 && end <= content.length)) throw invalid(batch, start, 'holds a record that does not end within it')
    cursor++ // attributes: none are defined
    const timeDelta = varint(content)
    const offset = base + BigInt(varint(content))
    if (offset >= to) return
    if (offset < from) {
      cursor = end
      continue
    }
    const key = field(content)
    const value = field(content)
    const headerCount = varint(content)
    // lengths may lie, and a number of headers is a promise of memory: each has two bytes at least
    if (!(headerCount >= 0 && headerCount <= (end - cursor) / 2 && headerCount <= MAX_HEADERS))
      throw invalid(batch, start, 'holds a record with more headers than it has room for')
    const headers: [string, Uint8Array][] = []
    for (let h = 0; h < headerCount; h++) {
      const name = headerName(content)
      headers.push([name, field(content) ?? EMPTY])
    }
    if (cursor !== end) throw invalid(batch, start, 'holds a record of another length than it says')
    records.push({ offset, timestamp: attributes & LOG_APPEND_TIME ? lastTime : firstTime + timeDelta, key, value, headers })
  }
}

const EMPTY = new Uint8Array(0)

/** zigzag; exact up to 2^53, which bounds every length, offset delta and time delta in ms */
function varint(bytes: Uint8Array): number {
  let byte = bytes[cursor++] as number
  if (byte < 128) return byte & 1 ? -(byte + 1) / 2 : byte / 2
  let value = byte & 127
  let scale = 128
  do {
    byte = bytes[cursor++] as number
    value += (byte & 127) * scale
    scale *= 128
  } while (byte > 127)
  return value % 2 === 1 ? -(value + 1) / 2 : value / 2
}

function field(bytes: Buffer): Uint8Array | null {
  const length = varint(bytes)
  if (length < 0) return null
  cursor += length
  return new Uint8Array(bytes.buffer, bytes.byteOffset + cursor - length, length)
}

/** Names repeat from record to record: by length, the last one seen, which is compared byte by byte. */
const seen: string[] = []

function headerName(bytes: Buffer): string {
  const length = varint(bytes)
  const start = cursor
  cursor += length
  const known = seen[length]
  if (known !== undefined) {
    let i = 0
    while (i < length && known.charCodeAt(i) === bytes[start + i]) i++
    if (i === length) return known
  }
  const name = bytes.toString('utf8', start, start + length)
  // for what is not ASCII the lengths differ, and the comparison is not one
  if (length < 64 && name.length === length) seen[length] = name
  return name
}
