import { describe, inject, test } from 'vitest'
import type { Need } from './machine.ts'

/**
 * `describe` for a suite that needs something a machine may lack. Where it lacks it, the suite is skipped and listed at the
 * end of the run with the reason (`skipped-reporter.ts`); with `CI=true` it fails instead.
 *
 *     requires('kafka')('the relay over Kafka', () => { … })
 */
export function requires(...needs: readonly Need[]): (name: string, suite: () => void) => void {
  const machine = inject('machine')
  const lacking = needs.map((need) => machine[need]).filter((reason) => reason !== null)
  if (lacking.length === 0) return (name, suite) => describe(name, suite)
  const lacks = lacking.join('; ')
  if (!process.env['CI']) return (name, suite) => describe.skip(name, { meta: { lacks } }, suite)
  return (name) => {
    describe(name, () => {
      test('has what it requires', () => {
        throw new Error(`with CI set nothing is skipped, and this machine lacks: ${lacks}`)
      })
    })
  }
}

declare module 'vitest' {
  interface TaskMeta {
    lacks?: string
  }
}
