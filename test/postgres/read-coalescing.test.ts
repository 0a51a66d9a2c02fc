import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { ReadCoalescing } from '../../src/postgres/read-coalescing.ts'

let time: number
let rests: boolean[]
let coalescing: ReadCoalescing
beforeEach(() => {
  vi.useFakeTimers()
  time = 1_000
  rests = []
  coalescing = new ReadCoalescing((resting) => rests.push(resting), { now: () => time })
})
afterEach(() => void vi.useRealTimers())

/** one turn of the event loop that began `gap` ms after the last and brought `events` of `bytes` */
async function turn(gap: number, { events = 1, bytes = 1_000 } = {}): Promise<void> {
  time += gap
  for (let i = 0; i < events; i++) coalescing.read(bytes)
  await vi.advanceTimersByTimeAsync(0)
}

test('after 64 turns without a wait reading rests for 4 ms, and rests again at once while the streak holds', async () => {
  for (let i = 0; i < 64; i++) await turn(0.1)
  expect(rests).toEqual([])
  await turn(0.1)
  expect(rests).toEqual([true])
  await vi.advanceTimersByTimeAsync(3)
  expect(rests).toEqual([true])
  await vi.advanceTimersByTimeAsync(1)
  expect(rests).toEqual([true, false])
  await turn(0.1)
  expect(rests).toEqual([true, false, true])
})

test('a wait breaks the streak', async () => {
  for (let i = 0; i < 200; i++) await turn(i % 50 === 0 ? 0.4 : 0.1)
  expect(rests).toEqual([])
})

test('many events of one turn, as over TLS, are one', async () => {
  await turn(0.1, { events: 500 })
  await turn(0.1, { events: 500 })
  expect(rests).toEqual([])
  for (let i = 0; i < 63; i++) await turn(0.1, { events: 500 })
  expect(rests).toEqual([true])
})

test('turns that bring a megabyte need no rest', async () => {
  for (let i = 0; i < 200; i++) await turn(0.1, { events: 20, bytes: 64 << 10 })
  expect(rests).toEqual([])
})

test('stopped in its rest it does not read again', async () => {
  for (let i = 0; i < 65; i++) await turn(0.1)
  coalescing.stop()
  await vi.advanceTimersByTimeAsync(100)
  expect(rests).toEqual([true])
})
