import { epochAt } from './epoch.ts'
import { MillraceError } from './errors.ts'
import { isPosition, type Position, position } from './position.ts'
import type { RelayState, Tail } from './relay-state.ts'

/**
 * A named checkpoint: the tails of the relay's state at one moment, kept under a name. Every tail is acknowledged, so on
 * each partition all that stands up to it was published before, and all that is published later stands behind it: one
 * moment for the relay and every sink.
 */
export interface SavedCheckpoint {
  readonly name: string
  /** taken by the running relay on its interval, and kept for a limited time */
  readonly automatic: boolean
  /** when it was saved, ms since the Unix epoch; what it covers is at most as late */
  readonly at: number
  readonly source: string
  /** of the stream that the tails are of: one that was begun anew is another */
  readonly streamId: string
  /** every change below it stands up to the tails; a tail may be above it */
  readonly position: Position
  /** by topic: each partition's tail; what is not named here had not begun */
  readonly topics: ReadonlyMap<string, readonly Tail[]>
}

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/
export const NAME_EXPECTED = 'a lower-case letter or a digit, then at most 62 of a-z, 0-9, ".", "_" and "-"'

const AUTOMATIC = 'auto-'
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
/** a date, alone or with a time: `2026-11-20-before-the-move` is a name */
const DATE = /^\d{4}-\d{2}-\d{2}([Tt ].*)?$/

export const isEventId = (text: string): boolean => UUID.test(text)
export const isDateOrTime = (text: string): boolean => DATE.test(text)

/** Why nobody may give a checkpoint this name; null: it is one. Where a name is read, an event id, a position or a time may stand too. */
export function nameFault(name: string): string | null {
  if (!NAME.test(name)) return `expected ${NAME_EXPECTED}`
  if (isPosition(name)) return 'it reads as a position'
  if (isEventId(name)) return 'it reads as an event id'
  if (isDateOrTime(name)) return 'it reads as a time'
  if (/^\d+$/.test(name)) return 'it reads as a number'
  if (name.startsWith(AUTOMATIC)) return `names that begin with ${AUTOMATIC} are those of the automatic ones`
  return null
}

/** `auto-20261121t180000z`: sorts by time */
export function automaticName(at: number): string {
  const [date, time] = new Date(at).toISOString().split('T') as [string, string]
  return `${AUTOMATIC}${date.replaceAll('-', '')}t${time.slice(0, 8).replaceAll(':', '')}z`
}

/** A source may be called `checkpoint`; none begins with a dot, so no relay takes this for a state of its own. */
export const checkpointPrefix = (source: string): string => `.checkpoint/${source}/`
export const checkpointKey = (source: string, name: string): string => `${checkpointPrefix(source)}${name}`

export function checkpointOf(state: RelayState, name: string, at: number, automatic: boolean): SavedCheckpoint {
  return {
    name,
    automatic,
    at,
    source: state.source,
    streamId: state.streamId,
    position: position(epochAt(state.epochs, state.intent), state.intent, 0),
    topics: state.topics,
  }
}

const FORMAT = 1

export function encodeCheckpoint({ topics, ...rest }: SavedCheckpoint): string {
  return JSON.stringify({
    format: FORMAT,
    ...rest,
    topics: [...topics].map(([topic, tails]) => [topic, tails.map(({ position, offset }) => [position, String(offset)])]),
  })
}

/** @throws MILLRACE_STATE_CONFLICT for a text that is not a checkpoint this version reads */
export function decodeCheckpoint(key: string, text: string): SavedCheckpoint {
  try {
    const { format, name, automatic, at, source, streamId, position, topics } = JSON.parse(text) as Record<string, unknown>
    if (
      format !== FORMAT ||
      typeof name !== 'string' ||
      !NAME.test(name) ||
      typeof automatic !== 'boolean' ||
      !Number.isSafeInteger(at) ||
      typeof source !== 'string' ||
      typeof streamId !== 'string' ||
      !isPosition(position) ||
      key !== checkpointKey(source, name)
    )
      throw new RangeError('a field is missing, or another one than expected')
    return {
      name,
      automatic,
      at: at as number,
      source,
      streamId,
      position,
      topics: new Map((topics as [string, [unknown, unknown][]][]).map(([topic, tails]) => [topic, tails.map(tail)])),
    }
  } catch (cause) {
    throw new MillraceError('MILLRACE_STATE_CONFLICT', `the checkpoint record ${key} cannot be read: ${String(cause)}`, {
      cause,
      remedy: 'was it altered by hand, or written by another version? millrace checkpoint drop removes it',
    })
  }
}

function tail([position, offset]: [unknown, unknown]): Tail {
  if (position !== null && !isPosition(position)) throw new RangeError(`${String(position)} is not a position`)
  if (typeof offset !== 'string' || !/^(-1|\d{1,19})$/.test(offset)) throw new RangeError(`${String(offset)} is not an offset`)
  return { position, offset: BigInt(offset) }
}

/** What the checkpoints of one source may take together: all of them are read at each look. */
export const CHECKPOINT_LIMITS = { automatic: 1_000, saved: 1_000, automaticBytes: 8 << 20 } as const

/** The automatic ones that are to go, oldest first: beyond their time, or more than there may be. */
export function outlived(
  kept: readonly { readonly checkpoint: SavedCheckpoint; readonly bytes: number }[],
  keep: number,
  now: number,
): readonly SavedCheckpoint[] {
  const latestFirst = kept.filter(({ checkpoint }) => checkpoint.automatic).sort((a, b) => b.checkpoint.at - a.checkpoint.at)
  let bytes = 0
  return latestFirst
    .filter(({ checkpoint, bytes: own }, index) => {
      bytes += own
      // the latest one stays whatever it weighs
      return (
        checkpoint.at < now - keep ||
        index >= CHECKPOINT_LIMITS.automatic ||
        (index > 0 && bytes > CHECKPOINT_LIMITS.automaticBytes)
      )
    })
    .map(({ checkpoint }) => checkpoint)
    .reverse()
}
