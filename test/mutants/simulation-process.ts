import { scheduleOf } from '../simulation/schedule.ts'
import { simulate } from '../simulation/world.ts'

/**
 * The schedules of so many seeds from the first on (only those with an action of the kind, when one is given), until the time
 * is over: exit code 0 when every promise was kept, else 1, with the first that was not as JSON. Any other end is the
 * simulation's own.
 */
const [first, count, seconds, having] = process.argv.slice(2)
const until = performance.now() + Number(seconds) * 1_000
for (let seed = Number(first); seed < Number(first) + Number(count) && performance.now() < until; seed++) {
  const schedule = scheduleOf(seed)
  if (having && !schedule.steps.some(({ action }) => action.kind === having)) continue
  const { violation } = await simulate(schedule)
  if (violation === null) continue
  process.stdout.write(`${JSON.stringify({ seed, promise: violation.promise, message: violation.message })}\n`)
  process.exitCode = 1
  break
}
