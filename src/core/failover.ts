import { beginningAt, type Epoch, epochsUpon, lastEpoch, relayedUpTo, type ServerIdentity, sharedUpTo } from './epoch.ts'
import { MillraceError } from './errors.ts'
import { formatLsn, type Lsn, type Position } from './position.ts'
import type { RelayState, Tail } from './relay-state.ts'
import type { SourceIdentity } from './source.ts'

/** The ways on that bring back what is missing, or do without it. */
export const RESUME =
  'millrace resume explains it; millrace resume --refill publishes what the outbox table still holds of it, millrace resume --accept-gap goes on without it'

/**
 * The state with which a session begins upon this server. Asked once the tails are found: what the queue holds decides,
 * not what was recorded of it.
 *
 * A promoted standby that has all that was relayed continues the stream, in a new epoch from its switch point on. One
 * that lacks some of it does not: the queue holds events that this server never had, and its own may contradict them.
 * So does a server that lost WAL of its own (a volume restored, fsync off).
 *
 * @throws MILLRACE_SOURCE_CHANGED, MILLRACE_SLOT_MOVED
 */
export function followServer(found: {
  readonly state: RelayState
  readonly topics: ReadonlyMap<string, readonly Tail[]>
  readonly identity: SourceIdentity
}): RelayState {
  const { state, topics, identity } = found
  const epoch = lastEpoch(state.epochs)
  const shared = refuseForeign(state, identity)
  const relayed = relayedUpTo(epoch, topics)
  if (relayed !== null && relayed >= shared) throw phantoms(epoch, identity, shared, topics)
  // one that was on its way when its server was replaced, and arrived after the next session had begun
  for (const [i, next] of state.epochs.slice(1).entries()) {
    const before = state.epochs[i] as Epoch
    const late = relayedUpTo(before, topics)
    const accepted = next.from === 0n || state.gaps.some((gap) => gap.epoch >= next.epoch)
    if (late !== null && late >= next.from && !accepted) throw phantoms(before, identity, next.from, topics)
  }
  let { intent } = state
  // beyond what is shared there was nothing of ours, else it would have been relayed
  if (intent > shared) intent = shared
  if (identity.confirmed > intent)
    throw explainGap(
      new MillraceError(
        'MILLRACE_SLOT_MOVED',
        `the slot ${identity.slot} sends only what was committed from ${formatLsn(identity.confirmed)} on: it was made again or advanced by somebody else, or the queue went back to an earlier state of its own`,
      ),
      { ...state, intent },
      identity.confirmed,
    )
  const epochs = epochsUpon(state.epochs, identity, topics)
  return { ...state, topics, epochs, intent, drained: null, floor: floorOf(state, shared) }
}

/** Never above what the server shares with what was drained: what it commits there now was never published. */
function floorOf({ epochs, drained, floor }: RelayState, shared: Lsn): Position | null {
  const known = drained === null ? floor : beginningAt(epochs, drained.lsn)
  const highest = beginningAt(epochs, shared)
  return known !== null && known > highest ? highest : known
}

/**
 * Up to where the server's past is the one that was relayed.
 * @throws MILLRACE_SOURCE_CHANGED when it has no such past
 */
export function refuseForeign(state: RelayState, server: ServerIdentity): Lsn {
  const epoch = lastEpoch(state.epochs)
  const shared = sharedUpTo(epoch, server)
  if (shared !== null) return shared
  const what =
    server.systemId === epoch.systemId
      ? `the database is on timeline ${nameOf(server)}, which does not descend from timeline ${nameOf(epoch)}, on which the stream was read`
      : `the database is system ${server.systemId} on timeline ${server.timeline}, and the stream was read from system ${epoch.systemId} on timeline ${epoch.timeline}`
  throw new MillraceError(
    'MILLRACE_SOURCE_CHANGED',
    `${what}, up to ${formatLsn(state.intent)}: what was committed there after that is not in the queue, and whether this database has it, LSNs cannot tell. What the queue holds is safe`,
    { remedy: `if source.url is wrong, correct it; if this database replaces the other: ${RESUME}` },
  )
}

/** The error, with what the relay's state knows: from where to where events are missing, what is safe, how to go on. */
export function explainGap(error: MillraceError, state: Pick<RelayState, 'intent' | 'topics'>, to: Lsn | null): MillraceError {
  const { intent } = state
  const last = lastPosition(state.topics)
  const upTo = `everything up to ${formatLsn(intent)}${last === null ? '' : ` (the last event at ${last})`}`
  const gap = `What was committed between ${formatLsn(intent)} and ${to === null ? 'now' : formatLsn(to)}`
  return new MillraceError(
    error.code,
    `${error.message}. ${gap} may be missing in the queue; ${upTo} was relayed and is safe, and so are the rows that the outbox still holds`,
    {
      cause: error,
      remedy: RESUME,
      fields: { ...error.fields, from: formatLsn(intent), to: to === null ? null : formatLsn(to) },
    },
  )
}

function phantoms(
  epoch: Epoch,
  server: ServerIdentity,
  shared: Lsn,
  topics: ReadonlyMap<string, readonly Tail[]>,
): MillraceError {
  const last = lastPosition(topics)
  const what =
    server.timeline === epoch.timeline
      ? `the database has lost WAL: it ends at ${formatLsn(shared)}, before events that were relayed from it; it was restored to an earlier state`
      : `the database was promoted to timeline ${server.timeline}, which left timeline ${epoch.timeline} at ${formatLsn(shared)}, before events that were relayed from it: the standby lagged behind`
  return new MillraceError(
    'MILLRACE_SOURCE_CHANGED',
    `${what}. The queue and its sinks hold events from ${formatLsn(shared)} up to ${last} that this database never had; all events before them agree, and what was committed since waits in the slot and in the outbox`,
    {
      remedy: `bring back what those events tell of, or correct the sinks, as the business needs; then go on behind them: ${RESUME}`,
      fields: { from: formatLsn(shared), to: last },
    },
  )
}

function lastPosition(topics: ReadonlyMap<string, readonly Tail[]>): Position | null {
  let last: Position | null = null
  for (const tails of topics.values())
    for (const { position } of tails) if (position !== null && (last === null || position > last)) last = position
  return last
}

const nameOf = ({ timeline, ...of }: Epoch | ServerIdentity): string => {
  const began = 'began' in of ? of.began : (of.history.at(-1)?.end ?? 0n)
  return began === 0n ? String(timeline) : `${timeline} (begun at ${formatLsn(began)})`
}
