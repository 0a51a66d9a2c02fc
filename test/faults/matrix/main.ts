import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { evidencePage } from './evidence-page.ts'
import type { PostgresVersion, QueueKind } from './row.ts'
import { findRows, type Outcome, runRow } from './run-rows.ts'
import { openStage } from './stage.ts'

const USAGE = `npm run faults -- [options]     the fault matrix (PROTOCOL 2.7) on real services

  --rows 1,2,4        only these rows
  --postgres 15,18    only these versions
  --queue kafka,local only these queues
  --seed N            of the first run of each row; a run's seed is printed when it fails
  --rounds N          so many times the faults (default 1)
  --short             the form that npm test runs
  --write             write docs/evidence.md, which a run of everything does by itself`

const { values } = parseArgs({
  options: {
    rows: { type: 'string' },
    postgres: { type: 'string', default: '15,18' },
    queue: { type: 'string', default: 'kafka,local' },
    seed: { type: 'string' },
    rounds: { type: 'string', default: '1' },
    short: { type: 'boolean', default: false },
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

const stage = openStage()
let interrupted = false
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    interrupted = true
    void stage.close().finally(() => process.exit(130))
  })

const outcomes: Outcome[] = []
try {
  for (const row of await findRows()) {
    if (wanted !== undefined && !wanted.includes(row.row)) continue
    for (const run of row.runs) {
      if (interrupted || !versions.includes(run.postgres) || !queues.includes(run.queue)) continue
      const name = `row ${row.row} (${row.fault}, ${row.when}) · Postgres ${run.postgres}, ${run.queue}`
      process.stdout.write(`${name}\n`)
      const say = (text: string): void => void process.stdout.write(`    ${text}\n`)
      const outcome = await runRow(row, run, stage, { seed, short: values.short, rounds: Number(values.rounds), say })
      outcomes.push(outcome)
      const { injected, events, duplicates, seconds } = outcome.evidence
      if (outcome.failure === null)
        say(`held: ${injected} faults, ${events} events, ${duplicates} duplicates in the topic, ${seconds} s`)
      else {
        say(`FAILED after ${injected} faults, ${seconds} s: ${outcome.failure.stack}`)
        say(`again: npm run faults -- --rows ${row.row} --postgres ${run.postgres} --queue ${run.queue} --seed ${seed}`)
      }
    }
  }
} finally {
  await stage.close()
}

const failed = outcomes.filter(({ failure }) => failure !== null)
const injected = outcomes.reduce((sum, { evidence }) => sum + evidence.injected, 0)
const minutes = Math.round((Date.now() - began.getTime()) / 6_000) / 10
process.stdout.write(`${outcomes.length} runs, ${injected} faults, ${failed.length} failed, ${minutes} minutes, seed ${seed}\n`)
if (values.write || whole) {
  const folder = join(import.meta.dirname, '../../../docs')
  await mkdir(folder, { recursive: true })
  await writeFile(
    join(folder, 'evidence.md'),
    await evidencePage({ outcomes, postgres: stage.versions(), began, seed, minutes, args: process.argv.slice(2) }),
  )
}
process.exit(outcomes.length === 0 || failed.length > 0 ? 1 : 0)
