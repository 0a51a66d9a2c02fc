import fc from 'fast-check'
import { expect, test } from 'vitest'
import { backoff } from '../../src/core/backoff.ts'

const limits = { base: 100, cap: 10_000 }
const attempt = fc.integer({ min: 1, max: 10_000 })
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

test('the wait doubles up to the cap, and half of it is left to chance', () => {
  const [least, most] = [() => 0, () => 0.999_999]
  expect([1, 2, 3, 7, 8, 100].map((n) => backoff(n, least))).toEqual([50, 100, 200, 3_200, 5_000, 5_000])
  expect([1, 2, 3, 7, 8, 100].map((n) => backoff(n, most))).toEqual([100, 200, 400, 6_400, 10_000, 10_000])
})

test('it is never nothing, and never more than the cap', () => {
  fc.assert(
    fc.property(attempt, random, (n, chance) => {
      const wait = backoff(n, () => chance, limits)
      expect(Number.isInteger(wait)).toBe(true)
      expect(wait).toBeGreaterThanOrEqual(limits.base / 2)
      expect(wait).toBeLessThanOrEqual(limits.cap)
    }),
  )
})
