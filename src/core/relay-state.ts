import { MillraceError } from './errors.ts'
import { formatLsn, isPosition, type Lsn, type Position, parseLsn } from './position.ts'
import type { SourceIdentity } from './source.ts'

/**
 * The relay's durable state (PROTOCOL 2.2). The record in the queue is the truth and precedes every confirm; a copy in
 * the source follows, so that a loss or a rewind of either side shows against the other.
 */
export interface RelayState {
  /** made once by `init`, on both sides */
  readonly streamId: string
  /** grows by one with each relay session; the record of the latest session counts, so a zombie's late write cannot win */
  readonly session: number
  readonly source: string
  readonly systemId: string
  readonly timeline: number
  readonly slot: string
  readonly publication: string
  readonly epoch: number
  /** never below what Postgres was told: confirmed <= intent */
  readonly intent: Lsn
  /** of everything that moves positions or partitions: outbox mapping, topic template, partitioner */
  readonly fingerprint: string
  readonly topics: ReadonlyMap<string, readonly Tail[]>
}

/** The last record of ours that a partition is known to hold. The number of tails pins the topic's partition count. */
export interface Tail {
  /** null: none of ours yet */
  readonly position: Position | null
  /** of that record; before the first one, the last offset that is somebody else's (-1 in an empty log) */
  readonly offset: bigint
}

const FORMAT = 1

export function encodeState(state: RelayState): string {
  return JSON.stringify({
    format: FORMAT,
    streamId: state.streamId,
    session: state.session,
    source: state.source,
    systemId: state.systemId,
    timeline: state.timeline,
    slot: state.slot,
    publication: state.publication,
    epoch: state.epoch,
    intent: formatLsn(state.intent),
    fingerprint: state.fingerprint,
    topics: Object.fromEntries(
      [...state.topics].map(([topic, tails]) => [topic, tails.map((tail) => [tail.position, String(tail.offset)])]),
    ),
  })
}

/** @throws MILLRACE_STATE_CONFLICT for a text that is not a state this version reads */
export function decodeState(text: string): RelayState {
  try {
    const json = JSON.parse(text) as Record<string, unknown>
    if (json.format !== FORMAT) throw new RangeError(`format ${String(json.format)}, expected ${FORMAT}`)
    const topics = Object.entries(json.topics as Record<string, readonly (readonly [string | null, string])[]>)
    return {
      streamId: json.streamId as string,
      session: json.session as number,
      source: json.source as string,
      systemId: json.systemId as string,
      timeline: json.timeline as number,
      slot: json.slot as string,
      publication: json.publication as string,
      epoch: json.epoch as number,
      intent: parseLsn(json.intent as string),
      fingerprint: json.fingerprint as string,
      topics: new Map(
        topics.map(([topic, tails]) => [
          topic,
          tails.map(([position, offset]) => {
            if (position !== null && !isPosition(position)) throw new RangeError(`${position} is not a position`)
            return { position, offset: BigInt(offset) }
          }),
        ]),
      ),
    }
  } catch (cause) {
    throw new MillraceError('MILLRACE_STATE_CONFLICT', `a relay state record cannot be read: ${String(cause)}`, { cause })
  }
}

/**
 * The key of a session's record in the queue's state store: sorts by session. A session whose first write has an unknown
 * outcome is followed by one of the same number; each writes a record of its own, or the late one would replace what
 * has been confirmed since.
 */
export function stateKey(source: string, session: number, writer?: string): string {
  const key = `${source}/${String(session).padStart(12, '0')}`
  return writer === undefined ? key : `${key}/${writer}`
}

export const statePrefix = (source: string): string => `${source}/`

/** The latest session's record, of those under the source's prefix; null when there is none. */
export function latestState(records: ReadonlyMap<string, string>): RelayState | null {
  let latest: RelayState | null = null
  for (const text of records.values()) {
    const state = decodeState(text)
    if (latest === null || state.session > latest.session || (state.session === latest.session && isFurther(state, latest)))
      latest = state
  }
  return latest
}

/** Of two sessions of one number only one got beyond its first write: it covers all that the other does. */
function isFurther(a: RelayState, b: RelayState): boolean {
  if (a.intent !== b.intent) return a.intent > b.intent
  return reach(a) > reach(b)
}

/** grows with each topic and each record that a state knows of */
function reach({ topics }: RelayState): bigint {
  let sum = 0n
  for (const tails of topics.values()) for (const { offset } of tails) sum += offset + 2n
  return sum
}

/**
 * The state that a new session goes on from, or the reason why no session may begin: each halt is a schedule that
 * would otherwise lose events without a word.
 */
export function resumeState(found: {
  readonly source: string
  readonly queue: RelayState | null
  readonly copy: RelayState | null
  readonly identity: SourceIdentity
  readonly fingerprint: string
}): RelayState {
  const { source, queue, copy, identity, fingerprint } = found
  const init = `millrace init`
  if (queue === null && copy === null)
    throw new MillraceError('MILLRACE_STATE_MISSING', `neither the queue nor the database knows the stream ${source}`, {
      remedy: `run: ${init}`,
    })
  if (queue === null)
    throw new MillraceError(
      'MILLRACE_STATE_MISSING',
      `the queue has lost the relay's state of ${source}, which the database remembers up to session ${copy?.session} and ${formatLsn(copy?.intent ?? 0n)}`,
      { remedy: `check that the queue is the right one; if nothing was ever relayed, run: ${init}` },
    )
  if (copy === null)
    throw new MillraceError(
      'MILLRACE_STATE_MISSING',
      `the database does not know the stream ${queue.streamId}, which the queue holds up to ${formatLsn(queue.intent)}`,
      { remedy: 'check that the database is the right one and was not restored from an older backup' },
    )
  if (queue.streamId !== copy.streamId)
    throw new MillraceError(
      'MILLRACE_STATE_CONFLICT',
      `the queue holds the stream ${queue.streamId} and the database ${copy.streamId}: they do not belong together`,
      { remedy: 'check name, source.url and the queue; two pipelines of one name may share neither side' },
    )
  if (copy.session > queue.session || (copy.session === queue.session && copy.intent > queue.intent))
    throw new MillraceError(
      'MILLRACE_QUEUE_LOST_END',
      `the queue's relay state ends at session ${queue.session}, ${formatLsn(queue.intent)}, but its copy in the database is at session ${copy.session}, ${formatLsn(copy.intent)}: the queue lost what it had acknowledged`,
    )
  if (queue.systemId !== identity.systemId || queue.timeline !== identity.timeline)
    throw new MillraceError(
      'MILLRACE_SOURCE_CHANGED',
      `the database is system ${identity.systemId} on timeline ${identity.timeline}, the stream was read from system ${queue.systemId} on timeline ${queue.timeline}`,
      { remedy: 'if the database was restored or failed over, positions need a new epoch: do not go on without one' },
    )
  if (queue.slot !== identity.slot)
    throw new MillraceError('MILLRACE_SLOT_MOVED', `the stream was read from slot ${queue.slot}, now from ${identity.slot}`, {
      remedy: `set source.slot back to ${queue.slot}`,
    })
  if (queue.publication !== identity.publication)
    throw new MillraceError(
      'MILLRACE_PUBLICATION_MISSING',
      'the publication was made again, or the outbox table joined it again, since the stream began: Postgres skips what was written in between',
      {
        remedy:
          'compare the outbox with the queue from then on; to begin a new stream: millrace teardown --slot --publication --schema',
      },
    )
  if (identity.confirmed > queue.intent)
    throw new MillraceError(
      'MILLRACE_SLOT_MOVED',
      `slot ${identity.slot} is confirmed up to ${formatLsn(identity.confirmed)}, but the relay never confirmed beyond ${formatLsn(queue.intent)}: what lies between was never relayed`,
      { remedy: 'the slot was recreated or advanced by somebody else; the rows are still in the outbox if within its retention' },
    )
  if (queue.fingerprint !== fingerprint)
    throw new MillraceError(
      'MILLRACE_FINGERPRINT_CHANGED',
      'the outbox mapping, the topic template or the partitioner changed, which moves positions or partitions of a stream under way',
      { remedy: 'set them back; a change is accepted only when the stream is drained' },
    )
  return queue
}
