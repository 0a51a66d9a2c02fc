import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { type Campaign, campaign, type Found } from './campaign.ts'
import { STEPS, scheduleOf } from './schedule.ts'
import { tell } from './shrink.ts'

const USAGE = `npm run simulate -- [options]

  --seconds S      fresh schedules for so long (default: 60)
  --schedules N    so many schedules instead
  --seed N         the first seed; alone: this one schedule, told step by step
  --steps M        steps of each schedule (default: ${STEPS})
  --keep 3,7,12    with --seed: only these steps of it
  --first          stop at the first broken promise, and do not look for a shorter schedule
  --workers W      threads (default: 2)`

type Summary = Extract<Found, { kind: 'summary' }>

/**
 * schedules of one thread: Node keeps the listeners of signals that are never aborted, and a process that crashes aborts
 * nothing, so each schedule costs a third of a megabyte until its thread ends
 */
const PORTION = 1_500

if (isMainThread) process.exitCode = await main()
else parentPort?.postMessage(await campaign(workerData as Campaign, (found) => parentPort?.postMessage(found)))

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      steps: { type: 'string' },
      seconds: { type: 'string' },
      schedules: { type: 'string' },
      keep: { type: 'string' },
      workers: { type: 'string' },
      first: { type: 'boolean', default: false },
      help: { type: 'boolean' },
    },
  })
  if (values.help) {
    console.log(USAGE)
    return 0
  }
  const steps = Number(values.steps ?? STEPS)
  if (values.seed !== undefined && values.seconds === undefined && values.schedules === undefined)
    return replay(Number(values.seed), steps, values.keep?.split(',').map(Number))
  const seed = Number(values.seed ?? Date.now() % 1_000_000_000)
  const count = values.schedules === undefined ? Number.POSITIVE_INFINITY : Number(values.schedules)
  const seconds =
    values.schedules === undefined || values.seconds !== undefined ? Number(values.seconds ?? 60) : Number.POSITIVE_INFINITY
  const workers = Math.max(1, Number(values.workers ?? 2))
  return search({ first: seed, stride: workers, count, seconds, steps, untilBroken: values.first })
}

async function replay(seed: number, steps: number, keep: readonly number[] | undefined): Promise<number> {
  const whole = scheduleOf(seed, steps)
  const schedule = keep === undefined ? whole : { ...whole, steps: whole.steps.filter(({ number }) => keep.includes(number)) }
  const { outcome, lines } = await tell(schedule)
  for (const line of lines) console.log(line)
  const { violation, committed, halts } = outcome
  console.log(
    violation === null
      ? `seed ${seed}: every promise was kept: ${committed} events, ${halts.length} halts, each deserved`
      : `seed ${seed}: ${violation.promise} is broken: ${violation.message}`,
  )
  return violation === null ? 0 : 1
}

async function search(whole: Campaign): Promise<number> {
  const { first: seed, steps, stride: workers } = whole
  const began = performance.now()
  console.log(`seeds from ${seed} on, ${steps} steps each`)
  let failed = false
  const run = (data: Campaign): Promise<Summary> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: data })
      worker.on('error', reject)
      worker.on('message', (found: Found) => {
        if (found.kind === 'summary') return resolve(found)
        failed = true
        if (whole.untilBroken) {
          console.log(`${found.report}\nafter ${((performance.now() - began) / 1_000).toFixed(1)} s`)
          process.exit(1)
        }
        console.log(found.report)
      })
    })
  const left = (): number => whole.seconds - (performance.now() - began) / 1_000
  const results: Summary[] = []
  await Promise.all(
    Array.from({ length: workers }, async (_, i) => {
      let count = Math.ceil((whole.count - i) / workers)
      for (let first = seed + i; count > 0 && left() > 0; first += PORTION * workers, count -= PORTION)
        results.push(await run({ ...whole, first, count: Math.min(count, PORTION), seconds: left() }))
    }),
  )
  const sum = (of: (summary: Summary) => number): number => results.reduce((total, summary) => total + of(summary), 0)
  const schedules = sum((summary) => summary.schedules)
  const took = (performance.now() - began) / 1_000
  console.log(
    `${schedules} schedules in ${took.toFixed(1)} s (${Math.round((schedules / took) * 60)} a minute): ` +
      `${sum((s) => s.committed)} events, ${sum((s) => s.faults)} faults, ${(sum((s) => s.virtualMs) / 3_600_000).toFixed(1)} hours of virtual time, ` +
      `${sum((s) => s.halted)} schedules with deserved halts, ${sum((s) => s.failed)} broken promises`,
  )
  return failed ? 1 : 0
}
