import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { evidencePage } from './evidence-page.ts'
import type { PostgresVersion, QueueKind, Row, Run } from './row.ts'
import { findRows, type Outcome, runRow } from './run-rows.ts'
import { heldBefore, keep } from './sitting.ts'
import { openStage, type Stage } from './stage.ts'

const USAGE = `npm run faults -- [options]     the fault matrix (PROTOCOL 2.7) on real services

  --rows 1,2,4        only these rows
  --postgres 15,18    only these versions
  --queue kafka,local only these queues
  --seed N            of the first run of each row; a run's seed is printed when it fails
  --rounds N          so many times the faults (default 1)
  --all               Postgres 15 over the embedded queue too, where it runs over Kafka anyway
  --jobs N            so many rows at once, each on services of its own (default 2: much of the time is waiting)
  --minutes N         begin no run after so many; the page says what was left out
  --short             the form that npm test runs
  --sitting FILE      keep what became of each run there, and do not repeat what held in an earlier sitting
  --write             write docs/evidence.md, which a run of everything does by itself`

const ALL_QUEUES = 'kafka,local'
const { values } = parseArgs({
  options: {
    rows: { type: 'string' },
    postgres: { type: 'string', default: '15,18' },
    queue: { type: 'string', default: ALL_QUEUES },
    all: { type: 'boolean', default: false },
    jobs: { type: 'string', default: '2' },
    seed: { type: 'string' },
    rounds: { type: 'string', default: '1' },
    short: { type: 'boolean', default: false },
    sitting: { type: 'string' },
    minutes: { type: 'string' },
    write: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(`${USAGE}\n`)
  process.exit(0)
}

const wanted = values.rows?.split(',')
const versions = values.postgres.split(',').map(Number) as PostgresVersion[]
const queues = values.queue.split(',') as QueueKind[]
const seed = values.seed === undefined ? Math.floor(Math.random() * 1e6) : Number(values.seed)
const whole = wanted === undefined && versions.length === 2 && queues.length === 2 && !values.short
const began = new Date()

const stages = Array.from({ length: Number(values.jobs) }, openStage)
let interrupted = false
const closeStages = (): Promise<unknown> => Promise.all(stages.map((stage) => stage.close()))
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    interrupted = true
    void closeStages().finally(() => process.exit(130))
  })

/** Over the embedded queue the older Postgres adds little to what it shows over Kafka. */
const isSpared = (row: Row, run: Run): boolean =>
  !values.all &&
  values.queue === ALL_QUEUES &&
  run.postgres === 15 &&
  run.queue === 'local' &&
  row.runs.some((other) => other.postgres === 15 && other.queue === 'kafka')

const rows = await findRows()
const held = values.sitting === undefined ? [] : await heldBefore(values.sitting, rows)
const waiting = rows
  .filter((row) => wanted === undefined || wanted.includes(row.row))
  .flatMap((row) =>
    row.runs
      .filter((run) => versions.includes(run.postgres) && queues.includes(run.queue) && !isSpared(row, run))
      .filter((run) => !held.some((one) => one.row === row && one.postgres === run.postgres && one.queue === run.queue))
      .map((run) => ({ row, run })),
  )
// where a row runs over both queues, Kafka comes first: what a limit leaves out is then said twice rather than not at all
const isSecond = ({ row, run }: { readonly row: Row; readonly run: Run }): boolean =>
  run.queue === 'local' && row.runs.some(({ queue }) => queue === 'kafka')
waiting.sort((a, b) => Number(isSecond(a)) - Number(isSecond(b)))
const count = held.length + waiting.length
const isOver = (): boolean =>
  interrupted || Date.now() - began.getTime() > Number(values.minutes ?? Number.POSITIVE_INFINITY) * 60_000
const outcomes: Outcome[] = [...held]
if (held.length > 0) process.stdout.write(`${held.length} runs held in an earlier sitting\n`)

async function work(stage: Stage): Promise<void> {
  for (let next = waiting.shift(); next !== undefined && !isOver(); next = waiting.shift()) {
    const { row, run } = next
    const lines: string[] = []
    const say = (text: string): void => void lines.push(`    ${text}\n`)
    const outcome = await runRow(row, run, stage, { seed, short: values.short, rounds: Number(values.rounds), say })
    outcomes.push(outcome)
    if (values.sitting !== undefined) await keep(values.sitting, outcome)
    const { injected, events, duplicates, seconds } = outcome.evidence
    if (outcome.failure === null)
      say(`held: ${injected} faults, ${events} events, ${duplicates} duplicates in the topic, ${seconds} s`)
    else {
      say(`FAILED after ${injected} faults, ${seconds} s: ${outcome.failure.message}`)
      say(`again: npm run faults -- --rows ${row.row} --postgres ${run.postgres} --queue ${run.queue} --seed ${seed}`)
    }
    process.stdout.write(
      `${outcomes.length}/${count} row ${row.row} (${row.fault}: ${row.when}) · Postgres ${run.postgres}, ${run.queue}\n${lines.join('')}`,
    )
  }
}

try {
  await Promise.all(stages.map(work))
} finally {
  await closeStages()
}
const places = new Map(rows.map((row, place) => [row, place]))
outcomes.sort((a, b) => (places.get(a.row) ?? 0) - (places.get(b.row) ?? 0) || a.postgres - b.postgres)

const failed = outcomes.filter(({ failure }) => failure !== null)
const injected = outcomes.reduce((sum, { evidence }) => sum + evidence.injected, 0)
const minutes = Math.round((Date.now() - began.getTime()) / 6_000) / 10
process.stdout.write(`${outcomes.length} runs, ${injected} faults, ${failed.length} failed, ${minutes} minutes, seed ${seed}\n`)
if (values.write || (whole && !interrupted)) {
  const folder = join(import.meta.dirname, '../../../docs')
  await mkdir(folder, { recursive: true })
  await writeFile(
    join(folder, 'evidence.md'),
    await evidencePage({
      outcomes,
      postgres: [...new Set(stages.flatMap((stage) => stage.versions()))].sort(),
      began,
      seed,
      leftOut: count - outcomes.length,
      args: process.argv.slice(2),
    }),
  )
}
process.exit(outcomes.length === 0 || failed.length > 0 ? 1 : 0)
