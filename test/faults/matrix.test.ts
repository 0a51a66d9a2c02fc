import { afterAll, expect, test } from 'vitest'
import { requires } from '../support/requires.ts'
import type { QueueKind, Row } from './matrix/row.ts'
import { findRows, runRow } from './matrix/run-rows.ts'
import { openStage } from './matrix/stage.ts'

/** The short form of the rows that every change has to pass (PROTOCOL 2.7); `npm run faults` runs them all, in full. */
const SHORT = new Set(['1', '2', '4', '9', '12'])

const stage = openStage()
afterAll(() => stage.close())

const rows = (await findRows()).filter(({ row }) => SHORT.has(row))

/** one run of each row: over the embedded queue where it applies, which needs nothing but Postgres */
const queueOf = ({ runs }: Row): QueueKind => (runs.some(({ queue }) => queue === 'local') ? 'local' : 'kafka')

function holds(over: readonly Row[], queue: QueueKind): void {
  for (const row of over)
    if (row.runs.some((run) => run.postgres === 18))
      test(`row ${row.row}: ${row.fault}: ${row.when}`, { timeout: 240_000 }, async () => {
        const seed = Math.floor(Math.random() * 1e6)
        const outcome = await runRow(row, { postgres: 18, queue }, stage, { seed, short: true, rounds: 1, say: () => {} })
        expect(outcome.failure, `seed ${seed}`).toBeNull()
        expect(outcome.evidence.injected).toBeGreaterThan(0)
      })
}

holds(
  rows.filter((row) => queueOf(row) === 'local'),
  'local',
)

requires('kafka', 'java')('over Kafka', () =>
  holds(
    rows.filter((row) => row.row === '1' || queueOf(row) === 'kafka'),
    'kafka',
  ),
)
