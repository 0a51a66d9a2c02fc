import { beginningAt, type Epoch, lastEpoch, type ServerIdentity } from './epoch.ts'
import { MillraceError } from './errors.ts'
import { explainGap, refuseForeign } from './failover.ts'
import { formatLsn, type Lsn, type Position } from './position.ts'
import type { SourceIdentity } from './source.ts'
import { decodeState } from './state-text.ts'
import { LOST_END } from './tail.ts'

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
  readonly slot: string
  readonly publication: string
  /** never empty; the last one is that of the server's timeline */
  readonly epochs: readonly Epoch[]
  /** never below what Postgres was told: confirmed <= intent */
  readonly intent: Lsn
  /** of everything that moves positions or partitions: outbox mapping, topic template, partitioner */
  readonly fingerprint: string
  readonly topics: ReadonlyMap<string, readonly Tail[]>
  /** the last copy of a state that the source is known to hold: one that holds an older copy was restored to an earlier time */
  readonly copied: Copied
  /** the latest {@link MAX_GAPS}, oldest first: what people decided about changes that no slot could send any more */
  readonly gaps: readonly Gap[]
  /** all that was committed below this LSN is published and applied; null as soon as a session begins */
  readonly drained: { readonly lsn: Lsn; readonly at: number } | null
  /**
   * All events below it were published before the stream was last drained; null: it never was. A slot that rewinds sends them
   * again, and what a drain is for may have moved their keys to partitions whose tails do not know them.
   */
  readonly floor: Position | null
}

/** The last record of ours that a partition is known to hold. The number of tails pins the topic's partition count. */
export interface Tail {
  /** null: none of ours yet */
  readonly position: Position | null
  /** of that record; before the first one, the last offset that is somebody else's (-1 in an empty log) */
  readonly offset: bigint
}

/** Which of a stream's states a copy is: its last epoch, its session and its intent. */
export interface Copied {
  readonly epoch: number
  readonly session: number
  readonly intent: Lsn
}

export const copiedOf = ({ epochs, session, intent }: RelayState): Copied => ({ epoch: lastEpoch(epochs).epoch, session, intent })

/**
 * Whether the source has gone back in time since it acknowledged a copy, on the timeline that is read: new commits then
 * stand at LSNs that were used before, and would be taken for what was relayed. A promoted standby may lack the last
 * copies without lacking an event; it is judged by its switch point.
 */
export function wentBack(state: RelayState, copy: RelayState, server: ServerIdentity): boolean {
  const { copied } = state
  const last = lastEpoch(state.epochs)
  if (copied.epoch !== last.epoch || server.timeline !== last.timeline) return false
  return copy.session < copied.session || (copy.session === copied.session && copy.intent < copied.intent)
}

/**
 * Whether a relay that ran until the target was confirmed left the stream at rest: nothing is under way, and nothing that was
 * relayed comes again. Else a mark would be wrong: what comes again, or arrives late, may by then belong elsewhere.
 */
export function isAtRest(
  after: RelayState | null,
  run: { readonly before: RelayState | null; readonly target: Lsn; readonly endedWell: boolean },
): after is RelayState {
  if (after === null || after.intent < run.target) return false
  // what a session that failed had under way may arrive yet: one that read beyond it, and ended well, must follow
  if (!run.endedWell || after.session !== (run.before?.session ?? 0) + 1) return false
  // no transaction is half published
  const rest = beginningAt(after.epochs, after.intent)
  return [...after.topics.values()].every((tails) => tails.every(({ position }) => position === null || position < rest))
}

/** What lay between the end of one slot and the start of the next, and what was done about it. */
export interface Gap {
  /** when it was decided, ms since the Unix epoch */
  readonly at: number
  /** the one that begins after it */
  readonly epoch: number
  readonly from: Lsn
  readonly to: Lsn
  /** null: accepted as it is; pending: begun, and no session may begin before it is finished */
  readonly refill: 'pending' | { readonly published: number; readonly ambiguous: number } | null
}

export const MAX_GAPS = 50

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
  const states = [...records.values()].map(decodeState)
  for (const state of states) {
    if (latest === null || state.session > latest.session || (state.session === latest.session && isFurther(state, latest)))
      latest = state
  }
  return latest === null || latest.drained !== null ? latest : furthest(latest, states)
}

/**
 * The latest session may have begun upon what it had read before it was replaced, and not know it yet: the owner of the
 * slot has then recorded, and confirmed, more. Whatever any of them recorded is durable, so the furthest counts.
 */
function furthest(latest: RelayState, states: readonly RelayState[]): RelayState {
  let { intent } = latest
  const topics = new Map(latest.topics)
  // the latest that knows a topic says how many partitions it has: nothing was published by what an earlier one recorded late
  for (const state of states.toSorted((a, b) => b.session - a.session)) {
    // a drained stream went on with what it was given then, perhaps without a topic
    if (state.drained !== null || lastEpoch(state.epochs).epoch !== lastEpoch(latest.epochs).epoch) continue
    if (state.intent > intent) intent = state.intent
    for (const [topic, tails] of state.topics) {
      const known = topics.get(topic)
      if (known === undefined || known.length === tails.length)
        topics.set(topic, known?.map((tail, i) => further(tail, tails[i] as Tail)) ?? tails)
    }
  }
  return { ...latest, intent, topics }
}

/** by position: a late duplicate run stands at the higher offset */
function further(a: Tail, b: Tail): Tail {
  if (a.position === b.position) return a.offset >= b.offset ? a : b
  return b.position !== null && (a.position === null || b.position > a.position) ? b : a
}

/**
 * Of two sessions of one number only one got beyond its first write: it covers all that the other does. Unless each had
 * a server of its own, the one that was replaced and the promoted one: then the later timeline counts. (Not the number of
 * epochs: a server that was promoted meanwhile may have been left behind by one that descends from an older timeline.)
 */
function isFurther(a: RelayState, b: RelayState): boolean {
  const [own, other] = [lastEpoch(a.epochs), lastEpoch(b.epochs)]
  if (own.systemId === other.systemId && own.timeline !== other.timeline) return own.timeline > other.timeline
  if (own.epoch !== other.epoch) return own.epoch > other.epoch
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
 * would otherwise lose events without a word. What depends on the tails comes after them: `followServer`.
 */
export function resumeState(found: {
  readonly source: string
  readonly queue: RelayState | null
  readonly copy: RelayState | null
  readonly identity: SourceIdentity
  readonly fingerprint: string
}): RelayState {
  const { source, queue, copy, identity, fingerprint } = found
  const init = 'run: millrace init'
  if (queue === null && copy === null)
    throw new MillraceError('MILLRACE_STATE_MISSING', `neither the queue nor the database knows the stream ${source}`, {
      remedy: init,
    })
  if (queue === null)
    throw new MillraceError(
      'MILLRACE_STATE_MISSING',
      `the queue has lost the relay's state of ${source}, which the database remembers up to session ${copy?.session} and ${formatLsn(copy?.intent ?? 0n)}`,
      { remedy: `check that the queue is the right one; if nothing was ever relayed, ${init}` },
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
      { remedy: LOST_END },
    )
  if (queue.gaps.at(-1)?.refill === 'pending')
    throw new MillraceError(
      'MILLRACE_STATE_CONFLICT',
      `a refill of ${source} was begun and not finished: its events stand before all that follows`,
      { remedy: 'finish it: millrace resume --refill' },
    )
  refuseForeign(queue, identity)
  if (wentBack(queue, copy, identity))
    throw explainGap(
      new MillraceError(
        'MILLRACE_SOURCE_CHANGED',
        `the database went back in time: it acknowledged a copy of the relay's state of session ${queue.copied.session}, ${formatLsn(queue.copied.intent)}, and now holds one of session ${copy.session}, ${formatLsn(copy.intent)}. It was restored to an earlier time, so that its LSNs mean other commits than those that were relayed`,
      ),
      { ...queue, intent: copy.intent },
      identity.walEnd,
    )
  if (queue.slot !== identity.slot)
    throw new MillraceError('MILLRACE_SLOT_MOVED', `the stream was read from slot ${queue.slot}, now from ${identity.slot}`, {
      remedy: `set source.slot back to ${queue.slot}`,
    })
  if (queue.publication !== identity.publication)
    throw explainGap(
      new MillraceError(
        'MILLRACE_PUBLICATION_MISSING',
        'the publication was altered or made again since the stream was last relayed: Postgres skips, without a word, what it did not publish in between',
      ),
      queue,
      identity.walEnd,
    )
  if (queue.fingerprint !== fingerprint && queue.drained === null)
    throw new MillraceError(
      'MILLRACE_FINGERPRINT_CHANGED',
      'the outbox mapping, the topic template or the partitioner changed, which moves positions or partitions of a stream under way',
      {
        remedy:
          'nothing was relayed with the new settings, and nothing is lost: set them back, or run millrace drain with the old ones, then go on with the new ones',
      },
    )
  return queue
}
