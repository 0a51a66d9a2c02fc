import type { Command } from 'commander'
import { MillraceError } from '../../core/errors.ts'
import type { ResumeReport } from '../../runtime/resume.ts'
import { EXIT } from '../exit-code.ts'
import { boundHeap } from '../heap.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { type Terminal, terminalOf } from '../terminal.ts'
import { describeGap } from './status.ts'

interface ResumeFlags {
  readonly acceptGap?: true
  readonly refill?: true
  readonly yes?: true
  readonly json?: true
}

export function addResume(program: Command, context: CommandContext): void {
  program
    .command('resume')
    .description('explain why the relay cannot go on, and go on: a lost slot, a restored or failed-over database')
    .option('--refill', 'first publish what the outbox still holds of what is missing')
    .option('--accept-gap', 'go on without what is missing')
    .option('--yes', 'really do it')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Without an option it changes nothing: exit code 4 when a person must decide, 0 when a relay can
begin. Both ways make publication and slot anew where needed and begin a new epoch; sinks go on
by themselves. They refuse while a relay runs, and when nothing is wrong.`,
    )
    .action(async ({ acceptGap, refill, yes, json }: ResumeFlags, command: Command) => {
      if (acceptGap && refill) throw new MillraceError('MILLRACE_USAGE', '--accept-gap and --refill: expected one of them')
      const flag = refill ? '--refill' : '--accept-gap'
      const way = refill ? 'refill' : acceptGap ? 'accept-gap' : undefined
      const pipeline = await openPipeline(command, context)
      if (way !== undefined && yes !== true)
        throw new MillraceError(
          'MILLRACE_USAGE',
          `resume ${flag} gives up the old slot of ${pipeline.name} and what only it could send`,
          {
            remedy: `see first what it would do: millrace resume; if that is meant: millrace resume ${flag} --yes`,
          },
        )
      boundHeap()
      const report = await pipeline.resume(way === undefined ? {} : { way })
      const out = terminalOf(process.stdout, context.env)
      if (json) out.print(context.secrets.scrub(JSON.stringify(report, null, 2)))
      else for (const line of describeResume(report, out)) out.print(context.secrets.scrub(line))
      if (report.verdict === 'decide') context.exitWith(EXIT.halted)
    })
}

function* describeResume(report: ResumeReport, out: Pick<Terminal, 'style'>): Generator<string> {
  const title = (text: string): string => out.style('bold', text.padEnd(10))
  const { relayed, server, outbox, problem, resumed } = report
  if (report.verdict === 'running') return yield 'a relay is at work: nothing to decide'
  if (report.verdict === 'runs') return yield 'nothing is wrong: millrace run goes on where it stopped'
  if (problem !== null && resumed === null && report.verdict === 'decide') {
    yield `${out.style('red', '✗')} ${problem.message} ${out.style('dim', `(${problem.code})`)}`
    if (report.ways.length === 0 && problem.remedy !== null) yield `  ${problem.remedy}`
  }
  if (relayed !== null)
    yield `${title('relayed')}up to ${relayed.upTo}, the last event at ${relayed.position ?? 'no position yet'} (session ${relayed.session}, epoch ${relayed.epoch})`
  if (server !== null) {
    const slot =
      server.slot === null ? 'no slot' : `slot ${server.slot.walStatus ?? 'lost'}, from ${server.slot.confirmed ?? 'nowhere'}`
    yield `${title('server')}system ${server.systemId}, timeline ${server.timeline}, WAL up to ${server.walEnd}; ${slot}; ${server.publication ? 'a publication' : 'no publication'}`
  }
  if (outbox !== null)
    yield `${title('outbox')}${outbox.rows} rows${outbox.oldest === null ? '' : `, the oldest of ${outbox.oldest}`}: what of the missing is among them can be refilled`
  for (const { command, does } of report.ways) {
    yield ''
    yield out.style('bold', command)
    yield `  ${does}`
  }
  if (report.verdict !== 'resumed') return
  if (resumed === null) return yield 'the database knows the stream again: millrace run goes on where it stopped'
  for (const what of resumed.made) yield `${out.style('green', '✓')} ${what}`
  yield `${out.style('green', '✓')} epoch ${resumed.epoch}: what is committed from ${resumed.start} on is relayed`
  if (resumed.gap !== null) yield `${title('gap')}${describeGap(resumed.gap)}`
  if (resumed.refilled !== null && resumed.refilled.ambiguous > 0) {
    const { ambiguous, ambiguousIds } = resumed.refilled
    yield `${out.style('yellow', '!')} ${ambiguous} rows are older than what the queue retains: they may have been relayed, and were left alone:`
    yield `  ${ambiguousIds.join(', ')}${ambiguous > ambiguousIds.length ? ', …' : ''}`
    yield '  compare them with the replicas; an event that is missing there must be emitted again by its service, under a new id'
  }
  yield 'now: millrace run'
}
