import { openSync, writeSync } from 'node:fs'
import { MillraceError } from '../../../src/core/errors.ts'
import type { FuzzResult, FuzzTask } from './fuzz.ts'
import { dice, mutate } from './mutate.ts'
import { TARGETS } from './targets.ts'

/** Runs cases until the time is over, or the one case that it was given; which one is under way stands in the file. */
async function run({ target, corpus, seed, ms, only, progress }: FuzzTask): Promise<FuzzResult> {
  const read = TARGETS[target]
  const file = openSync(progress, 'w')
  const ends = performance.now() + ms
  let cases = 0
  let refused = 0
  for (let index = only ?? 0; only === null ? performance.now() < ends : index === only; index++) {
    writeSync(file, String(index), 0)
    const bytes = mutate(corpus, dice(seed + index))
    try {
      await read(bytes)
    } catch (error) {
      if (!(error instanceof MillraceError))
        return { error: (error as Error).stack ?? String(error), bytes: bytes.toString('hex', 0, 1_000) }
      refused++
    }
    cases++
  }
  return { cases, refused }
}

process.once('message', async (task: FuzzTask) => {
  process.send?.(await run(task), () => process.exit())
})
