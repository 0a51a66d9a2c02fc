import { STEPS, scheduleOf } from './schedule.ts'
import { shrink, tell } from './shrink.ts'
import { simulate } from './world.ts'

/** Seeds to try, until enough of them were or the time is over. */
export interface Campaign {
  readonly first: number
  readonly stride: number
  readonly count: number
  readonly seconds: number
  readonly steps: number
  /** stop at the first broken promise, and tell it as it is */
  readonly untilBroken: boolean
}

export type Found =
  | { readonly kind: 'failure'; readonly seed: number; readonly promise: string; readonly report: string }
  | {
      readonly kind: 'summary'
      readonly schedules: number
      readonly failed: number
      readonly halted: number
      readonly committed: number
      readonly faults: number
      readonly virtualMs: number
    }

const SHRINK_WITHIN = 30_000
/** one bug breaks many seeds: the first few tell enough */
const REPORTS = 3

export async function campaign(
  { first, stride, count, seconds, steps, untilBroken }: Campaign,
  report: (found: Found) => void,
): Promise<Extract<Found, { kind: 'summary' }>> {
  const until = performance.now() + seconds * 1_000
  let [schedules, failed, halted, committed, faults, virtualMs] = [0, 0, 0, 0, 0, 0]
  for (let i = 0; i < count && performance.now() < until; i++) {
    const seed = first + i * stride
    const outcome = await unmarked(() => simulate(scheduleOf(seed, steps)))
    schedules++
    committed += outcome.committed
    faults += outcome.faults
    virtualMs += outcome.virtualMs
    if (outcome.halts.length > 0) halted++
    if (outcome.violation === null) continue
    const { promise, message } = outcome.violation
    if (untilBroken) {
      failed++
      report({ kind: 'failure', seed, promise, report: `seed ${seed} breaks ${promise}: ${message}` })
      break
    }
    if (++failed <= REPORTS) report({ kind: 'failure', seed, promise, report: await reportOf(seed, steps, promise) })
  }
  return { kind: 'summary', schedules, failed, halted, committed, faults, virtualMs }
}

/** A fifth of the time would go into the stacks of errors that nobody reads. */
async function unmarked<T>(work: () => Promise<T>): Promise<T> {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return await work()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

/** the seed, the shortest schedule found in words, and how to see it again */
export async function reportOf(seed: number, steps: number, promise: string): Promise<string> {
  const shortest = await shrink(scheduleOf(seed, steps), promise, SHRINK_WITHIN)
  const { outcome, lines } = await tell(shortest)
  const keep = shortest.steps.map(({ number }) => number).join(',')
  return [
    `seed ${seed} breaks ${promise}: ${outcome.violation?.message}`,
    `the shortest schedule found, ${shortest.steps.length} of ${steps} steps:`,
    ...lines.map((line) => `  ${line}`),
    `as data, for broken.ts: ${JSON.stringify(shortest)}`,
    `again: npm run simulate -- --seed ${seed}${steps === STEPS ? '' : ` --steps ${steps}`} --keep ${keep}`,
    '',
  ].join('\n')
}
