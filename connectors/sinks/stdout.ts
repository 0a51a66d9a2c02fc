import type { Writable } from 'node:stream'
import { z } from 'zod'
import { defineSink } from '../../src/core/connector.ts'
import { MillraceError } from '../../src/core/errors.ts'
import type { Event } from '../../src/core/event.ts'
import type { Position } from '../../src/core/position.ts'
import type { TopicPartition } from '../../src/core/queue.ts'
import type { Lane, PartitionCheckpoint, Sink } from '../../src/core/sink.ts'

const stdoutOptions = z.strictObject({
  /** the aggregate types that are written; default: all */
  from: z
    .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
    .transform((from) => (typeof from === 'string' ? [from] : from))
    .optional(),
})

/** What a user writes below a sink, beside `kind: stdout`. */
export type StdoutOptions = z.input<typeof stdoutOptions>

/**
 * Writes one JSON line an event to stdout: `source`, `topic`, `partition`, `position`, `id`, `type`, `version`, `key`,
 * `committedAt` (ms), `headers`, and one of `value` (the payload as it was written, so its numbers keep every digit),
 * `valueBase64` (a payload that is not JSON) or `tombstone: true`. At least once: nothing is remembered from one run to
 * the next. What a replay writes again has `"replayed": true`.
 */
export default defineSink<z.output<typeof stdoutOptions>>({
  name: 'stdout',
  options: stdoutOptions,
  follows: ({ from }) => from ?? null,
  open: async () => openLineSink(process.stdout),
})

/** The same to any stream. It is not ended by `close`. */
export function openLineSink(destination: Writable): Sink {
  const partitions = new Map<string, { owner: number; checkpoint: PartitionCheckpoint }>()
  let broken: Error | undefined
  // the write that it belongs to rejects; without a listener the process would die of it
  const onError = (error: Error): void => {
    broken = error
  }
  destination.on('error', onError)

  /** Resolves when the stream has passed the text on, which is when its reader keeps up. */
  async function write(text: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      if (!destination.writable) return reject(failure(broken))
      destination.write(text, (error) => (error ? reject(failure(error)) : resolve()))
    })
  }

  /** in one piece: lines of a replay and of the lanes do not mix */
  async function writeEvents(place: TopicPartition, events: readonly Event[], replayed = false): Promise<void> {
    if (events.length > 0) await write(events.map((event) => toLine(place, event, replayed)).join(''))
  }

  async function claim(place: TopicPartition): Promise<Lane> {
    const key = `${place.topic}/${place.partition}`
    const known = partitions.get(key)
    // claimed again within one run (the group changed): it goes on from where it was
    const held = {
      owner: (known?.owner ?? 0) + 1,
      checkpoint: known?.checkpoint ?? {
        ...place,
        positions: new Map<string, Position>(),
        offset: null,
        parked: NONE,
        beginning: null,
      },
    }
    partitions.set(key, held)
    const mine = (): PartitionCheckpoint => {
      if (partitions.get(key) === held) return held.checkpoint
      throw new MillraceError('MILLRACE_SINK_FENCED', `${key} was claimed by another owner`, { fields: { ...place } })
    }
    return {
      checkpoint: held.checkpoint,
      async apply({ moves, offset, events, beginning }) {
        const checkpoint = mine()
        if (checkpoint.offset !== null && offset < checkpoint.offset)
          throw new MillraceError('MILLRACE_SINK_FENCED', `${key} stands at offset ${checkpoint.offset}, not before ${offset}`)
        const positions = new Map(checkpoint.positions)
        for (const { source, from, to } of moves) {
          if ((positions.get(source) ?? null) !== from)
            throw new MillraceError(
              'MILLRACE_SINK_FENCED',
              `${key} stands at ${positions.get(source)} of ${source}, not at ${from}`,
            )
          positions.set(source, to)
        }
        await writeEvents(place, events)
        held.checkpoint = { ...place, positions, offset, parked: NONE, beginning: beginning ?? checkpoint.beginning }
      },
      reread: async () => mine(),
      release: async () => {},
    }
  }

  return {
    parking: null,
    copies: null,
    redeliver: (place, events) => writeEvents(place, events, true),
    traits: { name: 'stdout', effect: 'at-least-once', checkpoints: false },
    check: async () => [],
    init: async () => {},
    claim,
    checkpoints: async () => [],
    async close() {
      destination.off('error', onError)
    },
  }
}

const NONE: ReadonlySet<string> = new Set()

/** One line, whatever the event holds: JSON has no raw line break but between its tokens. */
function toLine({ topic, partition }: TopicPartition, event: Event, replayed: boolean): string {
  const { source, position, id, type, version, committedAt } = event
  const key = decode(event.key)
  const fields = [
    JSON.stringify({ source, topic, partition, position, id, type, version, ...(replayed && { replayed }) }).slice(1, -1),
    key === null ? `"keyBase64":${base64(event.key)}` : `"key":${JSON.stringify(key)}`,
    `"committedAt":${committedAt}`,
    `"headers":${headersOf(event)}`,
    payloadOf(event),
  ]
  return `{${fields.join(',')}}\n`
}

function payloadOf({ value }: Event): string {
  if (value === null) return '"tombstone":true'
  const text = decode(value)
  return text !== null && isJson(text) ? `"value":${text.replace(/[\r\n]+/g, ' ').trim()}` : `"valueBase64":${base64(value)}`
}

/** By name; the values of a repeated name are in an array, in their order. */
function headersOf({ headers }: Event): string {
  const byName = new Map<string, string[]>()
  for (const [name, value] of headers) {
    const text = typeof value === 'string' ? value : (decode(value) ?? Buffer.from(value).toString('base64'))
    byName.set(name, [...(byName.get(name) ?? []), JSON.stringify(text)])
  }
  const fields = [...byName].map(
    ([name, values]) => `${JSON.stringify(name)}:${values.length === 1 ? values[0] : `[${values.join(',')}]`}`,
  )
  return `{${fields.join(',')}}`
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decode(bytes: Uint8Array): string | null {
  try {
    return utf8.decode(bytes)
  } catch {
    return null
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

const base64 = (bytes: Uint8Array): string => JSON.stringify(Buffer.from(bytes).toString('base64'))

function failure(cause: (Error & { readonly code?: string }) | undefined): MillraceError {
  return cause === undefined || cause.code === 'EPIPE' || cause.code === 'ERR_STREAM_DESTROYED'
    ? new MillraceError(
        'MILLRACE_SINK_NOT_READY',
        'nobody reads stdout any more: the program at the other end of the pipe has ended',
        {
          cause,
          remedy: 'start both again; events that were not read come again',
        },
      )
    : new MillraceError('MILLRACE_SINK_UNREACHABLE', `stdout could not be written: ${cause.message}`, { cause })
}
