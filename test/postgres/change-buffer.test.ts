import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Change } from '../../src/core/change.ts'
import { ChangeBuffer } from '../../src/postgres/change-buffer.ts'

const change = (id: number, bytes = 10): Change => ({ id: String(id), bytes }) as Change
const ALL = { maxChanges: 1_000, maxBytes: 1_000_000 }

test('an end is given out with the last change before it, never sooner', () => {
  const buffer = new ChangeBuffer()
  for (const id of [1, 2, 3]) buffer.add(change(id))
  buffer.complete(100n)
  buffer.add(change(4))
  expect(buffer.take({ maxChanges: 2, maxBytes: 1_000 }).end).toBeNull()
  expect(buffer.take({ maxChanges: 1, maxBytes: 1_000 }).end).toBe(100n)
  expect(buffer.take(ALL)).toMatchObject({ changes: [{ id: '4' }], end: null })
  buffer.complete(200n)
  buffer.complete(210n)
  expect(buffer.endWaiting).toBe('of changes')
  expect(buffer.take(ALL)).toEqual({ changes: [], bytes: 0, end: 210n })
  expect(buffer.endWaiting).toBeNull()
  buffer.complete(220n)
  expect(buffer.endWaiting).toBe('of a keepalive')
})

test('an end that does not advance is not news', () => {
  const buffer = new ChangeBuffer()
  buffer.complete(100n)
  buffer.take(ALL)
  buffer.complete(100n)
  buffer.complete(90n)
  expect(buffer.endWaiting).toBeNull()
})

test('ends without changes between them are one', () => {
  const buffer = new ChangeBuffer()
  for (let lsn = 1n; lsn <= 1_000n; lsn++) buffer.complete(lsn)
  expect(buffer.take(ALL).end).toBe(1_000n)
})

test('a batch keeps to its limits, and gives one change however large', () => {
  const buffer = new ChangeBuffer()
  buffer.add(change(1, 5_000))
  buffer.add(change(2, 10))
  buffer.add(change(3, 10))
  expect(buffer.take({ maxChanges: 10, maxBytes: 100 })).toMatchObject({ changes: [{ id: '1' }], bytes: 5_000 })
  expect(buffer.bytes).toBe(20)
})

test('whatever is added and however it is taken: everything comes once, in order, and no end is ahead of its changes', () => {
  const step = fc.oneof(
    fc.record({ add: fc.nat(100) }),
    fc.constant({ end: true }),
    fc.record({ maxChanges: fc.integer({ min: 1, max: 5 }), maxBytes: fc.nat(200) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const buffer = new ChangeBuffer()
      let added = 0
      let lsn = 0n
      const behind = new Map<bigint, number>()
      const got: string[] = []
      const check = ({ changes, bytes, end }: ReturnType<ChangeBuffer['take']>): void => {
        got.push(...changes.map(({ id }) => id))
        expect(bytes).toBe(changes.reduce((sum, each) => sum + each.bytes, 0))
        if (end !== null) expect(behind.get(end)).toBeLessThanOrEqual(got.length)
      }
      for (const each of steps) {
        if ('add' in each) buffer.add(change(++added, each.add))
        else if ('end' in each) {
          buffer.complete(++lsn)
          behind.set(lsn, added)
        } else check(buffer.take(each))
      }
      check(buffer.take(ALL))
      expect(got).toEqual(Array.from({ length: added }, (_, i) => String(i + 1)))
      expect(buffer.bytes).toBe(0)
    }),
  )
})
