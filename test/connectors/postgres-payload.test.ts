import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { payloadReader } from '../../connectors/sinks/postgres/payload.ts'

const PATHS = [['id'], ['total'], ['address', 'city'], ['address'], ['__proto__'], ['é"\\'], ['a', 'b', 'c']]

function valuesOf(text: string | Uint8Array): (string | null)[] {
  const bytes = Buffer.from(text)
  const slots = payloadReader(PATHS).read(bytes)
  return PATHS.map((_, slot) => (slots[slot * 2] === -1 ? null : bytes.toString('utf8', slots[slot * 2], slots[slot * 2 + 1])))
}

/** what JSON.parse finds at a path: undefined where it is absent */
function expected(value: unknown, path: readonly string[]): unknown {
  let at = value
  for (const name of path) {
    if (typeof at !== 'object' || at === null || Array.isArray(at) || !Object.hasOwn(at, name)) return undefined
    at = (at as Record<string, unknown>)[name]
  }
  return at
}

describe('the payload reader', () => {
  it('gives values as they were written, digits, spaces and escapes included', () => {
    const text =
      ' {"total" : 1.10 ,\n"id":9007199254740993,"address":{ "city":"\\u0041\\n", "zip":[1,{}] }, "\\u00e9\\"\\\\": 1e400 } '
    expect(valuesOf(text)).toEqual([
      '9007199254740993',
      '1.10',
      '"\\u0041\\n"',
      '{ "city":"\\u0041\\n", "zip":[1,{}] }',
      null,
      '1e400',
      null,
    ])
  })

  it('tells what is absent from what is null', () => {
    expect(valuesOf('{"id":null,"address":null}').slice(0, 4)).toEqual(['null', null, null, 'null'])
  })

  it('takes the last value of a key that stands twice, as Postgres does', () => {
    expect(valuesOf('{"id":1,"address":{"city":"x"},"\\u0069d":2,"address":{}}').slice(0, 4)).toEqual(['2', null, null, '{}'])
  })

  it('says which top-level fields no path takes, until they are passed over', () => {
    const reader = payloadReader([['id']])
    reader.read(Buffer.from('{"x":{"y":1},"id":1,"\\u007a":2}'))
    expect(reader.unknown).toEqual(['x', 'z'])
    reader.passOver('x')
    reader.read(Buffer.from('{"x":1}'))
    expect(reader.unknown).toEqual([])
  })

  it('takes exactly the texts that JSON.parse takes, and finds what it finds', () => {
    const name = fc.constantFrom('id', 'total', 'address', 'city', '__proto__', 'é"\\', 'a', 'b', 'c', 'x', 'constructor')
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof({ maxDepth: 4 }, fc.jsonValue({ maxDepth: 1 }), fc.array(tie('value'), { maxLength: 3 }), tie('object')),
      object: fc.dictionary(name, tie('value'), { maxKeys: 6, noNullPrototype: true }),
    }))
    const spaced = fc
      .tuple(value, fc.constantFrom(undefined, 1, '\t\r\n'))
      .map(([json, space]) => JSON.stringify(json, null, space))
    const damage = fc.tuple(
      fc.nat(),
      fc.constantFrom('', '"', '\\', '{', '}', ',', ':', '0', '-', '.', 'e', '\\u00', '\u0001', ' ', '[', ']', 'null'),
    )
    const damaged = fc.tuple(spaced, fc.array(damage, { maxLength: 2 })).map(([text, edits]) =>
      edits.reduce((damaged, [place, insert]) => {
        const at = place % (damaged.length + 1)
        return damaged.slice(0, at) + insert + damaged.slice(insert === '' ? at + 1 : at)
      }, text),
    )
    fc.assert(
      fc.property(damaged, (text) => {
        let parsed: unknown
        try {
          parsed = JSON.parse(text)
        } catch {
          expect(() => valuesOf(text)).toThrow(SyntaxError)
          return
        }
        if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
          expect(() => valuesOf(text)).toThrow('expected a JSON object')
          return
        }
        const found = valuesOf(text).map((slice) => (slice === null ? undefined : JSON.parse(slice)))
        expect(found).toEqual(PATHS.map((path) => expected(parsed, path)))
      }),
      { numRuns: 1_000 },
    )
  })

  it('refuses what nests deeper than it may, and survives it', () => {
    expect(() => valuesOf(`{"id":${'['.repeat(100_000)}`)).toThrow('at most 500 levels')
  })

  it('never quotes the text in its errors', () => {
    expect(() => valuesOf('{"id": secret')).toThrow(/^expected .* at byte 7$/)
  })
})
