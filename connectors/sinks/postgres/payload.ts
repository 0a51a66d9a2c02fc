/**
 * Finds the values of given paths in a JSON object, as the bytes they are written in. Nothing is turned into a
 * JavaScript value: Postgres makes typed columns of these bytes, and a number keeps every digit (DESIGN invariant 7).
 * The whole text is proved to be JSON on the way (RFC 8259), so that a slice can stand in another JSON text; whether
 * its bytes are valid UTF-8 and its escapes mean characters is left to Postgres. Of a key that stands twice the last
 * value holds, as in Postgres.
 */
export interface PayloadReader {
  /**
   * Two numbers per path, in the order the paths were given: start and end of its value in the bytes; start is -1 where it is
   * absent, which is something else than JSON null. Valid until the next read.
   * @throws SyntaxError saying what was expected at which byte; never quoting the text
   */
  read(bytes: Uint8Array): Int32Array
  /** the top-level keys of the last text that no path begins with and that are not passed over */
  readonly unknown: readonly string[]
  /** from now on the key is no unknown one; after the first hundred no key is */
  passOver(key: string): void
}

const MAX_PASSED_OVER = 100

/** how deep a payload may nest; Postgres has a limit of the same kind */
const MAX_DEPTH = 500

interface Field {
  readonly key: Uint8Array
  readonly name: string
  /** the index of the path that ends here; -1: none */
  readonly slot: number
  readonly fields: readonly Field[]
  /** every slot at or below */
  readonly slots: readonly number[]
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const NO_FIELDS: readonly Field[] = []

export function payloadReader(paths: readonly (readonly string[])[]): PayloadReader {
  const fields = [...fieldsOf(paths.map((path, slot) => ({ path, slot })))]
  let passedOver = 0
  const slots = new Int32Array(paths.length * 2)
  const unknown: string[] = []
  let text: Uint8Array = new Uint8Array(0)
  let at = 0

  function fail(expected: string): never {
    throw new SyntaxError(`expected ${expected} at byte ${at}`)
  }

  function skipSpace(): void {
    for (; at < text.length; at++) {
      const byte = text[at]
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return
    }
  }

  /** past the closing quote; tells whether an escape was seen */
  function string(): boolean {
    // the inner loop of all: on locals it runs twice as fast
    const bytes = text
    const length = bytes.length
    let escaped = false
    let next = at + 1
    for (; next < length; next++) {
      const byte = bytes[next] as number
      if (byte === QUOTE) {
        at = next + 1
        return escaped
      }
      if (byte < 0x20) break
      if (byte !== BACKSLASH) continue
      escaped = true
      next = escapeAt(next + 1)
    }
    at = next
    return fail(next < length ? 'an escaped control character' : 'the end of a string')
  }

  /** `start` is after the backslash; returns the last byte of the escape */
  function escapeAt(start: number): number {
    at = start
    const byte = text[start]
    if (byte === undefined || !ESCAPES.has(byte)) fail('an escape')
    if (byte !== 0x75) return start
    for (let left = 4; left > 0; left--) if (!isHex(text[++at])) fail('four hex digits')
    return at
  }

  function digits(): void {
    if (!isDigit(text[at])) fail('a digit')
    while (isDigit(text[at])) at++
  }

  function number(): void {
    if (text[at] === 0x2d) at++
    if (text[at] === 0x30) at++
    else digits()
    if (text[at] === 0x2e) {
      at++
      digits()
    }
    if (text[at] === 0x65 || text[at] === 0x45) {
      at++
      if (text[at] === 0x2b || text[at] === 0x2d) at++
      digits()
    }
  }

  function word(letters: string): void {
    for (let index = 0; index < letters.length; index++, at++) if (text[at] !== letters.charCodeAt(index)) fail(letters)
  }

  function value(known: readonly Field[], depth: number): void {
    if (depth > MAX_DEPTH) fail(`at most ${MAX_DEPTH} levels`)
    switch (text[at]) {
      case QUOTE:
        string()
        return
      case OPEN_OBJECT:
        object(known, depth)
        return
      case OPEN_ARRAY:
        array(depth)
        return
      case 0x74:
        return word('true')
      case 0x66:
        return word('false')
      case 0x6e:
        return word('null')
      default:
        number()
    }
  }

  function array(depth: number): void {
    at++
    skipSpace()
    if (text[at] === CLOSE_ARRAY) {
      at++
      return
    }
    for (;;) {
      skipSpace()
      value(NO_FIELDS, depth + 1)
      skipSpace()
      if (text[at] === CLOSE_ARRAY) {
        at++
        return
      }
      if (text[at] !== COMMA) fail('a comma or the end of an array')
      at++
    }
  }

  function object(known: readonly Field[], depth: number): void {
    at++
    skipSpace()
    if (text[at] === CLOSE_OBJECT) {
      at++
      return
    }
    let hint = 0
    for (;;) {
      skipSpace()
      if (text[at] !== QUOTE) fail('a key')
      const keyStart = at
      const escaped = string()
      const found = known.length === 0 ? -1 : escaped ? decoded(known, keyStart) : plain(known, keyStart, hint)
      if (found === -1 && depth === 1 && passedOver < MAX_PASSED_OVER) unknown.push(key(keyStart))
      const field = found === -1 ? undefined : (known[found] as Field)
      if (field !== undefined) {
        hint = found + 1
        for (const slot of field.slots) slots[slot * 2] = -1
      }
      skipSpace()
      if (text[at] !== COLON) fail('a colon')
      at++
      skipSpace()
      const start = at
      value(field?.fields ?? NO_FIELDS, depth + 1)
      if (field !== undefined && field.slot !== -1) {
        slots[field.slot * 2] = start
        slots[field.slot * 2 + 1] = at
      }
      skipSpace()
      if (text[at] === CLOSE_OBJECT) {
        at++
        return
      }
      if (text[at] !== COMMA) fail('a comma or the end of an object')
      at++
    }
  }

  /** keys mostly come in one order: the field after the last one found is tried first */
  function plain(known: readonly Field[], keyStart: number, hint: number): number {
    const bytes = text
    const start = keyStart + 1
    const length = at - 1 - start
    for (let tried = 0, index = hint; tried < known.length; tried++, index++) {
      if (index >= known.length) index = 0
      const candidate = (known[index] as Field).key
      if (candidate.length !== length) continue
      let same = 0
      while (same < length && candidate[same] === bytes[start + same]) same++
      if (same === length) return index
    }
    return -1
  }

  function decoded(known: readonly Field[], keyStart: number): number {
    const name = key(keyStart)
    return known.findIndex((field) => field.name === name)
  }

  /** the key that has just been passed; JSON.parse of one string that is known to be one */
  function key(keyStart: number): string {
    return JSON.parse(decoder.decode(text.subarray(keyStart, at))) as string
  }

  return {
    unknown,
    passOver(name) {
      if (passedOver++ < MAX_PASSED_OVER) fields.push({ name, key: encoder.encode(name), slot: -1, fields: [], slots: [] })
    },
    read(bytes) {
      text = bytes
      at = 0
      unknown.length = 0
      slots.fill(-1)
      skipSpace()
      if (text[at] !== OPEN_OBJECT) fail('a JSON object')
      object(fields, 1)
      skipSpace()
      if (at < text.length) fail('nothing more')
      return slots
    },
  }
}

const decoder = new TextDecoder()
const encoder = new TextEncoder()
const ESCAPES = new Set([...'"\\/bfnrtu'].map((character) => character.charCodeAt(0)))

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39
}

function isHex(byte: number | undefined): boolean {
  return isDigit(byte) || (byte !== undefined && ((byte >= 0x61 && byte <= 0x66) || (byte >= 0x41 && byte <= 0x46)))
}

interface Entry {
  readonly path: readonly string[]
  readonly slot: number
}

function fieldsOf(entries: readonly Entry[]): readonly Field[] {
  const byName = new Map<string, Entry[]>()
  for (const { path, slot } of entries) {
    const [first, ...rest] = path as [string, ...string[]]
    byName.set(first, [...(byName.get(first) ?? []), { path: rest, slot }])
  }
  return [...byName].map(([name, below]) => {
    const ending = below.filter(({ path }) => path.length === 0)
    const fields = fieldsOf(below.filter(({ path }) => path.length > 0))
    return {
      name,
      key: encoder.encode(name),
      slot: ending[0]?.slot ?? -1,
      fields,
      slots: below.map(({ slot }) => slot),
    }
  })
}
