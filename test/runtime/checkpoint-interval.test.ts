import { expect, onTestFinished, test } from 'vitest'
import type { Clock } from '../../src/core/clock.ts'
import type { Log } from '../../src/core/connector.ts'
import { MillraceError } from '../../src/core/errors.ts'
import type { StateStore } from '../../src/core/queue.ts'
import { stateKey } from '../../src/core/relay-state.ts'
import { encodeState } from '../../src/core/state-text.ts'
import { readCheckpoints } from '../../src/runtime/checkpoint.ts'
import { takeCheckpoints } from '../../src/runtime/checkpoint-interval.ts'
import { state } from '../core/stream.ts'

const HOUR = 3_600_000
const START = Date.parse('2026-11-21T10:00:00Z')

/** Hours pass as fast as the loop asks for the time, up to `until`. */
function world(until: number) {
  const values = new Map([[stateKey('shop', 4, 'w'), encodeState(state)]])
  const stopped = new AbortController()
  const warnings: string[] = []
  const log: Log = { debug() {}, info() {}, warn: (_, message) => void warnings.push(message), error() {}, child: () => log }
  let now = 0
  let failing = false
  let writes = 0
  const clock: Clock = {
    now: () => START + now,
    elapsed: () => now,
    async wait(ms) {
      now += ms
      if (now >= until) stopped.abort()
    },
  }
  const store: StateStore = {
    read: async (prefix) => new Map([...values].filter(([key]) => key.startsWith(prefix))),
    async write(key, value) {
      writes++
      if (failing) throw new MillraceError('MILLRACE_PUBLISH_UNKNOWN', 'the answer was lost')
      values.set(key, value)
    },
    remove: async (key) => void values.delete(key),
  }
  const begin = (more: { running?: () => boolean; every?: number; keep?: number } = {}): Promise<void> =>
    takeCheckpoints({
      state: store,
      source: 'shop',
      every: HOUR,
      keep: 24 * HOUR,
      running: () => true,
      log,
      clock,
      random: () => 0.5,
      signal: stopped.signal,
      ...more,
    })
  return {
    begin,
    warnings,
    clock,
    taken: async () => (await readCheckpoints(store, 'shop')).map(({ at }) => (at - START) / HOUR),
    writes: () => writes,
    fail(is: boolean) {
      failing = is
    },
    setBack(ms: number) {
      now -= ms
    },
    values,
    state: store,
  }
}

test('one an hour, for a day', async () => {
  const { begin, taken } = world(100.5 * HOUR)
  await begin()
  const hours = (await taken()).map(Math.round)
  expect(hours).toEqual(Array.from({ length: 25 }, (_, n) => 76 + n))
})

test('the interval goes on with the next relay, and a standby takes none', async () => {
  const { begin, taken, state, clock } = world(10 * HOUR)
  await begin({ running: () => clock.elapsed() < 2.5 * HOUR })
  expect(await taken()).toHaveLength(3)
  // a new relay, half an hour after the last one was taken
  const last = (await taken()).at(-1) as number
  const stopped = new AbortController()
  let now = START + (last + 0.5) * HOUR
  await takeCheckpoints({
    state,
    source: 'shop',
    every: HOUR,
    keep: 24 * HOUR,
    running: () => true,
    log: { debug() {}, info() {}, warn() {}, error() {}, child: () => expect.unreachable() },
    clock: {
      ...clock,
      now: () => now,
      elapsed: () => now,
      async wait(ms) {
        now += ms
        if (now > START + (last + 1.25) * HOUR) stopped.abort()
      },
    },
    random: () => 0.5,
    signal: stopped.signal,
  })
  expect((await taken()).map((hour) => hour - last)).toEqual([expect.any(Number), expect.any(Number), 0, 1])
})

test('what fails is tried again, at most once a minute, and told', async () => {
  const own = world(3 * HOUR)
  own.fail(true)
  onTestFinished(() => own.fail(false))
  await own.begin()
  expect(await own.taken()).toEqual([])
  expect(own.writes()).toBeGreaterThan(100)
  expect(own.writes()).toBeLessThan(250)
  expect(own.warnings[0]).toContain('could not be taken')
})

test('too large altogether, the oldest go before their time, and that is told', async () => {
  const own = world(10.5 * HOUR)
  const topics = new Map(
    Array.from({ length: 400 }, (_, n) => [
      `topic-${n}-${'x'.repeat(200)}`,
      Array(64).fill({ position: state.topics.get('outbox.event.order')?.[0]?.position, offset: 41n }),
    ]),
  )
  own.values.set(stateKey('shop', 5, 'w'), encodeState({ ...state, session: 5, topics }))
  await own.begin()
  expect((await own.taken()).length).toBeLessThan(8)
  expect((await own.taken()).length).toBeGreaterThan(1)
  expect(own.warnings.some((text) => text.includes('before its time'))).toBe(true)
})
