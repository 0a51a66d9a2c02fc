/**
 * A planted bug: what somebody could have written, and what must go red if they had. It exists as data only. The gate
 * (`npm run mutants`) plants it in a copy of the working tree, so that nothing that is shipped knows of it.
 */
export interface Mutant {
  /** what the code does then, in a few words; `--only` looks for a part of it */
  readonly bug: string
  /** how it would lose data, or bite a user */
  readonly harm: string
  readonly file: string
  /** Each text stands in the file exactly once: when the source moves, the gate fails until this follows. */
  readonly edits: readonly Edit[]
  readonly caughtBy: Catcher
}

export interface Edit {
  readonly find: string
  readonly replace: string
}

export type Catcher = Simulation | Test

/** Schedules of a set row of seeds, for a set time. */
export interface Simulation {
  /** only those that have an action of this kind; null: all */
  readonly having: string | null
}

export const simulation: Simulation = { having: null }

/** for what shows itself in few schedules: those in which it can */
export const simulationHaving = (having: string): Simulation => ({ having })

/** tests of one file whose full name (suites and test, with ' > ' between them) contains a text */
export interface Test {
  readonly file: string
  readonly name: string
}

export const test = (file: string, name: string): Test => ({ file: `test/${file}.test.ts`, name })

export const isSimulation = (catcher: Catcher): catcher is Simulation => 'having' in catcher

export function nameOf(catcher: Catcher): string {
  if (!isSimulation(catcher)) return `${catcher.file} > ${catcher.name}`
  return catcher.having === null ? 'the simulation' : `the simulation, schedules with "${catcher.having}"`
}

/** The source with the bug in it. @throws when it no longer applies */
export function plant(source: string, { bug, file, edits }: Mutant): string {
  let planted = source
  for (const { find, replace } of edits) {
    const places = planted.split(find).length - 1
    if (places !== 1)
      throw new Error(`the planted bug "${bug}" no longer applies: ${file} has ${places} times, not once, the text\n${find}`)
    planted = planted.replace(find, () => replace)
  }
  if (planted === source) throw new Error(`the planted bug "${bug}" changes nothing in ${file}`)
  return planted
}
