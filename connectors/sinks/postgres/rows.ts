/**
 * Rows as one JSON text, from slices of payloads as they were written: `[{"p":…,"o":…,"k":…,"0":…},…]`. Postgres turns
 * it into typed columns.
 */
export interface RowWriter {
  readonly count: number
  /** begins a row; `name` and `text` are written as they are and must be plain ASCII without quotes and backslashes */
  begin(name: string, text: string): void
  /** the same, within the row */
  plain(name: string, text: string): void
  /** any text, as a JSON string */
  text(name: string, text: string): void
  /** a JSON value, as it stands in the bytes */
  slice(name: string, bytes: Uint8Array, start: number, end: number): void
  end(): void
  /** the whole text; the writer is empty again */
  take(): Buffer
}

const FIRST = 64 * 1024
/** from so many bytes on a native copy is faster than a loop */
const NATIVE_COPY = 40

export function rowWriter(): RowWriter {
  let buffer = Buffer.allocUnsafe(FIRST)
  let length = 0
  let count = 0

  function reserve(bytes: number): void {
    if (length + bytes <= buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, length + bytes))
    buffer.copy(larger, 0, 0, length)
    buffer = larger
  }

  function ascii(text: string): void {
    for (let index = 0; index < text.length; index++) buffer[length++] = text.charCodeAt(index)
  }

  function quoted(name: string, text: string): void {
    reserve(name.length + text.length + 8)
    ascii('"')
    ascii(name)
    ascii('":"')
    ascii(text)
    ascii('"')
  }

  return {
    get count() {
      return count
    },
    begin(name, text) {
      reserve(2)
      ascii(count === 0 ? '[{' : ',{')
      quoted(name, text)
    },
    plain(name, text) {
      reserve(1)
      ascii(',')
      quoted(name, text)
    },
    text(name, text) {
      const json = JSON.stringify(text)
      reserve(name.length + json.length * 3 + 8)
      ascii(',"')
      ascii(name)
      ascii('":')
      length += buffer.write(json, length)
    },
    slice(name, bytes, start, end) {
      const size = end - start
      reserve(name.length + size + 8)
      ascii(',"')
      ascii(name)
      ascii('":')
      if (size < NATIVE_COPY) for (let at = start; at < end; at++) buffer[length++] = bytes[at] as number
      else {
        buffer.set(bytes.subarray(start, end), length)
        length += size
      }
    },
    end() {
      reserve(1)
      ascii('}')
      count++
    },
    take() {
      reserve(2)
      if (count === 0) ascii('[')
      ascii(']')
      const taken = buffer.subarray(0, length)
      buffer = Buffer.allocUnsafe(Math.max(FIRST, length))
      length = 0
      count = 0
      return taken
    },
  }
}
