import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { BackfillProgress } from '../../outbox/backfill.ts'
import { loadBackfill } from '../../runtime/backfill.ts'
import { EXIT } from '../exit-code.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { positive, untilSignal } from '../sink-job.ts'
import { terminalOf } from '../terminal.ts'

interface Flags {
  readonly rate?: string
  readonly chunk?: string
  readonly restart?: true
  readonly json?: true
}

/** how often progress is said where no line is redrawn (ms) */
const SAID = 1_000

export function addBackfill(program: Command, context: CommandContext): void {
  program
    .command('backfill <module>')
    .description('make events of rows that are older than the outbox')
    .option('--rate <count>', 'at most so many rows a second')
    .option('--chunk <count>', 'at most so many rows in one transaction')
    .option('--restart', 'begin anew, from the first row')
    .option('--json', 'print JSON lines: progress, then the result')
    .addHelpText(
      'after',
      `
The module exports defineBackfill({ name, select, toEvent }) of millrace/outbox. Rows are read in the
order of their key and locked until their events are committed: whoever changes a row later has the
last word. Begin when every service that writes the table emits. Ctrl-C stops it after a chunk (exit
code 4), and so does kill -9: run again, it goes on where it stood.`,
    )
    .action(async (path: string, flags: Flags, command: Command) => {
      const rate = positive('--rate', flags.rate)
      const chunk = positive('--chunk', flags.chunk)
      const pipeline = await openPipeline(command, context)
      const definition = await loadBackfill(resolve(path))
      const out = terminalOf(process.stdout, context.env)
      const aside = terminalOf(process.stderr, context.env)
      const json = (to: typeof out, more: object): void =>
        to.print(context.secrets.scrub(JSON.stringify({ schema: 1, pipeline: pipeline.name, ...more })))
      let said = performance.now()
      const onProgress = (progress: BackfillProgress): void => {
        aside.redraw(describe(progress))
        if (performance.now() - said < SAID) return
        said = performance.now()
        if (flags.json) json(aside, { progress })
      }
      const result = await untilSignal((signal) =>
        pipeline.backfill(
          { ...definition, ...(rate !== undefined && { rate }), ...(chunk !== undefined && { chunk }) },
          { signal, onProgress, ...(flags.restart && { restart: true }) },
        ),
      )
      if (!result.done) context.exitWith(EXIT.halted)
      if (flags.json) json(out, { backfill: result })
      else {
        out.print(describe(result))
        if (!result.done) out.print('stopped: run it again, and it goes on where it stands')
      }
    })
}

function describe({ name, rows, events, estimate, done }: BackfillProgress): string {
  const of = done || estimate === null || estimate < rows ? '' : ` of about ${Math.round(estimate).toLocaleString('en-US')}`
  return `${name}: ${rows.toLocaleString('en-US')}${of} rows read, ${events.toLocaleString('en-US')} events${done ? ', done' : ''}`
}
