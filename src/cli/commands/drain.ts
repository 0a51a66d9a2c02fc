import type { Command } from 'commander'
import { DURATION, parseDuration } from '../../core/duration.ts'
import { MillraceError } from '../../core/errors.ts'
import type { DrainReport } from '../../runtime/drain.ts'
import { boundHeap } from '../heap.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { terminalOf } from '../terminal.ts'

export function addDrain(program: Command, context: CommandContext): void {
  program
    .command('drain')
    .description('relay and apply everything that was committed, and record that the stream stands still')
    .option('--timeout <duration>', 'how long it may take before exit code 5', '10m')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
For what only a stream that stands still can take: a changed outbox mapping, topic template or
partition count, or a move to another server (init --new-epoch). Stop the services that write and
millrace run first; drain runs relay and sinks itself. The next relay goes on, and ends the drain.`,
    )
    .action(async (flags: { timeout: string; json?: true }, command: Command) => {
      const timeout = parseDuration(flags.timeout)
      if (timeout === null) throw new MillraceError('MILLRACE_USAGE', `--timeout ${flags.timeout}: expected ${DURATION}`)
      const pipeline = await openPipeline(command, context)
      boundHeap()
      const report = await pipeline.drain({ timeout })
      const out = terminalOf(process.stdout, context.env)
      if (flags.json) return out.print(JSON.stringify(report, null, 2))
      for (const line of describeDrain(report)) out.print(line)
    })
}

function* describeDrain(report: DrainReport): Generator<string> {
  yield `drained: all that was committed before ${report.lsn} is published and applied (${report.published} events just now)`
  for (const { name, partitions, parkedKeys } of report.sinks)
    yield `  ${name}: at the end of ${partitions} partitions${parkedKeys === 0 ? '' : `, ${parkedKeys} keys parked: millrace parked`}`
  if (report.stillWriting)
    yield 'services are still writing: what came after waits in the slot, and a move to another server now would miss it'
}
