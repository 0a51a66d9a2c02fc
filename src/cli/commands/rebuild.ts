import type { Command } from 'commander'
import { MillraceError } from '../../core/errors.ts'
import { printable } from '../../runtime/parked.ts'
import type { RebuildPlan, RebuildReport } from '../../runtime/rebuild.ts'
import type { TableReport } from '../../runtime/verify.ts'
import { EXIT } from '../exit-code.ts'
import { boundHeap } from '../heap.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { count, describeOutcome, describeProgress, type JobFlags, positive, stopJob, untilSignal } from '../sink-job.ts'
import { type Terminal, terminalOf } from '../terminal.ts'
import { describeTables } from './verify.ts'

interface RebuildFlags extends JobFlags {
  readonly yes?: true
  readonly beside?: true
  readonly dropOld?: true
  readonly json?: true
}

export function addRebuild(program: Command, context: CommandContext): void {
  program
    .command('rebuild <sink>')
    .description('bring every row of a replica to what its stream makes of it, beside the live traffic')
    .option('--yes', 'really do it')
    .option('--beside', 'build new tables and swap them in one transaction; the old ones are put aside')
    .option('--drop-old', 'remove old tables that were put aside; with --beside: at once')
    .option('--rate <count>', 'at most so many events, and keys, a second')
    .option('--resume', 'go on with one that was stopped, as it was asked for')
    .option('--pause', 'pause the one there is, wherever it runs')
    .option('--cancel', 'end it')
    .option('--json', 'print JSON lines: every key that was not equal, then the report')
    .addHelpText(
      'after',
      `
Without --yes it says what it would do, and changes nothing. Rows that are in no event are removed;
those that are older than the queue reaches are kept and listed. Ctrl-C pauses it. Exit code 0 when
every key is right, 3 when some could not be brought there, 4 when it was stopped.`,
    )
    .action(async (sink: string, flags: RebuildFlags, command: Command) => {
      const { yes, resume, json, beside, dropOld } = flags
      const rate = positive('--rate', flags.rate)
      const pipeline = await openPipeline(command, context)
      const out = terminalOf(process.stdout, context.env)
      const print = (line: string): void => out.print(context.secrets.scrub(line))
      const stopped = await stopJob(pipeline, sink, flags)
      if (stopped !== null) return print(stopped)
      if (dropOld && !beside) {
        if (yes !== true)
          throw new MillraceError('MILLRACE_USAGE', `this removes the old tables of ${sink} for good`, {
            remedy: 'if that is meant, say --yes too',
          })
        const dropped = await pipeline.dropAside(sink)
        if (json) print(JSON.stringify({ schema: 1, pipeline: pipeline.name, sink, dropped }))
        else for (const one of dropped) print(`${out.style('green', '✓')} ${one} was removed`)
        return
      }
      if (yes !== true && resume !== true) {
        const plan = await pipeline.planRebuild(sink, { ...(beside && { beside }) })
        if (json) print(JSON.stringify(plan))
        else for (const line of describePlan(plan, beside === true, out)) print(line)
        return
      }
      boundHeap()
      const report = await untilSignal((signal) =>
        pipeline.rebuild(sink, {
          ...(resume && { resume }),
          ...(beside && { beside }),
          ...(dropOld && { dropOld }),
          ...(rate !== undefined && { rate }),
          signal,
          onProgress: (progress) => out.redraw(describeProgress(progress)),
          ...(json && { onKey: (key) => print(JSON.stringify({ schema: 1, ...key })) }),
        }),
      )
      if (report.outcome !== 'done') context.exitWith(EXIT.halted)
      else if (report.equal !== true) context.exitWith(EXIT.negative)
      if (json) print(JSON.stringify(report))
      else for (const line of describeRebuild(report, out)) print(line)
    })
}

function* describePlan(plan: RebuildPlan, beside: boolean, out: Terminal): Generator<string> {
  const { sink, topics, partitions, reads, whole, parkedKeys, aside, obstacles } = plan
  yield `${out.style('bold', sink)} would be rebuilt ${beside ? 'beside' : 'in place'} from ${count(reads)} records of ${count(partitions)} partitions: ${topics.join(', ')}`
  yield whole
    ? '  the queue holds all there ever was: rows that are in no event are removed'
    : '  the queue no longer holds all there was: rows older than it reaches are kept as they are, and listed'
  if (beside) yield '  new tables are filled, and swapped with the old ones, which are put aside'
  if (parkedKeys > 0) yield `  ${count(parkedKeys)} keys are parked, and left alone: millrace parked list ${sink}`
  for (const one of aside) yield `  ${one} was put aside by a former rebuild: millrace rebuild ${sink} --drop-old --yes`
  yield `  which rows would change: millrace verify ${sink}`
  if (obstacles !== null && obstacles.length > 0) {
    yield `${out.style('red', '✗')} its tables cannot be swapped, because not all that hangs on them can be taken over:`
    for (const one of obstacles) yield `  ${printable(one)}`
    return yield `in place it can be rebuilt: millrace rebuild ${sink} --yes`
  }
  yield `now: millrace rebuild ${sink}${beside ? ' --beside' : ''} --yes`
}

export function* describeRebuild(report: RebuildReport, out: Pick<Terminal, 'style'>): Generator<string> {
  const { sink, equal, tables, read, beside, aside } = report
  if (report.outcome !== 'done') return yield describeOutcome('rebuild', report)
  const sum = (of: (table: TableReport) => number): string => count(tables.reduce((all, one) => all + of(one), 0))
  const changed = sum(beside ? ({ missing, extra, different }) => missing + extra + different : ({ mended }) => mended)
  const keys = `${changed} of ${sum((one) => one.keys)} keys were ${beside ? 'not equal' : 'changed'}, after ${count(read)} records`
  yield equal
    ? `${out.style('green', '✓')} ${sink} is rebuilt: ${keys}`
    : `${out.style('yellow', '!')} ${sink} is rebuilt as far as it goes: ${keys}`
  yield* describeTables(report, out)
  if (report.halted)
    yield `${out.style('red', '✗')} rows of the old mapping are left, so the sink stays halted: mend what refuses them, then rebuild again`
  for (const one of aside) yield `  the old table is ${one}: millrace rebuild ${sink} --drop-old --yes removes it`
}
