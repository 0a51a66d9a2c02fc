import { afterAll, expect, test } from 'vitest'
import type { QueueKind } from './row.ts'
import { findRows, runRow } from './run-rows.ts'
import { openStage } from './stage.ts'

/** Tests that rows hold in their short form, each named by its number and the beginning of its fault. */
export async function holdShort(queue: QueueKind, wanted: readonly (readonly [row: string, fault: string])[]): Promise<void> {
  const stage = openStage()
  afterAll(() => stage.close())
  const rows = await findRows()
  for (const [number, fault] of wanted) {
    const row = rows.find((each) => each.row === number && each.fault.startsWith(fault))
    if (row === undefined) throw new Error(`there is no row ${number} of ${fault}`)
    test(`row ${number}: ${row.fault}: ${row.when}`, { timeout: 240_000 }, async () => {
      const seed = Math.floor(Math.random() * 1e6)
      const outcome = await runRow(row, { postgres: 18, queue }, stage, { seed, short: true, rounds: 1, say: () => {} })
      expect(outcome.failure, `seed ${seed}`).toBeNull()
      expect(outcome.evidence.injected).toBeGreaterThan(0)
    })
  }
}
