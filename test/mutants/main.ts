import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { judge } from './gate.ts'
import { mutantsPage } from './mutants-page.ts'
import { MUTANTS } from './planted/index.ts'
import { endAll } from './run.ts'

const USAGE = `npm run mutants -- [options]     plants bugs, one at a time, in a copy of the tree: each must be caught

  --only TEXT     those whose bug or file contains the text
  --seconds N     for which the simulation looks for each (default 60)
  --workers N     at a time (default 2)
  --why           print how each was caught
  --write         write docs/mutants.md, which a run of all does by itself`

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    seconds: { type: 'string', default: '60' },
    workers: { type: 'string', default: '2' },
    why: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(`${USAGE}\n`)
  process.exit(0)
}

const { only } = values
const mutants = MUTANTS.filter(({ bug, file }) => only === undefined || bug.includes(only) || file.includes(only))
const say = (line: string): void => void process.stdout.write(`${line}\n`)
const stopping = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    stopping.abort()
    endAll()
  })

const began = new Date()
const judged = await judge({
  mutants,
  workers: Number(values.workers),
  simulationSeconds: Number(values.seconds),
  say,
  signal: stopping.signal,
})
const missed = judged.filter(({ verdict }) => verdict.found !== 'failure')
if (values.why)
  for (const { mutant, verdict } of judged)
    if (verdict.found === 'failure') say(`\n${mutant.bug}\n${verdict.what.slice(0, 1_500)}`)
for (const { mutant, verdict } of missed)
  say(`\nNOT CAUGHT: ${mutant.bug} (${mutant.file})\n${verdict.found === 'nothing' ? 'its catcher found nothing' : verdict.what}`)
const seconds = Math.round((Date.now() - began.getTime()) / 1_000)
say(`\n${judged.length - missed.length} of ${mutants.length} planted bugs were caught, in ${seconds} s`)
const all = judged.length === MUTANTS.length
if (!stopping.signal.aborted && (values.write || all))
  writeFileSync(join(import.meta.dirname, '../../docs/mutants.md'), mutantsPage(judged, { began, seconds }))
process.exit(mutants.length > 0 && judged.length === mutants.length && missed.length === 0 ? 0 : 1)
