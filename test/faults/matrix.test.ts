import { afterAll, expect, test } from 'vitest'
import { requires } from '../support/requires.ts'
import type { QueueKind } from './matrix/row.ts'
import { findRows, runRow } from './matrix/run-rows.ts'
import { openStage } from './matrix/stage.ts'

/** What every change has to pass, in its short form; `npm run faults` runs all rows, in full, over all that there is. */
const SHORT: Readonly<Record<QueueKind, readonly (readonly [row: string, fault: RegExp])[]>> = {
  local: [
    ['1', /^kill -9 of the relay/],
    ['2', /^kill -9 of the source Postgres/],
    ['9', /^kill -9 of the applier/],
    ['9', /^the sink's connection is cut/],
    ['12', /^the slot is dropped and made again/],
  ],
  kafka: [
    ['1', /^kill -9 of the relay/],
    ['3', /^kill -9 of the only broker/],
    ['4', /^the answer to a produce request is lost/],
  ],
}

const stage = openStage()
afterAll(() => stage.close())
const rows = await findRows()

function hold(queue: QueueKind): void {
  for (const [number, fault] of SHORT[queue]) {
    const row = rows.find((each) => each.row === number && fault.test(each.fault))
    test(`row ${number}: ${row?.fault}: ${row?.when}`, { timeout: 240_000 }, async () => {
      if (row === undefined) throw new Error(`there is no row ${number} of ${fault}`)
      const seed = Math.floor(Math.random() * 1e6)
      const outcome = await runRow(row, { postgres: 18, queue }, stage, { seed, short: true, rounds: 1, say: () => {} })
      expect(outcome.failure, `seed ${seed}`).toBeNull()
      expect(outcome.evidence.injected).toBeGreaterThan(0)
    })
  }
}

hold('local')
requires('kafka', 'java')('over Kafka', () => hold('kafka'))
