import { MillraceError } from '../core/errors.ts'
import { isPosition, type Lsn, type Position, parseLsn } from '../core/position.ts'
import { isDateOrTime, isEventId, NAME_EXPECTED, nameFault, type SavedCheckpoint } from '../core/saved-checkpoint.ts'

/** What a person means by `--from` and `--to`. */
export type Bound =
  | { readonly kind: 'checkpoint'; readonly text: string; readonly checkpoint: SavedCheckpoint }
  | { readonly kind: 'position'; readonly text: string; readonly position: Position }
  | { readonly kind: 'lsn'; readonly text: string; readonly lsn: Lsn }
  | { readonly kind: 'time'; readonly text: string; readonly time: number }
  | { readonly kind: 'event'; readonly text: string; readonly id: string }

export const BOUND = 'a checkpoint, a position, an LSN, a time such as 2026-11-20T10:00Z, or an event id'

const EVENT = 'event:'

/**
 * No text can be two of them: a checkpoint's name is refused where it reads as another (`nameFault`). An event id that is
 * no UUID is written `event:ID`.
 *
 * @throws MILLRACE_CHECKPOINT_UNKNOWN, MILLRACE_USAGE
 */
export function parseBound(text: string, checkpoints: readonly SavedCheckpoint[]): Bound {
  if (isPosition(text.toLowerCase())) return { kind: 'position', text, position: text.toLowerCase() as Position }
  if (text.startsWith(EVENT) && text.length > EVENT.length) return { kind: 'event', text, id: text.slice(EVENT.length) }
  if (isEventId(text)) return { kind: 'event', text, id: text.toLowerCase() }
  if (text.includes('/')) return { kind: 'lsn', text, lsn: lsnOf(text) }
  if (isDateOrTime(text)) return { kind: 'time', text, time: timeOf(text) }
  const checkpoint = checkpoints.find(({ name }) => name === text)
  if (checkpoint !== undefined) return { kind: 'checkpoint', text, checkpoint }
  if (nameFault(text) === `expected ${NAME_EXPECTED}`) throw new MillraceError('MILLRACE_USAGE', `${text}: expected ${BOUND}`)
  throw new MillraceError('MILLRACE_CHECKPOINT_UNKNOWN', `there is no checkpoint ${text}`, {
    remedy: 'millrace checkpoint list names those there are; an event id that is no UUID is written event:ID',
    fields: { checkpoint: text },
  })
}

function lsnOf(text: string): Lsn {
  try {
    return parseLsn(text)
  } catch (cause) {
    throw new MillraceError('MILLRACE_USAGE', `${text}: expected an LSN such as 0/16B3748`, { cause })
  }
}

const TIME =
  /^(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(?:([Zz])|([+-])(\d{2})(?::?(\d{2}))?)?)?$/

/** ISO 8601, or as Postgres prints it, always with its zone; ms since the Unix epoch, rounded down. */
function timeOf(text: string): number {
  const match = TIME.exec(text)
  const refuse = (why: string): never => {
    throw new MillraceError('MILLRACE_USAGE', `${text}: ${why}`, {
      remedy: 'write it with its zone: 2026-11-20T10:00Z, 2026-11-20T11:00+01:00',
    })
  }
  if (match === null) return refuse('expected a time such as 2026-11-20T10:00Z')
  const [, year, month, day, hour, minute, second = '0', fraction = '', zulu, sign, zoneHours, zoneMinutes = '0'] = match
  if (hour === undefined) return refuse('a day has no zone, and each place begins it at another time')
  if (zulu === undefined && sign === undefined) return refuse('the zone is missing, and another machine would read another time')
  const ms = Number(fraction.padEnd(3, '0').slice(0, 3))
  const parts = [Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second)] as const
  const local = Date.UTC(...parts, ms)
  const told = new Date(local)
  const same = [
    told.getUTCFullYear(),
    told.getUTCMonth(),
    told.getUTCDate(),
    told.getUTCHours(),
    told.getUTCMinutes(),
    told.getUTCSeconds(),
  ].every((part, index) => part === parts[index])
  if (!same || Number(zoneHours ?? 0) > 15 || Number(zoneMinutes) > 59) return refuse('there is no such time')
  const offset = (Number(zoneHours ?? 0) * 60 + Number(zoneMinutes)) * 60_000
  return sign === '-' ? local + offset : local - offset
}
