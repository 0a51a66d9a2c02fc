/**
 * Rows as one JSON text, from slices of payloads as they were written: `[{"p":…,"o":…,"k":…,"0":…},…]`. Postgres turns
 * it into typed columns.
 */
export interface RowWriter {
  readonly count: number
  /** begins a row with its position and its operation, a letter */
  begin(position: string, operation: string): void
  text(field: FieldName, text: string): void
  /** UTF-8, as a JSON string */
  utf8(field: FieldName, bytes: Uint8Array): void
  /** a JSON value, as it stands in the bytes */
  slice(field: FieldName, bytes: Uint8Array, start: number, end: number): void
  end(): void
  /** the whole text; the writer is used up */
  take(): Buffer
}

/** `,"name":` */
export type FieldName = Uint8Array & { readonly [fieldName]: true }
declare const fieldName: unique symbol

export function fieldNamed(name: string): FieldName {
  return Buffer.from(`,${JSON.stringify(name)}:`) as unknown as FieldName
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
/** from so many bytes on a native copy is faster than a loop */
const NATIVE_COPY = 48
/** what a row holds beside its fields */
const AROUND = 80

/** `expected`: how many bytes the rows will take, about */
export function rowWriter(expected: number): RowWriter {
  let buffer = Buffer.allocUnsafe(expected)
  let length = 0
  let count = 0

  function reserve(bytes: number): void {
    if (length + bytes <= buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, length + bytes))
    buffer.copy(larger, 0, 0, length)
    buffer = larger
  }

  function copy(bytes: Uint8Array, start: number, end: number): void {
    if (end - start < NATIVE_COPY) {
      const into = buffer
      let at = length
      for (let from = start; from < end; from++) into[at++] = bytes[from] as number
      length = at
    } else {
      buffer.set(bytes.subarray(start, end), length)
      length += end - start
    }
  }

  const writer: RowWriter = {
    get count() {
      return count
    },
    begin(position, operation) {
      reserve(AROUND)
      length += buffer.write(`${count === 0 ? '[' : ','}{"p":"${position}","o":"${operation}"`, length, 'latin1')
    },
    text(field, text) {
      const json = JSON.stringify(text)
      reserve(field.length + json.length * 3)
      copy(field, 0, field.length)
      length += buffer.write(json, length)
    },
    utf8(field, bytes) {
      if (!isPlain(bytes)) return writer.text(field, decoder.decode(bytes))
      reserve(field.length + bytes.length + 2)
      copy(field, 0, field.length)
      buffer[length++] = QUOTE
      copy(bytes, 0, bytes.length)
      buffer[length++] = QUOTE
    },
    slice(field, bytes, start, end) {
      reserve(field.length + end - start)
      copy(field, 0, field.length)
      copy(bytes, start, end)
    },
    end() {
      reserve(1)
      buffer[length++] = 0x7d
      count++
    },
    take() {
      reserve(2)
      length += buffer.write(count === 0 ? '[]' : ']', length)
      return buffer.subarray(0, length)
    },
  }
  return writer
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** nothing to escape, in ASCII */
function isPlain(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number
    if (byte < 0x20 || byte > 0x7e || byte === QUOTE || byte === BACKSLASH) return false
  }
  return true
}
