import type { Epoch } from './epoch.ts'
import { MillraceError } from './errors.ts'
import { murmur2 } from './murmur2.ts'
import { formatLsn, isPosition, type Lsn, type Position, parseLsn } from './position.ts'
import type { Copied, Gap, RelayState, Tail } from './relay-state.ts'

/**
 * The relay's state as text: a check over the JSON, a space, the JSON. Both of its homes are read and written by hand
 * when something is wrong; a text that somebody damaged must never pass for a state.
 */
const FORMAT = 1

export function encodeState(state: RelayState): string {
  const json = JSON.stringify({
    format: FORMAT,
    streamId: state.streamId,
    session: state.session,
    source: state.source,
    slot: state.slot,
    publication: state.publication,
    epochs: state.epochs.map(({ epoch, systemId, timeline, began, from }) => [
      epoch,
      systemId,
      timeline,
      formatLsn(began),
      formatLsn(from),
    ]),
    intent: formatLsn(state.intent),
    fingerprint: state.fingerprint,
    topics: [...state.topics].map(([topic, tails]) => [topic, tails.map((tail) => [tail.position, String(tail.offset)])]),
    copied: { ...state.copied, intent: formatLsn(state.copied.intent) },
    gaps: state.gaps.map(({ at, epoch, from, to, refill }) => ({ at, epoch, from: formatLsn(from), to: formatLsn(to), refill })),
    drained: state.drained === null ? null : { lsn: formatLsn(state.drained.lsn), at: state.drained.at },
    floor: state.floor,
  })
  return `${checkOf(json)} ${json}`
}

/** @throws MILLRACE_STATE_CONFLICT for a text that is not a state this version reads */
export function decodeState(text: string): RelayState {
  try {
    const json = text.slice(CHECK_LENGTH + 1)
    if (text[CHECK_LENGTH] !== ' ' || text.slice(0, CHECK_LENGTH) !== checkOf(json))
      throw new RangeError('its check does not fit')
    const state = fields(JSON.parse(json))
    if (state.format !== FORMAT) throw new RangeError(`format ${String(state.format)}, expected ${FORMAT}`)
    return {
      streamId: string(state.streamId),
      session: count(state.session),
      source: string(state.source),
      slot: string(state.slot),
      publication: string(state.publication),
      epochs: epochs(state.epochs),
      intent: lsn(state.intent),
      fingerprint: string(state.fingerprint),
      topics: topics(state.topics),
      copied: copied(fields(state.copied)),
      gaps: list(state.gaps).map(gap),
      drained: state.drained === null ? null : drained(fields(state.drained)),
      // one that was written before there were floors has none
      floor: position(state.floor ?? null),
    }
  } catch (cause) {
    throw new MillraceError('MILLRACE_STATE_CONFLICT', `a relay state record cannot be read: ${String(cause)}`, {
      cause,
      remedy:
        'was it altered by hand, or written by another version? the other side holds a record too: queue and millrace.relay_state',
    })
  }
}

const CHECK_LENGTH = 8
const bytes = new TextEncoder()
const checkOf = (json: string): string => (murmur2(bytes.encode(json)) >>> 0).toString(16).padStart(CHECK_LENGTH, '0')

function epochs(value: unknown): readonly Epoch[] {
  const found = list(value).map((entry): Epoch => {
    const [epoch, systemId, timeline, began, from] = list(entry)
    return { epoch: count(epoch), systemId: string(systemId), timeline: count(timeline), began: lsn(began), from: lsn(from) }
  })
  if (found.length === 0 || found.some(({ epoch }, index) => epoch !== (found[0] as Epoch).epoch + index))
    throw new RangeError('its epochs are not a row')
  return found
}

function topics(value: unknown): ReadonlyMap<string, readonly Tail[]> {
  const found = list(value).map((entry): readonly [string, readonly Tail[]] => {
    const [topic, tails] = list(entry)
    return [string(topic), list(tails).map(tail)]
  })
  const map = new Map(found)
  if (map.size !== found.length) throw new RangeError('a topic stands in it twice')
  return map
}

function tail(value: unknown): Tail {
  const [at, offset] = list(value)
  if (typeof offset !== 'string' || !/^(-1|\d{1,19})$/.test(offset)) throw new RangeError(`${String(offset)} is not an offset`)
  return { position: position(at), offset: BigInt(offset) }
}

function position(value: unknown): Position | null {
  if (value !== null && !isPosition(value)) throw new RangeError(`${String(value)} is not a position`)
  return value
}

const copied = ({ epoch, session, intent }: Record<string, unknown>): Copied => ({
  epoch: count(epoch),
  session: count(session),
  intent: lsn(intent),
})

function gap(value: unknown): Gap {
  const { at, epoch, from, to, refill } = fields(value)
  return { at: count(at), epoch: count(epoch), from: lsn(from), to: lsn(to), refill: refillOf(refill) }
}

function refillOf(value: unknown): Gap['refill'] {
  if (value === null || value === 'pending') return value
  const { published, ambiguous } = fields(value)
  return { published: count(published), ambiguous: count(ambiguous) }
}

const drained = ({ lsn: at, at: time }: Record<string, unknown>): RelayState['drained'] => ({ lsn: lsn(at), at: count(time) })

function fields(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new RangeError('an object is missing')
  return value as Record<string, unknown>
}

function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new RangeError('a list is missing')
  return value
}

function string(value: unknown): string {
  if (typeof value !== 'string') throw new RangeError('a text is missing')
  return value
}

function count(value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new RangeError(`${String(value)} is not a count`)
  return value as number
}

const lsn = (value: unknown): Lsn => parseLsn(string(value))
