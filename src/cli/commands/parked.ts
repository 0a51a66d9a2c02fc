import type { Command } from 'commander'
import { MillraceError } from '../../core/errors.ts'
import { isPosition } from '../../core/position.ts'
import type { ParkReason, StoredParkedEvent } from '../../core/sink.ts'
import { type ParkedKeyEvents, printable, type RedrivenKey } from '../../runtime/parked.ts'
import type { Pipeline } from '../../runtime/pipeline.ts'
import { EXIT } from '../exit-code.ts'
import { openPipeline } from '../open-pipeline.ts'
import type { CommandContext } from '../program.ts'
import { bytes } from '../size.ts'
import { type Terminal, table, terminalOf } from '../terminal.ts'

interface Flags {
  readonly json?: true
  readonly limit?: string
  readonly payload?: true
  readonly all?: true
  readonly yes?: true
  readonly position?: string
  readonly note?: string
}

export function addParked(program: Command, context: CommandContext): void {
  const parked = program
    .command('parked')
    .description('what could not be applied: look at it, redrive it, or give it up')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
A key is parked when one of its events cannot be applied: it and its later events wait, the rest
flows. Works while the pipeline runs and needs only the sink's store. Exit code 3 when something
is still parked after redrive or skip.`,
    )

  interface Asked {
    readonly out: Terminal
    readonly pipeline: Pipeline
    readonly flags: Flags
    /** one JSON document, or the lines for people */
    print(json: object, lines: () => Iterable<string>): void
  }
  const asked = async (command: Command, sink: string): Promise<Asked> => {
    const pipeline = await openPipeline(command, context)
    const flags = command.opts<Flags>()
    const out = terminalOf(process.stdout, context.env)
    return {
      out,
      pipeline,
      flags,
      print(json, lines) {
        if (flags.json)
          out.print(context.secrets.scrub(JSON.stringify({ schema: 1, pipeline: pipeline.name, sink, ...json }, null, 2)))
        else for (const line of lines()) out.print(context.secrets.scrub(line))
      },
    }
  }

  function printRedriven({ print, out }: Asked, keys: readonly RedrivenKey[]): void {
    if (keys.some(({ remaining }) => remaining > 0)) context.exitWith(EXIT.negative)
    print({ keys: keys.map(redrivenJson) }, function* () {
      if (keys.length === 0) yield 'nothing is parked'
      for (const { order, topic, partition, applied, remaining, reason } of keys) {
        const mark = remaining === 0 ? out.style('green', '✓') : out.style('yellow', '!')
        const left = remaining === 0 ? 'parked no more' : `${remaining} still parked`
        yield `${mark} ${printable(order)} of ${topic}/${partition}: ${applied} applied, ${left}`
        if (reason !== null) yield `    ${explain(reason)}`
      }
    })
  }

  parked
    .command('list <sink>')
    .description('the keys that are parked, and why')
    .option('--limit <count>', 'at most so many keys', '1000')
    .option('--json', 'print JSON')
    .action(async (sink: string, _: Flags, command: Command) => {
      const { pipeline, flags, print, out } = await asked(command, sink)
      const { totals, keys } = await pipeline.parked(sink).list({ limit: limitOf(flags) })
      print(
        { totals, keys: keys.map(({ order, since, reason, ...key }) => ({ key: order, ...key, ...reason, since })) },
        function* () {
          yield `${totals.keys} keys are parked, with ${totals.events} events of ${bytes(totals.bytes)}`
          if (keys.length === 0) return
          const rows = keys.map(({ order, topic, partition, position, events, bytes: size, since }) => [
            out.style('bold', printable(order)),
            `${topic}/${partition}`,
            String(events),
            bytes(size),
            since.toISOString(),
            position,
          ])
          const lines = table([['key', 'topic', 'events', 'size', 'since', 'first event'], ...rows], [2, 3])
          yield lines[0] as string
          for (const [index, { reason }] of keys.entries()) {
            yield lines[index + 1] as string
            yield `  ${explain(reason)}`
          }
        },
      )
    })

  parked
    .command('show <sink> <key>')
    .description('the events of a parked key, in their order')
    .option('--limit <count>', 'at most so many events', '20')
    .option('--payload', 'with their payloads and headers, which may hold what is secret')
    .option('--json', 'print JSON')
    .action(async (sink: string, key: string, _: Flags, command: Command) => {
      const { pipeline, flags, print, out } = await asked(command, sink)
      const keys = await pipeline.parked(sink).show(key, { limit: limitOf(flags) })
      const whole = flags.payload === true
      print({ keys: keys.map((one) => shownJson(one, whole)) }, function* () {
        for (const { order, topic, partition, events, bytes: size, first } of keys) {
          yield `${out.style('bold', printable(order))} of ${topic}/${partition}: ${events} events, ${bytes(size)}`
          for (const one of first) yield* describeEvent(one, whole, out)
          if (first.length < events) yield `  … and ${events - first.length} more`
        }
      })
    })

  parked
    .command('redrive <sink> [key]')
    .description('apply what waits, in its order, as far as it goes')
    .option('--all', 'every key that is parked')
    .option('--note <text>', 'for the audit record')
    .option('--json', 'print JSON')
    .action(async (sink: string, key: string | undefined, { all, note }: Flags, command: Command) => {
      if ((key === undefined) === (all === undefined))
        throw new MillraceError('MILLRACE_USAGE', 'expected a key as millrace parked list has it, or --all')
      const how = await asked(command, sink)
      const by = { note: note ?? null }
      const keys = how.pipeline.parked(sink)
      printRedriven(how, key === undefined ? await keys.redriveAll(by) : await keys.redrive(key, by))
    })

  parked
    .command('skip <sink> <key>')
    .description('give up the first event of a key for good, and redrive the rest')
    .requiredOption('--position <position>', 'of that event, as millrace parked list has it')
    .option('--yes', 'really give it up')
    .option('--note <text>', 'for the audit record')
    .option('--json', 'print JSON')
    .action(async (sink: string, key: string, { position, yes, note }: Flags, command: Command) => {
      if (!isPosition(position))
        throw new MillraceError('MILLRACE_USAGE', `--position ${position}: expected a position as millrace parked list has it`)
      const how = await asked(command, sink)
      if (yes !== true)
        throw new MillraceError(
          'MILLRACE_USAGE',
          `this gives up the event ${position} for good: the sink ${sink} will never show it`,
          {
            remedy: 'if that is meant, say --yes too',
          },
        )
      printRedriven(how, [await how.pipeline.parked(sink).skip(key, position, { note: note ?? null })])
    })

  parked
    .command('audit <sink>')
    .description('who redrove and skipped what, latest first')
    .option('--limit <count>', 'at most so many records', '100')
    .option('--json', 'print JSON')
    .action(async (sink: string, _: Flags, command: Command) => {
      const { pipeline, flags, print } = await asked(command, sink)
      const records = await pipeline.parked(sink).audit({ limit: limitOf(flags) })
      print({ records: records.map(({ order, ...record }) => ({ key: order, ...record })) }, function* () {
        for (const { at, actor, note, action, order, topic, partition, skipped, applied, remaining } of records) {
          const what = skipped === null ? action : `skip of ${skipped}`
          yield `${at.toISOString()} ${printable(actor)}: ${what}, ${printable(order)} of ${topic}/${partition}, ${applied} applied, ${remaining} left${note === null ? '' : `: ${printable(note)}`}`
        }
      })
    })

  for (const command of parked.commands) command.exitOverride().helpOption('-h, --help', 'print this help')
}

/** @throws MILLRACE_USAGE */
function limitOf({ limit }: Flags): number {
  const count = Number(limit)
  if (Number.isSafeInteger(count) && count > 0) return count
  throw new MillraceError('MILLRACE_USAGE', `--limit ${limit}: expected a whole number, at least 1`)
}

function explain({ code, message }: ParkReason): string {
  return `${printable(message)} (${code})`
}

function redrivenJson({ order, reason, ...key }: RedrivenKey): object {
  return { key: order, ...key, code: reason?.code ?? null, message: reason?.message ?? null }
}

function shownJson({ order, reason, first, ...key }: ParkedKeyEvents, whole: boolean): object {
  return { key: order, ...key, ...reason, first: first.map((one) => eventJson(one, whole)) }
}

function eventJson({ event, offset, reason, parkedAt }: StoredParkedEvent, whole: boolean): object {
  const { source, position, id, type, version, placeholder, key, value, headers } = event
  return {
    source,
    position,
    offset: String(offset),
    id,
    type,
    aggregateId: decode(key) ?? base64(key),
    version,
    committedAt: isoTime(event.committedAt),
    placeholder,
    code: reason?.code ?? null,
    message: reason?.message ?? null,
    parkedAt,
    payloadBytes: value?.length ?? null,
    ...(whole && {
      ...(value === null ? { payload: null } : payloadJson(value)),
      headers: headers.map(([name, text]) => [name, typeof text === 'string' ? text : (decode(text) ?? base64(text))]),
    }),
  }
}

function payloadJson(value: Uint8Array): object {
  const text = decode(value)
  return text === null ? { payloadBase64: base64(value) } : { payload: text }
}

function* describeEvent(one: StoredParkedEvent, whole: boolean, out: Pick<Terminal, 'style'>): Generator<string> {
  const { event, reason } = one
  const size =
    event.placeholder !== null ? 'without its payload' : event.value === null ? 'a tombstone' : bytes(event.value.length)
  yield `  ${event.position}  ${printable(event.type)}  id ${printable(event.id)}, ${size}, committed ${isoTime(event.committedAt)}`
  if (reason !== null) yield `    ${out.style('red', '✗')} ${explain(reason)}`
  if (!whole) return
  for (const [name, text] of event.headers)
    yield `    ${printable(name)}: ${typeof text === 'string' ? printable(text) : printable(decode(text) ?? base64(text))}`
  if (event.value !== null) yield `    ${printable(decode(event.value) ?? base64(event.value))}`
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decode(value: Uint8Array): string | null {
  try {
    return utf8.decode(value)
  } catch {
    return null
  }
}

const base64 = (value: Uint8Array): string => Buffer.from(value).toString('base64')

/** whatever stands in a header */
const isoTime = (ms: number): string => (Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : 'at an unknown time')
