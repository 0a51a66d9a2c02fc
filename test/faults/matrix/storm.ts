import { setTimeout as wait } from 'node:timers/promises'
import type { RowContext } from './row.ts'

/**
 * Does what it is given again and again for so many seconds, each at moments of its own, `every` ms apart at least and
 * twice that at most. A fault that throws ends the storm.
 */
export async function storm(
  ctx: Pick<RowContext, 'random'>,
  seconds: number,
  faults: readonly { readonly every: number; readonly strike: () => Promise<void> | void }[],
): Promise<void> {
  const until = performance.now() + seconds * 1_000
  await Promise.all(
    faults.map(async ({ every, strike }) => {
      for (;;) {
        await wait(every * (1 + ctx.random()))
        if (performance.now() >= until) return
        await strike()
      }
    }),
  )
}
