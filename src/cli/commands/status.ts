import type { Command } from 'commander'
import type { GapReport, ParkedReport, PartitionReport, StatusReport } from '../../runtime/status.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { bytes } from '../size.ts'
import { type Style, type Terminal, table, terminalOf } from '../terminal.ts'

export function addStatus(program: Command, context: CommandContext): void {
  program
    .command('status')
    .description('say where the slot, the relay and every sink stand')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
A running process on this machine is asked first (http of the config); what it does not know is
read from the database, the queue and the sinks. Exit code 0 also when something is halted.`,
    )
    .action(async ({ json }: { json?: true }, command: Command) => {
      const pipeline = await openPipeline(command, context)
      const report = await pipeline.status()
      const out = terminalOf(process.stdout, context.env)
      if (json) return out.print(context.secrets.scrub(JSON.stringify(report, null, 2)))
      for (const line of describeStatus(report, out)) out.print(context.secrets.scrub(line))
    })
}

export function* describeStatus(report: StatusReport, out: Pick<Terminal, 'style'>): Generator<string> {
  const title = (text: string): string => out.style('bold', text.padEnd(10))
  const { slot, relay } = report
  if (slot !== null) {
    const held = slot.active ? 'held by a relay' : out.style('yellow', 'nobody holds it')
    const kept = slot.retainedBytes === null ? 'WAL lost' : `keeps ${bytes(slot.retainedBytes)} of WAL`
    const left = slot.safeWalBytes === null ? '' : `, ${bytes(slot.safeWalBytes)} more before it is lost`
    yield `${title('slot')}${slot.walStatus ?? 'unknown'}, ${held}, confirmed ${slot.confirmed ?? 'nothing'}, ${kept}${left}`
  }
  if (relay !== null) {
    const lag = relay.lagBytes === null ? '' : `, ${bytes(relay.lagBytes)} behind`
    const published = Object.values(relay.published).reduce((sum, count) => sum + count, 0)
    const count = relay.phase === null ? `session ${relay.session}` : `${published} events since its start`
    yield `${title('relay')}${phase(relay.phase, out)}, ${count}, at ${relay.position ?? 'no position yet'}${lag}`
    if (relay.error !== null) yield* failure(relay.error, out)
  }
  for (const gap of report.gaps) yield `${title('gap')}${describeGap(gap)}`
  for (const sink of report.sinks) {
    const state = sink.phase === null ? 'read from its store' : phase(sink.phase, out)
    yield `${title(sink.name)}${state}, ${sink.partitions.length} partitions`
    if (sink.error !== null) yield* failure(sink.error, out)
    if (sink.parked !== null && sink.parked.keys > 0) yield `  ${parked(sink.name, sink.parked, out)}`
    if (sink.partitions.length > 0) {
      const rows = sink.partitions.map((one) => partitionRow(one, out))
      for (const line of table([['topic', 'part', 'state', 'offset', 'end', 'lag', 'position'], ...rows], [1, 3, 4, 5]))
        yield `  ${line}`
    }
    for (const { error } of sink.partitions) if (error !== null) yield* failure(error, out)
  }
  for (const problem of report.problems) yield* failure(problem, out)
}

/** `from … to …: what became of it` */
export function describeGap({ at, epoch, from, to, refill }: GapReport): string {
  const what =
    refill === null
      ? 'accepted as it is'
      : refill === 'pending'
        ? 'a refill was begun and not finished: millrace resume --refill'
        : `refilled: ${refill.published} events published, ${refill.ambiguous} left alone`
  return `from ${from} to ${to}, before epoch ${epoch}, ${at}: ${what}`
}

function parked(sink: string, { keys, events }: ParkedReport, out: Pick<Terminal, 'style'>): string {
  const what = `${keys === 1 ? '1 key is' : `${keys} keys are`} parked, with ${events === 1 ? '1 event' : `${events} events`}`
  return `${out.style('yellow', '!')} ${what}: millrace parked list ${sink}`
}

function partitionRow(one: PartitionReport, out: Pick<Terminal, 'style'>): readonly string[] {
  const seconds = one.lagSeconds === null || one.lagEvents === 0 ? '' : ` ${one.lagSeconds.toFixed(1)} s`
  const lag = one.lagEvents === null ? '?' : `${one.lagEvents}${seconds}`
  return [
    one.topic,
    String(one.partition),
    one.phase === null ? '-' : phase(one.phase, out),
    one.offset ?? '-',
    one.end ?? '-',
    lag,
    Object.values(one.positions).sort().at(-1) ?? '-',
  ]
}

const STYLES: Readonly<Record<string, Style>> = {
  running: 'green',
  following: 'green',
  standby: 'cyan',
  waiting: 'yellow',
  halted: 'red',
  fenced: 'yellow',
}

function phase(name: string | null, out: Pick<Terminal, 'style'>): string {
  return name === null ? 'unknown: no process answered' : out.style(STYLES[name] ?? 'dim', name)
}

function* failure(error: StatusReport['problems'][number], out: Pick<Terminal, 'style'>): Generator<string> {
  yield `  ${out.style('red', '✗')} ${error.message} ${out.style('dim', `(${error.code})`)}`
  if (error.remedy !== null) yield `    ${error.remedy}`
}
