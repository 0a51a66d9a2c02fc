import { join } from 'node:path'
import type { Mutant, Simulation } from './mutant.ts'
import { runNode } from './run.ts'
import { BREAKAGE, breakage, type Verdict } from './tests.ts'
import type { WorkingCopy } from './working-copy.ts'

/** beyond the time it was given, for its last schedule (ms) */
const GRACE = 60_000

/**
 * Looks for a schedule that breaks a promise with the bug, and breaks none without it. One that is red without the bug says
 * nothing, and is passed over with a word.
 */
export async function simulateBug(
  copy: WorkingCopy,
  mutant: Mutant,
  catcher: Simulation,
  options: { readonly seconds: number; readonly say: (line: string) => void },
): Promise<Verdict> {
  const until = performance.now() + options.seconds * 1_000
  for (let first = 1; ; ) {
    const seconds = (until - performance.now()) / 1_000
    if (seconds <= 0) return { found: 'nothing' }
    const broken = await copy.withBug(mutant, () =>
      run(copy, [String(first), 'Infinity', String(seconds), catcher.having ?? ''], seconds),
    )
    if (!('seed' in broken)) return broken
    const without = await run(copy, [String(broken.seed), '1', String(options.seconds), ''], options.seconds)
    if (!('seed' in without)) return without.found === 'nothing' ? { found: 'failure', what: broken.what } : without
    options.say(`red without any bug: ${without.what}`)
    first = broken.seed + 1
  }
}

interface Broken {
  readonly seed: number
  readonly what: string
}

async function run({ folder }: WorkingCopy, args: readonly string[], seconds: number): Promise<Broken | Verdict> {
  const { code, said } = await runNode([join(folder, 'test/mutants/simulation-process.ts'), ...args], {
    cwd: folder,
    timeout: seconds * 1_000 + GRACE,
  })
  if (code === 0) return { found: 'nothing' }
  const line = said.split('\n').find((text) => text.startsWith('{"seed"'))
  if (code !== 1 || line === undefined) return breakage(code === null ? 'the simulation did not end' : said.slice(-2_000))
  const { seed, promise, message } = JSON.parse(line) as { seed: number; promise: string; message: string }
  const what = `${promise}, by the schedule of seed ${seed}: ${message}`
  return BREAKAGE.test(what) || what.includes('MILLRACE_INTERNAL') ? breakage(what) : { seed, what }
}
