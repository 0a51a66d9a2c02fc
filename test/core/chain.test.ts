import { expect, test } from 'vitest'
import { type Chain, decodeBeginning, encodeBeginning, linkOf, staysFounding, UNFOUNDED } from '../../src/core/chain.ts'
import type { Event } from '../../src/core/event.ts'
import { position } from '../../src/core/position.ts'

const at = (n: number) => position(1, BigInt(n), 1)
const event = (n: number, prev: number | null) => ({ position: at(n), prev: prev === null ? null : at(prev) }) as Event
const standing = (n: number, founding = false): Chain => ({ at: at(n), founding })

test('an event follows only the one that was applied last: equal, not merely older', () => {
  expect(linkOf(standing(3), event(5, 3), false)).toBe('next')
  expect(linkOf(standing(3), event(5, 4), false)).toBe('gap')
  expect(linkOf(standing(3), event(5, 2), false)).toBe('gap')
  expect(linkOf(standing(3), event(5, null), false)).toBe('gap')
})

test('what is not newer than what was applied is stale, wherever it claims to stand', () => {
  expect(linkOf(standing(3), event(3, 2), false)).toBe('stale')
  expect(linkOf(standing(3, true), event(2, null), false)).toBe('stale')
})

test("a sink's first record founds its chain", () => {
  expect(linkOf(UNFOUNDED, event(5, 4), false)).toBe('founding')
})

test('a log that is read from its very first record holds the beginning of each chain: what follows something is a gap there', () => {
  expect(linkOf(UNFOUNDED, event(5, null), true)).toBe('founding')
  expect(linkOf(UNFOUNDED, event(5, 4), true)).toBe('gap')
})

test('a chain that began in the midst of a log may have met a stale run: it begins anew until an event stands beyond the end it saw', () => {
  const beginning = { until: 10n, founding: new Set<string>() }
  expect(staysFounding(UNFOUNDED, 9n, beginning)).toBe(true)
  expect(linkOf(standing(3, true), event(7, 6), false)).toBe('founding')
  expect(staysFounding(standing(3, true), 9n, beginning)).toBe(true)
  expect(staysFounding(standing(3, true), 10n, beginning)).toBe(false)
  expect(staysFounding(UNFOUNDED, 10n, beginning)).toBe(false)
  expect(staysFounding(standing(3), 9n, beginning)).toBe(false)
})

test('how a sink began to read is kept as text', () => {
  const beginning = { until: 9007199254740993n, founding: new Set(['shop', 'b', 'a']) }
  expect(decodeBeginning(encodeBeginning(beginning))).toEqual({ until: beginning.until, founding: new Set(['a', 'b', 'shop']) })
})
