import { MillraceError } from '../core/errors.ts'

/**
 * What one frame may occupy. Postgres' own limit is 1 GiB; nothing that a queue could take comes near this one, and
 * beyond it the length bytes are more likely damaged than true.
 */
export const MAX_FRAME_BYTES = 256 * 1024 * 1024

const COPY_DATA = 0x64

export interface FrameHandler {
  /** the content of a CopyData frame: `buffer[start..end)`, a view that is only lent for the call unless a slice is kept */
  copyData(buffer: Buffer, start: number, end: number): void
  /** the content of any other backend message; `type` is its first byte */
  message(type: number, buffer: Buffer, start: number, end: number): void
}

/**
 * Cuts a stream of backend messages (a type byte, a length of four bytes that counts itself, the content) into
 * frames. Whole frames are handed on in place; only the partial last one of a chunk is carried, and what is kept for it
 * is what has arrived, never what its length promises.
 *
 * @see https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
export class FrameReader {
  private readonly handler: FrameHandler
  private readonly maxFrameBytes: number
  private carried: Buffer[] = []
  private carriedBytes = 0
  /** the whole length of the carried frame, type byte included; 0 while its header is not complete */
  private wanted = 0

  constructor(handler: FrameHandler, maxFrameBytes = MAX_FRAME_BYTES) {
    this.handler = handler
    this.maxFrameBytes = maxFrameBytes
  }

  /** @throws MILLRACE_STREAM_INVALID for a length that cannot be true; the stream is over then */
  push(chunk: Buffer): void {
    let offset = 0
    if (this.carriedBytes > 0) {
      offset = this.complete(chunk)
      if (this.carriedBytes > 0) return
    }
    const end = chunk.length
    while (end - offset >= 5) {
      const length = this.frameLength(chunk, offset)
      if (length > end - offset) {
        this.wanted = length
        break
      }
      this.emit(chunk, offset, length)
      offset += length
    }
    if (offset < end) {
      const rest = chunk.subarray(offset)
      this.carried.push(rest)
      this.carriedBytes = rest.length
    }
  }

  /** Adds to the carried frame what it still wants; @returns how much of the chunk that took. */
  private complete(chunk: Buffer): number {
    let taken = 0
    if (this.wanted === 0) {
      const missing = Math.min(5 - this.carriedBytes, chunk.length)
      this.carry(chunk.subarray(0, missing))
      taken = missing
      if (this.carriedBytes < 5) return taken
      this.wanted = this.frameLength(Buffer.concat(this.carried), 0)
    }
    const part = chunk.subarray(taken, taken + this.wanted - this.carriedBytes)
    this.carry(part)
    taken += part.length
    if (this.carriedBytes < this.wanted) return taken
    const frame = Buffer.concat(this.carried, this.carriedBytes)
    this.carried = []
    this.carriedBytes = 0
    this.wanted = 0
    this.emit(frame, 0, frame.length)
    return taken
  }

  private carry(part: Buffer): void {
    if (part.length === 0) return
    this.carried.push(part)
    this.carriedBytes += part.length
  }

  private frameLength(buffer: Buffer, offset: number): number {
    const length = buffer.readUInt32BE(offset + 1) + 1
    if (length < 5 || length > this.maxFrameBytes)
      throw new MillraceError('MILLRACE_STREAM_INVALID', `a frame of the replication stream says it has ${length} bytes`, {
        remedy: `frames of 5 to ${this.maxFrameBytes} bytes are read; a larger outbox row cannot be relayed`,
        fields: { bytes: length },
      })
    return length
  }

  private emit(buffer: Buffer, offset: number, length: number): void {
    const type = buffer[offset] as number
    if (type === COPY_DATA) this.handler.copyData(buffer, offset + 5, offset + length)
    else this.handler.message(type, buffer, offset + 5, offset + length)
  }
}
