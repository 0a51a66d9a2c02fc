/** A value that JSON cannot say, and where it stands: `.items[2].price`. */
export interface Unsayable {
  readonly path: string
  readonly problem: string
}

export type JsonText = { readonly text: string } | Unsayable

/** deeper than any payload is meant to be; also how a value that holds itself is found */
const MAX_DEPTH = 512

/**
 * A payload as JSON. What `JSON.stringify` would change or drop without a word is told instead: NaN, functions, holes in
 * arrays, a Map, a promise that nobody awaited. Properties that are `undefined` are absent, as they are everywhere.
 */
export function jsonText(value: unknown): JsonText {
  const found = unsayable(value, '', 0)
  if (found !== null) return found
  return { text: JSON.stringify(value) }
}

function unsayable(value: unknown, key: string, depth: number): Unsayable | null {
  switch (typeof value) {
    case 'string': {
      const problem = textProblem(value)
      return problem === null ? null : at(problem)
    }
    case 'boolean':
      return null
    case 'number':
      return Number.isFinite(value) ? null : at(`is ${value}, which JSON does not have`)
    case 'bigint':
      // some programs teach BigInt to become JSON
      if (hasToJson(value)) return unsayable(value.toJSON(key), key, depth + 1)
      return at('is a bigint: write it as a string, or pass the JSON as payloadText')
    case 'object':
      break
    default:
      return at(`is ${typeof value === 'undefined' ? 'undefined' : `a ${typeof value}`}, which JSON does not have`)
  }
  if (value === null) return null
  if (depth > MAX_DEPTH) return at(`lies deeper than ${MAX_DEPTH} levels, or holds itself`)
  if (hasToJson(value)) {
    const said = value.toJSON(key)
    if (said === null && value instanceof Date) return at('is an invalid Date')
    return unsayable(said, key, depth + 1)
  }
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const found = unsayable(value[index], String(index), depth + 1)
      if (found !== null) return { ...found, path: `[${index}]${found.path}` }
    }
    return null
  }
  if (Object.getPrototypeOf(value) !== Object.prototype) {
    const lossy = ArrayBuffer.isView(value) || LOSSY.some((kind) => value instanceof kind)
    if (lossy) return at(`is a ${value.constructor.name}, whose contents JSON would not have`)
  }
  for (const name of Object.keys(value)) {
    const property = (value as Readonly<Record<string, unknown>>)[name]
    if (property === undefined) continue
    const problem = textProblem(name)
    const found = problem === null ? unsayable(property, name, depth + 1) : at(problem)
    if (found !== null) return { ...found, path: `${propertyPath(name)}${found.path}` }
  }
  return null
}

const LOSSY = [Map, Set, Promise, RegExp, Error, ArrayBuffer]

const at = (problem: string): Unsayable => ({ path: '', problem })

/** What the `json` type takes, escaped, and `text` and `jsonb` refuse: it would pass the outbox and stop at the replica. */
export function textProblem(text: string): string | null {
  if (text.includes('\0')) return 'holds the character U+0000, which no text in Postgres can'
  return text.isWellFormed() ? null : 'holds half of a surrogate pair: it was cut in the middle of a character'
}

function hasToJson(value: unknown): value is { toJSON(key: string): unknown } {
  return typeof (value as { toJSON?: unknown }).toJSON === 'function'
}

/** `.name`, or `["a name"]` where it is none. */
export function propertyPath(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`
}
