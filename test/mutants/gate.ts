import { isSimulation, type Mutant, nameOf } from './mutant.ts'
import { simulateBug } from './simulated.ts'
import { runTests, type Verdict } from './tests.ts'
import { copyWorkingTree, type WorkingCopy } from './working-copy.ts'

export interface Judged {
  readonly mutant: Mutant
  /** what its catcher found with the bug in place; anything but a failure fails the gate */
  readonly verdict: Verdict
  readonly seconds: number
}

export interface GateOptions {
  readonly mutants: readonly Mutant[]
  readonly workers: number
  readonly simulationSeconds: number
  readonly say: (line: string) => void
  readonly signal: AbortSignal
}

/**
 * Plants each bug in turn and has its catcher run: only a failure of that very catcher counts, and only one that finds
 * nothing in the tree as it is.
 */
export async function judge(options: GateOptions): Promise<readonly Judged[]> {
  const { mutants, say, signal } = options
  const copies: WorkingCopy[] = []
  try {
    copies.push(await copyWorkingTree())
    const sound = await testVerdicts(copies[0] as WorkingCopy, options)
    while (copies.length < Math.min(options.workers, mutants.length)) copies.push(await copyWorkingTree())
    const judged: Judged[] = []
    const waiting = [...mutants]
    await Promise.all(
      copies.map(async (copy) => {
        for (let mutant = waiting.shift(); mutant !== undefined && !signal.aborted; mutant = waiting.shift()) {
          const one = await judgeOne(copy, mutant, sound, options)
          judged.push(one)
          say(`${one.verdict.found === 'failure' ? 'caught' : 'NOT CAUGHT'} in ${one.seconds.toFixed(1)} s: ${mutant.bug}`)
        }
      }),
    )
    return mutants.flatMap((mutant) => judged.filter((one) => one.mutant === mutant))
  } finally {
    for (const copy of copies) await copy.remove()
  }
}

/** What each test says of the tree as it is, by its name. */
async function testVerdicts({ folder }: WorkingCopy, { mutants, say }: GateOptions): Promise<ReadonlyMap<string, Verdict>> {
  const tests = mutants.flatMap(({ caughtBy }) => (isSimulation(caughtBy) ? [] : [caughtBy]))
  if (tests.length === 0) return new Map()
  const verdicts = await runTests(folder, tests)
  for (const [name, verdict] of verdicts) if (verdict.found !== 'nothing') say(`red without any bug: ${name}\n${verdict.what}`)
  return verdicts
}

async function judgeOne(
  copy: WorkingCopy,
  mutant: Mutant,
  sound: ReadonlyMap<string, Verdict>,
  { simulationSeconds, say }: GateOptions,
): Promise<Judged> {
  const began = performance.now()
  const { caughtBy } = mutant
  const judging = async (): Promise<Verdict> => {
    if (isSimulation(caughtBy)) return simulateBug(copy, mutant, caughtBy, { seconds: simulationSeconds, say })
    const name = nameOf(caughtBy)
    if (sound.get(name)?.found !== 'nothing') return { found: 'breakage', what: 'its test is red without the bug' }
    return copy.withBug(mutant, async () => (await runTests(copy.folder, [caughtBy])).get(name) as Verdict)
  }
  const verdict = await judging().catch((error: unknown): Verdict => ({ found: 'breakage', what: String(error) }))
  return { mutant, verdict, seconds: (performance.now() - began) / 1_000 }
}
