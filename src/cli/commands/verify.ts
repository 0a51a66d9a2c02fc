import type { Command } from 'commander'
import { MillraceError } from '../../core/errors.ts'
import { printable } from '../../runtime/parked.ts'
import type { KeyReport, SourceReport, TableReport, VerifyReport } from '../../runtime/verify.ts'
import { EXIT } from '../exit-code.ts'
import { boundHeap } from '../heap.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { count, describeOutcome, describeProgress, type JobFlags, positive, stopJob, untilSignal } from '../sink-job.ts'
import { type Terminal, table, terminalOf } from '../terminal.ts'

interface VerifyFlags extends JobFlags {
  readonly repair?: true
  readonly sample?: string
  readonly against?: string
  readonly json?: true
}

export function addVerify(program: Command, context: CommandContext): void {
  program
    .command('verify <sink>')
    .description('prove that a replica is equal to its stream, key by key, beside the live traffic')
    .option('--repair', 'bring the keys that differ to their right state')
    .option('--sample <share>', 'look at a share of the keys only, such as 0.01')
    .option('--against <what>', 'source: also the outbox with the queue, and the queries of the config with the tables')
    .option('--rate <count>', 'at most so many events, and keys, a second')
    .option('--resume', 'go on with one that was stopped, as it was asked for')
    .option('--pause', 'pause the one there is, wherever it runs')
    .option('--cancel', 'end it')
    .option('--json', 'print JSON lines: every key that is not equal, then the report')
    .addHelpText(
      'after',
      `
Folds what the queue retains into a copy beside the replica, compares, and removes the copy. Changes
nothing without --repair. Ctrl-C pauses it. Exit code 0 when equal, 3 when not, 4 when it was stopped.`,
    )
    .action(async (sink: string, flags: VerifyFlags, command: Command) => {
      const { repair, resume, json } = flags
      if (flags.against !== undefined && flags.against !== 'source')
        throw new MillraceError('MILLRACE_USAGE', `--against ${flags.against}: expected source`)
      const rate = positive('--rate', flags.rate)
      const sample = positive('--sample', flags.sample)
      const pipeline = await openPipeline(command, context)
      const out = terminalOf(process.stdout, context.env)
      const print = (line: string): void => out.print(context.secrets.scrub(line))
      const stopped = await stopJob(pipeline, sink, flags)
      if (stopped !== null) return print(stopped)
      boundHeap()
      const report = await untilSignal((signal) =>
        pipeline.verify(sink, {
          ...(repair && { repair }),
          ...(resume && { resume }),
          ...(flags.against === 'source' && { against: 'source' }),
          ...(sample !== undefined && { sample }),
          ...(rate !== undefined && { rate }),
          signal,
          onProgress: (progress) => out.redraw(describeProgress(progress)),
          ...(json && { onKey: (key) => print(JSON.stringify({ schema: 1, ...key })) }),
        }),
      )
      if (report.outcome !== 'done') context.exitWith(EXIT.halted)
      else if (report.equal !== true) context.exitWith(EXIT.negative)
      if (json) print(JSON.stringify(report))
      else for (const line of describeVerify(report, out)) print(line)
    })
}

export function* describeVerify(report: VerifyReport, out: Pick<Terminal, 'style'>): Generator<string> {
  const { sink, equal, read, sample, source } = report
  if (report.outcome !== 'done') return yield describeOutcome('verify', report)
  const keys = report.tables.reduce((sum, one) => sum + one.keys, 0)
  const looked = `${count(keys)} keys of ${report.tables.length} ${report.tables.length === 1 ? 'table' : 'tables'}, ${count(read)} records`
  yield equal
    ? `${out.style('green', '✓')} ${sink} is equal to its stream: ${looked}`
    : `${out.style('red', '✗')} ${sink} is not equal to its stream: ${looked}`
  if (sample !== null) yield `  a sample of ${sample}: other keys, and rows that are in no event, were not looked for`
  yield* describeTables(report, out)
  if (source !== null) yield* describeSource(source, out)
}

/** What was found, by table and key, and what was left alone. */
export function* describeTables(
  report: Pick<VerifyReport, 'sink' | 'whole' | 'tables' | 'keys' | 'refused' | 'parkedKeys'>,
  out: Pick<Terminal, 'style'>,
): Generator<string> {
  if (report.whole === false)
    yield '  the queue does not hold all there ever was: rows older than it reaches are unverifiable, and left alone'
  yield* countsOf(report.tables)
  yield* describeKeys(report.keys, out)
  if (report.refused.length > 0) {
    yield `${out.style('yellow', '!')} the sink cannot take events of these keys now, so they were left alone:`
    yield `  ${report.refused.slice(0, 20).map(printable).join(', ')}${report.refused.length > 20 ? ', …' : ''}`
  }
  if (report.parkedKeys > 0)
    yield `${out.style('yellow', '!')} ${count(report.parkedKeys)} keys are parked: millrace parked list ${report.sink}`
}

const KINDS = ['missing', 'extra', 'different', 'hot', 'parked', 'partial', 'unverifiable', 'mended'] as const

/** only the columns that say something */
function* countsOf(tables: readonly TableReport[]): Generator<string> {
  const kinds = KINDS.filter((kind) => tables.some((one) => one[kind] > 0))
  const rows = tables.map((one) => [one.table, count(one.keys), ...kinds.map((kind) => count(one[kind]))])
  for (const line of table([['table', 'keys', ...kinds], ...rows], [1, ...kinds.map((_, index) => index + 2)])) yield `  ${line}`
}

function* describeKeys(keys: readonly KeyReport[], out: Pick<Terminal, 'style'>): Generator<string> {
  for (const { table: name, key, kind, folded, shown, mended, refused } of keys) {
    const now = mended ? out.style('green', ' mended') : ''
    yield `  ${kind} ${out.style('bold', printable(key))} of ${name}${now}: ${folded === null ? 'not in the stream' : `the stream has it at ${folded}`}, ${shown === null ? 'the replica shows no position' : `the replica at ${shown}`}`
    if (refused !== null) yield `    ${printable(refused)}`
  }
}

function* describeSource({ outbox, tables, keys }: SourceReport, out: Pick<Terminal, 'style'>): Generator<string> {
  const { rows, missing, missingIds, unverifiable, waiting } = outbox
  const well = missing === 0 && waiting === 0
  const mark = well ? out.style('green', '✓') : out.style('red', '✗')
  yield `${mark} outbox: ${count(rows)} rows, ${missing === 0 ? 'none is' : `${count(missing)} are`} missing from the queue`
  if (missing > 0) yield `  ${missingIds.map(printable).join(', ')}${missing > missingIds.length ? ', …' : ''}`
  if (waiting > 0) yield `  ${count(waiting)} wait for the relay, which did not get there: nobody can say more`
  if (unverifiable > 0) yield `  ${count(unverifiable)} are older than the queue retains: unverifiable`
  if (tables === null) return yield '  the config has no queries to compare the tables with (sinks.….verify)'
  yield 'tables, as the source has them:'
  yield* countsOf(tables)
  yield* describeKeys(keys, out)
}
