import { expect, test } from 'vitest'
import type { Clock } from '../../src/core/clock.ts'
import { MillraceError } from '../../src/core/errors.ts'
import { insisted } from '../../src/pipeline/doubt.ts'

/** time that passes only by waiting */
function idleClock(): Clock {
  let at = 0
  return {
    now: () => at,
    elapsed: () => at,
    async wait(ms) {
      at += ms
    },
  }
}
const never = new AbortController().signal
const missing = new MillraceError('MILLRACE_QUEUE_LOST_END', 'gone')

test('what the queue lacks is asked again until it is there', async () => {
  let asked = 0
  const answer = await insisted(
    async () => {
      if (++asked < 4) throw missing
      return 'found'
    },
    idleClock(),
    never,
  )
  expect([answer, asked]).toEqual(['found', 4])
})

test('it is believed once it has said so for four seconds', async () => {
  const clock = idleClock()
  await expect(insisted(() => Promise.reject(missing), clock, never)).rejects.toBe(missing)
  expect(clock.elapsed()).toBeGreaterThanOrEqual(4_000)
  expect(clock.elapsed()).toBeLessThan(5_000)
})

test('any other failure is not asked about twice, and a stop ends the asking', async () => {
  const clock = idleClock()
  const other = new MillraceError('MILLRACE_QUEUE_UNREACHABLE', 'down')
  await expect(insisted(() => Promise.reject(other), clock, never)).rejects.toBe(other)
  await expect(insisted(() => Promise.reject(missing), clock, AbortSignal.abort())).rejects.toBe(missing)
  expect(clock.elapsed()).toBe(0)
})
