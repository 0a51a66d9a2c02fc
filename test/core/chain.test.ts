import { expect, test } from 'vitest'
import { type Chain, linkOf } from '../../src/core/chain.ts'
import type { Event } from '../../src/core/event.ts'
import { position } from '../../src/core/position.ts'

const at = (n: number) => position(1, BigInt(n), 1)
const event = (n: number, prev: number | null) => ({ position: at(n), prev: prev === null ? null : at(prev) }) as Event
const standing = (n: number, foundingUntil: bigint | null = null): Chain => ({ at: at(n), foundingUntil, whole: false })

test('an event follows only the one that was applied last: equal, not merely older', () => {
  expect(linkOf(standing(3), event(5, 3), 9n)).toBe('next')
  expect(linkOf(standing(3), event(5, 4), 9n)).toBe('gap')
  expect(linkOf(standing(3), event(5, 2), 9n)).toBe('gap')
  expect(linkOf(standing(3), event(5, null), 9n)).toBe('gap')
})

test('what is not newer than what was applied is stale, wherever it claims to stand', () => {
  expect(linkOf(standing(3), event(3, 2), 9n)).toBe('stale')
  expect(linkOf(standing(3), event(2, null), 9n)).toBe('stale')
})

test("a sink's first record founds its chain", () => {
  expect(linkOf({ at: null, foundingUntil: null, whole: false }, event(5, 4), 9n)).toBe('founding')
})

test('a log that is read from its very first record holds the beginning of each chain: what follows something is a gap there', () => {
  const whole: Chain = { at: null, foundingUntil: null, whole: true }
  expect(linkOf(whole, event(5, null), 0n)).toBe('founding')
  expect(linkOf(whole, event(5, 4), 3n)).toBe('gap')
})

test('a chain that began in a trimmed log may have met a stale run: it is founded anew only below the end it saw', () => {
  expect(linkOf(standing(3, 10n), event(7, 6), 9n)).toBe('founding')
  expect(linkOf(standing(3, 10n), event(7, 6), 10n)).toBe('gap')
})
