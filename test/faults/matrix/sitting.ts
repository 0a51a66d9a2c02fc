import { appendFile, readFile } from 'node:fs/promises'
import type { Row } from './row.ts'
import type { Outcome } from './run-rows.ts'

/** A file of outcomes, a JSON line each: a long run may be done in several sittings, and what failed again once it was mended. */
type Line = Omit<Outcome, 'row' | 'failure'> & { readonly row: string; readonly failed: boolean }

const nameOf = ({ row, fault, when }: Row): string => `${row} ${fault}: ${when}`

export async function keep(file: string, { row, failure, ...outcome }: Outcome): Promise<void> {
  const line: Line = { ...outcome, row: nameOf(row), failed: failure !== null }
  await appendFile(file, `${JSON.stringify(line)}\n`)
}

/** the latest outcome of each run, where it held */
export async function heldBefore(file: string, rows: readonly Row[]): Promise<readonly Outcome[]> {
  const text = await readFile(file, 'utf8').catch(() => '')
  const latest = new Map<string, Line>()
  for (const line of text.split('\n').filter(Boolean)) {
    const one = JSON.parse(line) as Line
    latest.set(`${one.row}/${one.postgres}/${one.queue}`, one)
  }
  return [...latest.values()].flatMap(({ row, failed, ...outcome }) => {
    const found = rows.find((one) => nameOf(one) === row)
    return failed || found === undefined ? [] : [{ ...outcome, row: found, failure: null }]
  })
}
