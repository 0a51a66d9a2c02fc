import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { nameOf, type Test } from './mutant.ts'
import { runNode } from './run.ts'

/** What a catcher said of the tree that it ran in. */
export type Verdict =
  | { readonly found: 'nothing' }
  /** an assertion failed: this is what catches a bug */
  | { readonly found: 'failure'; readonly what: string }
  /** it did not get as far as an assertion, which says nothing about the bug */
  | { readonly found: 'breakage'; readonly what: string }

interface Report {
  readonly testResults: readonly {
    readonly name: string
    readonly message?: string
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[]
      readonly title: string
      readonly status: 'passed' | 'failed' | 'skipped' | 'pending' | 'todo'
      readonly failureMessages: readonly string[] | null
    }[]
  }[]
}

/** what a broken program or a busy machine would cause, whatever the bug */
export const BREAKAGE =
  /\b(SyntaxError|ReferenceError|ERR_MODULE_NOT_FOUND)\b|is not a function|Cannot find (module|package)|Test timed out/
const RUN_TIMEOUT = 300_000

/** Runs the tests, in one run, and says of each what it found, by its name. */
export async function runTests(folder: string, tests: readonly Test[]): Promise<ReadonlyMap<string, Verdict>> {
  const files = [...new Set(tests.map(({ file }) => file))]
  const names = [...new Set(tests.map(({ name }) => escapeRegExp(name)))]
  const output = join(folder, `report-${files.length}.json`)
  const { said } = await runNode(
    [
      join(folder, 'node_modules/vitest/vitest.mjs'),
      'run',
      ...files,
      `--testNamePattern=${names.join('|')}`,
      '--reporter=json',
      `--outputFile=${output}`,
    ],
    { cwd: folder, timeout: RUN_TIMEOUT },
  )
  const report = await readFile(output, 'utf8').then(
    (text) => JSON.parse(text) as Report,
    () => null,
  )
  await rm(output, { force: true })
  return new Map(
    tests.map((wanted) => [
      nameOf(wanted),
      report === null ? breakage(`no report: ${said.slice(-2_000)}`) : verdictOf(report, folder, wanted),
    ]),
  )
}

function verdictOf({ testResults }: Report, folder: string, { file, name }: Test): Verdict {
  const result = testResults.find((one) => one.name === join(folder, file))
  if (result === undefined) return breakage(`${file} was not run`)
  const ran = result.assertionResults
    .map((one) => ({ ...one, fullName: [...one.ancestorTitles, one.title].join(' > ') }))
    .filter(({ fullName, status }) => fullName.includes(name) && (status === 'passed' || status === 'failed'))
  if (ran.length === 0) return breakage(`no test ran whose name has "${name}": ${result.message ?? ''}`)
  const failed = ran.find(({ status }) => status === 'failed')
  if (failed === undefined) return { found: 'nothing' }
  const what = `${failed.fullName}: ${failed.failureMessages?.join('\n') ?? ''}`
  return BREAKAGE.test(what) ? breakage(what) : { found: 'failure', what }
}

export const breakage = (what: string): Verdict => ({ found: 'breakage', what })
const escapeRegExp = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
