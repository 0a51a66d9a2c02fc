import assert from 'node:assert/strict'

/** Deeply and by type; bytes are equal whoever holds them (a Buffer is a Uint8Array). */
export function equal(actual: unknown, expected: unknown, what?: string): void {
  assert.deepEqual(comparable(actual), comparable(expected), what)
}

/** What must hold of a part: a property's value (deeply), or what a predicate says of it. */
export type Shape = Readonly<Record<string, unknown>>

export function matches(actual: unknown, shape: Shape): void {
  for (const [name, expected] of Object.entries(shape)) {
    const found = (actual as Readonly<Record<string, unknown>> | null | undefined)?.[name]
    if (typeof expected === 'function') assert.ok(expected(found), `${name} is ${String(found)}`)
    else assert.deepEqual(comparable(found), comparable(expected), `${name} is ${String(found)}, not ${String(expected)}`)
  }
}

/** @returns what it rejected with */
export async function rejects(promise: Promise<unknown>, shape: Shape): Promise<unknown> {
  const outcome = await promise.then(
    () => null,
    (caught: unknown) => ({ caught }),
  )
  assert.ok(outcome !== null, `it resolved, and should have been refused with ${JSON.stringify(shape)}`)
  if ((outcome.caught as { code?: unknown }).code !== shape['code'] && shape['code'] !== undefined) throw outcome.caught
  matches(outcome.caught, shape)
  return outcome.caught
}

function comparable(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('latin1')
  if (Array.isArray(value)) return value.map(comparable)
  if (value instanceof Map) return new Map([...value].map(([key, one]) => [key, comparable(one)]))
  if (value === null || typeof value !== 'object' || value instanceof Date || value instanceof Set) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, comparable(one)]))
}
