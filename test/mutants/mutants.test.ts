import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { isSimulation, plant } from './mutant.ts'
import { MUTANTS } from './planted/index.ts'

const read = (file: string): string => readFileSync(join(import.meta.dirname, '../..', file), 'utf8')

test.each(MUTANTS.map((mutant) => [mutant.bug, mutant] as const))('can still be planted: %s', (_, mutant) => {
  expect(plant(read(mutant.file), mutant)).not.toBe(read(mutant.file))
  if (!isSimulation(mutant.caughtBy)) read(mutant.caughtBy.file)
})

test('there are as many as were promised, half of them for the simulation alone', () => {
  expect(new Set(MUTANTS.map(({ bug }) => bug)).size).toBe(MUTANTS.length)
  expect(MUTANTS.length).toBeGreaterThanOrEqual(25)
  expect(MUTANTS.filter(({ caughtBy }) => isSimulation(caughtBy)).length * 2).toBeGreaterThanOrEqual(MUTANTS.length)
})
