import type { Command } from 'commander'
import { MillraceError } from '../../core/errors.ts'
import { printable } from '../../runtime/parked.ts'
import type { ReplayAsked, ReplayPlan, ReplayReport } from '../../runtime/replay.ts'
import type { JobProgress, JobStatus } from '../../runtime/sink-job.ts'
import { EXIT } from '../exit-code.ts'
import { boundHeap } from '../heap.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { describeProgress, positive, untilSignal } from '../sink-job.ts'
import { type Terminal, terminalOf } from '../terminal.ts'

interface ReplayFlags {
  readonly from?: string
  readonly to?: string
  readonly aggregate?: string
  readonly rate?: string
  readonly yes?: true
  readonly pause?: true
  readonly resume?: true
  readonly cancel?: true
  readonly status?: true
  readonly json?: true
}

/** how often progress is said where no line is redrawn (ms) */
const SAID = 1_000

export function addReplay(program: Command, context: CommandContext): void {
  program
    .command('replay <sink>')
    .description('bring what changed since a place in the stream to its right state again, for one sink')
    .option('--from <place>', 'a checkpoint, a position, an LSN, a time with its zone, or an event id')
    .option('--to <place>', 'likewise, and included; default: to where the sink stands')
    .option('--aggregate <type[/id]>', 'only one aggregate type, or one aggregate')
    .option('--rate <count>', 'at most so many events, and keys, a second')
    .option('--yes', 'do it; without it: say what would be done')
    .option('--status', 'how far a replay, rebuild or verification of the sink is')
    .option('--pause', 'pause it, wherever it runs')
    .option('--resume', 'go on with a replay that was paused, or whose process died')
    .option('--cancel', 'end it; what it has mended stays')
    .option('--json', 'print JSON lines: progress, then the report')
    .addHelpText(
      'after',
      `
The live traffic, the relay and other sinks go on untouched. Rows are brought to the state that the
stream makes of them, and never to an older one; what was deleted stays deleted; parked keys are left
alone. A sink that has no rows gets the events again, marked as replayed. Ctrl-C pauses. Exit code 3
when something is not equal yet, 4 when it was paused or cancelled.`,
    )
    .action(async (sink: string, flags: ReplayFlags, command: Command) => {
      const verb = verbOf(flags)
      const rate = positive('--rate', flags.rate)
      const asked = verb === null ? askedOf(flags, rate) : { resume: true as const }
      const pipeline = await openPipeline(command, context)
      const out = terminalOf(process.stdout, context.env)
      const aside = terminalOf(process.stderr, context.env)
      const show = (to: Terminal, json: object, lines: Iterable<string>): void => {
        if (flags.json) to.print(context.secrets.scrub(JSON.stringify({ schema: 1, pipeline: pipeline.name, ...json })))
        else for (const line of lines) to.print(context.secrets.scrub(line))
      }

      if (verb === 'status' || verb === 'pause' || verb === 'cancel') {
        const job = await pipeline.job(sink)[verb]()
        return show(out, { sink, job }, describeJob(sink, job, out))
      }
      if (!('resume' in asked) && !flags.yes) {
        const plan = await pipeline.planReplay(sink, asked)
        return show(out, { plan }, describePlan(plan, flags, out))
      }
      boundHeap()
      let said = Number.NEGATIVE_INFINITY
      const onProgress = (progress: JobProgress): void => {
        aside.redraw(describeProgress(progress))
        if (!flags.json || performance.now() - said < SAID) return
        said = performance.now()
        show(aside, { sink, progress }, [])
      }
      const report = await untilSignal((signal) => pipeline.replay(sink, { ...asked, signal, onProgress }))
      if (report.outcome !== 'done') context.exitWith(EXIT.halted)
      else if (isLeft(report)) context.exitWith(EXIT.negative)
      // where the sink writes to standard output, that is the events'
      show(report.does === 'deliver' ? aside : out, report, describeReplay(report, out))
    })
}

function askedOf({ from, to, aggregate }: ReplayFlags, rate: number | undefined): ReplayAsked {
  if (from === undefined)
    throw new MillraceError('MILLRACE_USAGE', 'replay without --from: expected where to begin', {
      remedy:
        'millrace checkpoint list names what was saved; a position, an LSN, a time with its zone and an event id are places too',
    })
  return {
    from,
    ...(to !== undefined && { to }),
    ...(aggregate !== undefined && { aggregate }),
    ...(rate !== undefined && { rate }),
  }
}

const VERBS = ['status', 'pause', 'resume', 'cancel'] as const
const OF_A_NEW_ONE = ['from', 'to', 'aggregate', 'rate'] as const

/** what is done with the one there is; null: another one begins */
function verbOf(flags: ReplayFlags): (typeof VERBS)[number] | null {
  const [verb, other] = VERBS.filter((name) => flags[name])
  if (verb === undefined) return null
  const odd = other ?? OF_A_NEW_ONE.find((name) => flags[name] !== undefined)
  if (odd === undefined) return verb
  throw new MillraceError('MILLRACE_USAGE', `--${verb} and --${odd}: expected one of them`)
}

/** whether something that was meant is not equal, or was not delivered */
function isLeft({ rows, events }: ReplayReport): boolean {
  return (rows !== null && (rows.left.length > 0 || rows.refusedKeys.length > 0)) || (events !== null && events.refused > 0)
}

function* describePlan(plan: ReplayPlan, { rate }: ReplayFlags, out: Pick<Terminal, 'style'>): Generator<string> {
  const { sink, does, from, to, topics, partitions, selected, reads, because, parkedKeys, unproven } = plan
  const title = (text: string): string => out.style('bold', text.padEnd(8))
  const keys = selected.keys === null ? 'keys not counted' : counted(selected.keys, 'key')
  yield `${title('sink')}${sink}: ${does === 'mend' ? 'its rows are brought to what the stream makes of them' : 'it gets the events again, marked as replayed'}`
  yield `${title('from')}${describeBound(from)}; the queue still holds it`
  yield `${title('to')}${to === null ? 'where the sink stands' : describeBound(to)}`
  yield `${title('events')}${selected.exact ? '' : 'at most '}${counted(selected.events, 'event')}, ${keys}${describeTimes(selected)}`
  yield `${title('topics')}${topics.join(', ')} (${counted(partitions, 'partition')})`
  yield `${title('reads')}${counted(reads, 'record')} of the queue${BECAUSE[because]}${rate === undefined ? '' : `, at most ${rate} a second`}`
  if (parkedKeys > 0)
    yield `${out.style('yellow', '!')} ${counted(parkedKeys, 'key')} parked, left alone: millrace parked list ${sink}`
  if (unproven.length > 0)
    yield `${out.style('yellow', '!')} nothing is retained of ${unproven.join(', ')}, and nobody can say what stood there`
  yield 'nothing was changed; --yes does it'
}

const BECAUSE: Readonly<Record<ReplayPlan['because'], string>> = {
  range: '',
  selection: ': first those that select the keys, then what the keys have come to',
  history: ': first those that select the keys, then all of their history, for the sink merges',
}

function describeBound({ text, position, time }: ReplayPlan['from']): string {
  const known = [position === text ? null : position, time === null ? null : new Date(time).toISOString()]
  const also = known.filter((one) => one !== null && one !== text)
  return also.length === 0 ? text : `${text} (${also.join(', ')})`
}

function describeTimes({ first, last }: ReplayPlan['selected']): string {
  return first === null || last === null
    ? ''
    : `, committed from ${new Date(first).toISOString()} to ${new Date(last).toISOString()}`
}

function* describeReplay(report: ReplayReport, out: Pick<Terminal, 'style'>): Generator<string> {
  const { sink, outcome, rows, events } = report
  if (outcome === 'cancelled') return yield 'cancelled: nothing of it is left; what it had done stays'
  if (outcome === 'paused') return yield `paused: millrace replay ${sink} --resume goes on where it stopped, --cancel ends it`
  const well = isLeft(report) ? out.style('yellow', '!') : out.style('green', '✓')
  if (rows !== null) {
    yield `${well} ${sink}: ${counted(rows.keys, 'key')} looked at, ${counted(rows.mended, 'key')} mended, ${counted(rows.read, 'record')} read in ${(report.took / 1_000).toFixed(1)} s`
    for (const { target, keys, kinds, mended } of rows.tables) {
      const found = Object.entries(kinds).filter(([, number]) => number > 0)
      if (found.length > 0)
        yield `  ${target}: ${found.map(([kind, number]) => `${number} ${kind}`).join(', ')}, of ${counted(keys, 'key')}; ${mended} mended`
    }
    for (const { target, key, kind } of rows.left) yield `  ${kind} ${out.style('bold', printable(key))} of ${target}: left alone`
    if (rows.parkedKeys > 0)
      yield `${out.style('yellow', '!')} ${counted(rows.parkedKeys, 'key')} parked, left alone: millrace parked list ${sink}`
    if (rows.refusedKeys.length > 0)
      yield `${out.style('yellow', '!')} the sink cannot take events of these keys now, so they were left alone: ${named(rows.refusedKeys)}`
  }
  if (events !== null) {
    yield `${well} ${sink}: ${counted(events.delivered, 'event')} delivered again, ${counted(events.read, 'record')} read in ${(report.took / 1_000).toFixed(1)} s`
    if (events.parked > 0) yield `  ${counted(events.parked, 'event')} of parked keys left out`
    if (events.refused > 0) yield `  ${counted(events.refused, 'event')} refused: ${named(events.refusals)}`
  }
}

const NAMED = 20

function named(texts: readonly string[]): string {
  return `${texts.slice(0, NAMED).map(printable).join(', ')}${texts.length > NAMED ? ', …' : ''}`
}

function* describeJob(sink: string, job: JobStatus | null, out: Pick<Terminal, 'style'>): Generator<string> {
  if (job === null) return yield `no replay, rebuild or verification of ${sink} is under way`
  const { kind, asked, phase, progress, createdAt, updatedAt } = job
  const how = Object.entries(asked).flatMap(([name, value]) => (value === null || value === false ? [] : [`${name} ${value}`]))
  yield `${out.style('bold', kind)} of ${sink}${how.length === 0 ? '' : ` (${how.join(', ')})`}: ${phase}`
  if (phase === 'cancelled') return yield 'nothing of it is left; what it had done stays'
  yield `  ${describeProgress({ ...progress, perSecond: null, left: null })}`
  yield `  begun ${createdAt.toISOString()}, last seen ${updatedAt.toISOString()}`
  if (phase === 'stopped')
    yield `  millrace ${kind} ${sink} --resume goes on where it stopped, millrace replay ${sink} --cancel ends it`
}

function counted(number: number, word: string): string {
  return `${number.toLocaleString('en-US')} ${word}${number === 1 ? '' : 's'}`
}
