import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { seededRandom } from '../workload.ts'
import type { Evidence, Row, RowContext, Run } from './row.ts'
import type { Stage } from './stage.ts'
import { openTrial, type Trial } from './trial.ts'

/** What became of one run of a row. */
export interface Outcome extends Run {
  readonly row: Row
  readonly seed: number
  readonly evidence: Evidence
  /** null: every promise held */
  readonly failure: Error | null
}

export interface RunOptions {
  readonly seed: number
  readonly short: boolean
  /** how many times the faults of the full form */
  readonly rounds: number
  readonly say: (text: string) => void
}

/** characters of what the processes said, in the message of a failure */
const OUTPUT = 16_000

/** Every row there is, by its number. */
export async function findRows(): Promise<readonly Row[]> {
  const folder = join(import.meta.dirname, 'rows')
  const rows: Row[] = []
  for (const file of (await readdir(folder)).sort())
    if (file.endsWith('.ts')) rows.push(...(Object.values(await import(join(folder, file))) as unknown[]).flat().filter(isRow))
  return rows.sort((a, b) => Number.parseInt(a.row, 10) - Number.parseInt(b.row, 10))
}

const isRow = (value: unknown): value is Row => typeof value === 'object' && value !== null && 'row' in value && 'runs' in value

export async function runRow(row: Row, run: Run, stage: Stage, options: RunOptions): Promise<Outcome> {
  const { seed, short, rounds, say } = options
  const random = seededRandom(seed)
  const began = performance.now()
  const ends: (() => Promise<unknown>)[] = []
  const invariants = new Set<string>()
  const checked = new Set<string>()
  const sums = { injected: 0, events: 0, partitions: 0, duplicates: 0, unknownOutcomes: 0 }
  const trials: Trial[] = []
  const defer: RowContext['defer'] = (end) => void ends.push(end)
  const add: Parameters<typeof openTrial>[0]['add'] = (judged) => {
    for (const name of ['events', 'partitions', 'duplicates', 'unknownOutcomes'] as const) sums[name] += judged[name]
    for (const name of judged.invariants) invariants.add(name)
  }
  const ctx: RowContext = {
    ...run,
    seed,
    random,
    stage,
    pick: (n) => Math.floor(random() * n),
    times: (least, most) => (short ? least : most * rounds),
    async trial(trialOptions) {
      const trial = await openTrial({ ...run, stage, seed, defer, add }, trialOptions)
      trials.push(trial)
      return trial
    },
    injected: (count = 1) => {
      sums.injected += count
    },
    judged: add,
    checked: (promise) => void checked.add(promise),
    say,
    defer,
  }
  let failure: Error | null = null
  try {
    await row.run(ctx)
    if (sums.injected === 0) throw new Error('the row injected nothing')
  } catch (error) {
    const said = trials.map((trial) => trial.output()).join('\n')
    failure = new Error(`${(error as Error).message}\n${said.slice(-OUTPUT)}`, { cause: error })
  }
  for (const end of ends.reverse()) await end().catch((error: Error) => say(`while ending: ${error.message}`))
  const evidence = {
    ...sums,
    invariants: [...invariants],
    checked: [...checked],
    seconds: Math.round((performance.now() - began) / 1_000),
  }
  return { ...run, row, seed, evidence, failure }
}
