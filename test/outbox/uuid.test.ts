import { expect, test } from 'vitest'
import { newId } from '../../src/outbox/uuid.ts'

const SHAPE = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const timeOf = (id: string): number => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)

test('ids grow within a millisecond, beyond its counter, and while the clock is set back', () => {
  const start = Date.now() + 1_000
  const times = [...Array.from({ length: 10_000 }, () => start), start + 1, start - 60_000, start + 2, start + 10]
  const ids = times.map((now) => newId(now))
  expect(ids.filter((id) => !SHAPE.test(id))).toEqual([])
  expect(ids).toEqual([...ids].sort())
  expect(new Set(ids).size).toBe(ids.length)
  expect([timeOf(ids[0] as string), timeOf(ids.at(-1) as string)]).toEqual([start, start + 10])
})
