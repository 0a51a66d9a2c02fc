import type { Schedule, Step } from './schedule.ts'
import { type Outcome, simulate } from './world.ts'

/**
 * The shortest schedule found that breaks the same promise: steps are left out by halves, quarters, … one by one, then
 * rows of transactions, for as long as it still does. What is random has a row of dice for each label, so most of what
 * remains happens as before.
 */
export async function shrink(schedule: Schedule, promise: string, withinMs: number): Promise<Schedule> {
  const until = performance.now() + withinMs
  let shortest = schedule
  const breaks = async (steps: readonly Step[]): Promise<boolean> => {
    const candidate = { ...shortest, steps }
    if ((await simulate(candidate)).violation?.promise !== promise) return false
    shortest = candidate
    return true
  }
  for (let size = Math.ceil(schedule.steps.length / 2); size >= 1 && performance.now() < until; ) {
    let left = false
    for (let at = 0; at < shortest.steps.length && performance.now() < until; ) {
      if (await breaks([...shortest.steps.slice(0, at), ...shortest.steps.slice(at + size)])) left = true
      else at += size
    }
    if (size === 1 && !left) break
    size = size === 1 ? 1 : Math.ceil(size / 2)
  }
  for (let at = 0; at < shortest.steps.length; at++)
    for (let row = 0; performance.now() < until; ) {
      const step = shortest.steps[at] as Step
      const { action } = step
      if (action.kind !== 'transaction' || action.rows.length < 2 || row >= action.rows.length) break
      const fewer = { ...step, action: { ...action, rows: action.rows.filter((_, i) => i !== row) } }
      if (!(await breaks(shortest.steps.with(at, fewer)))) row++
    }
  return shortest
}

/** A failed schedule in lines that a person can follow. */
export async function tell(schedule: Schedule): Promise<{ readonly outcome: Outcome; readonly lines: readonly string[] }> {
  const outcome = await simulate(schedule, { trace: true })
  return { outcome, lines: outcome.trace }
}
