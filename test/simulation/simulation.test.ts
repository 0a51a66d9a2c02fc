import { describe, expect, onTestFinished, test } from 'vitest'
import { BROKEN } from './broken.ts'
import { campaign } from './campaign.ts'
import { STEPS, scheduleOf } from './schedule.ts'
import { shrink, tell } from './shrink.ts'
import { simulate } from './world.ts'

/** s; `npm run simulate -- --seconds 600` looks further */
const FRESH = process.env['CI'] === 'true' ? 60 : 10

describe('the simulation', () => {
  test.each(BROKEN)('keeps every promise where once $what', async ({ schedule }) => {
    const { outcome, lines } = await tell(schedule)
    expect(outcome.violation === null ? '' : lines.join('\n')).toBe('')
  })

  test('fresh seeds keep every promise', { timeout: (FRESH + 60) * 1_000 }, async () => {
    const first = Date.now() % 1_000_000_000
    const reports: string[] = []
    const { schedules } = await campaign(
      { first, stride: 1, count: 1_000_000, seconds: FRESH, steps: STEPS, untilBroken: false },
      (found) => {
        if (found.kind === 'failure') reports.push(found.report)
      },
    )
    console.log(`simulated ${schedules} schedules, seeds from ${first} on`)
    expect(reports.join('\n')).toBe('')
    expect(schedules).toBeGreaterThan(10)
  })

  test('a seed is the same schedule with the same course, always', async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const first = await simulate(scheduleOf(seed), { trace: true })
      const again = await simulate(scheduleOf(seed))
      expect(again.hash).toBe(first.hash)
      expect(again.virtualMs).toBe(first.virtualMs)
    }
    expect((await simulate(scheduleOf(6))).hash).not.toBe((await simulate(scheduleOf(7))).hash)
  })

  test('nothing but virtual time passes: no timer and no wall clock of Node', async () => {
    const real = { Date: globalThis.Date, setTimeout: globalThis.setTimeout, random: Math.random }
    onTestFinished(() => {
      globalThis.Date = real.Date
      globalThis.setTimeout = real.setTimeout
      Math.random = real.random
    })
    const schedules = [11, 12, 13].map((seed) => scheduleOf(seed))
    const forbidden = (): never => {
      throw new Error('the simulated path must not ask for this')
    }
    globalThis.Date = new Proxy(real.Date, {
      construct: forbidden,
      get: (of, key) => (key === 'now' ? forbidden : Reflect.get(of, key)),
    })
    globalThis.setTimeout = forbidden as never
    Math.random = forbidden
    for (const schedule of schedules) expect((await simulate(schedule)).violation).toBeNull()
  })

  test('a broken promise is told by its shortest schedule', async () => {
    const { setup, steps: own } = scheduleOf(1, 40)
    const sabotage = { number: 99, at: own[20]?.at ?? 0, action: { kind: 'sabotage' } } as const
    const schedule = { setup, steps: [...own.slice(0, 20), sabotage, ...own.slice(20)] }
    const { violation } = await simulate(schedule)
    expect(violation?.promise).toBe('I4')
    const shortest = await shrink(schedule, 'I4', 20_000)
    expect(shortest.steps.map(({ number }) => number)).toEqual([99])
  })
})
