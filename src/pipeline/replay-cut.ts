import { epochAt, lastEpoch } from '../core/epoch.ts'
import { MillraceError } from '../core/errors.ts'
import { formatLsn, type Position, parsePosition, position } from '../core/position.ts'
import type { RelayState } from '../core/relay-state.ts'
import { isEventId, type SavedCheckpoint } from '../core/saved-checkpoint.ts'
import type { Bound } from './replay-bound.ts'
import {
  CLOCK_MARGIN,
  clamped,
  eventsOf,
  type Logs,
  MAX_INDEX,
  publishedAt,
  type RangeContext,
  type RangePlace,
} from './replay-log.ts'

/** A bound as a cut: events below it, and the rest. Of a `to`, what is asked for itself lies below too. */
export type Cut =
  | { readonly kind: 'time'; readonly bound: Bound; readonly time: number }
  | { readonly kind: 'position'; readonly bound: Bound; readonly first: Position; readonly last: Position }
  | { readonly kind: 'checkpoint'; readonly bound: Bound; readonly checkpoint: SavedCheckpoint }

export function cutAt(context: RangeContext, bound: Bound, found: ReadonlyMap<string, Position>): Cut {
  switch (bound.kind) {
    case 'time':
      return { kind: 'time', bound, time: bound.time }
    case 'checkpoint':
      return { kind: 'checkpoint', bound, checkpoint: bound.checkpoint }
    case 'position':
      return { kind: 'position', bound, first: bound.position, last: bound.position }
    case 'lsn': {
      if (context.state === null)
        throw refused(bound, `the queue does not know the stream ${context.source}, so no LSN can be placed in it`)
      const epoch = epochAt(context.state.epochs, bound.lsn)
      return { kind: 'position', bound, first: position(epoch, bound.lsn, 0), last: position(epoch, bound.lsn, MAX_INDEX) }
    }
    case 'event': {
      const at = found.get(bound.id)
      if (at === undefined)
        throw refused(
          bound,
          `no event of ${context.source} with the id ${bound.id} is in what the sink has applied and the queue retains`,
        )
      return { kind: 'position', bound, first: at, last: at }
    }
  }
}

function refused({ text }: Bound, why: string): MillraceError {
  return new MillraceError('MILLRACE_REPLAY_REFUSED', `${text}: ${why}`)
}

/** What cannot be meant is refused before anything is read for it. */
export function judged(context: RangeContext, cut: Cut): Cut {
  const { state, source, now } = context
  if (cut.kind === 'time') {
    if (cut.time > now) throw refused(cut.bound, `it lies in the future: it is ${new Date(now).toISOString()} now`)
    return cut
  }
  if (state === null) return cut
  if (cut.kind === 'checkpoint') {
    if (cut.checkpoint.streamId !== state.streamId)
      throw refused(
        cut.bound,
        `the checkpoint was saved of the stream ${cut.checkpoint.streamId}, and ${source} is now ${state.streamId}`,
      )
    return cut
  }
  const { epoch } = parsePosition(cut.first)
  const last = lastEpoch(state.epochs).epoch
  const first = state.epochs[0]?.epoch ?? last
  if (epoch < first || epoch > last)
    throw refused(
      cut.bound,
      `it is of epoch ${epoch}, and ${source} has ${first === last ? `only ${last}` : `${first} to ${last}`}: a position of another source?`,
    )
  const end = relayedUpTo(state, context)
  if (cut.first > end)
    throw refused(
      cut.bound,
      `it lies beyond what was relayed of ${source}, which ends at ${end} (LSN ${formatLsn(parsePosition(end).commitLsn)})`,
    )
  return cut
}

/** as the relay has recorded it, a second ago perhaps; what the sink has applied since was relayed, too */
function relayedUpTo(state: RelayState, { source, places }: RangeContext): Position {
  let end = position(epochAt(state.epochs, state.intent), state.intent, 0)
  for (const tails of state.topics.values())
    for (const tail of tails) if (tail.position !== null && tail.position > end) end = tail.position
  for (const { positions } of places) {
    const applied = positions.get(source)
    if (applied !== undefined && applied > end) end = applied
  }
  return end
}

export function refuseReversed(from: Cut, to: Cut | null): void {
  if (to === null) return
  const reversed =
    from.kind === 'time' && to.kind === 'time'
      ? from.time > to.time
      : from.kind !== 'time' && to.kind !== 'time' && lowerEnd(from) > upperEnd(to)
  if (reversed) throw refused(from.bound, `it comes after --to ${to.bound.text}`)
}

const lowerEnd = (cut: Exclude<Cut, { kind: 'time' }>): Position =>
  cut.kind === 'position' ? cut.first : cut.checkpoint.position
const upperEnd = (cut: Exclude<Cut, { kind: 'time' }>): Position => (cut.kind === 'position' ? cut.last : cut.checkpoint.position)

/** The positions of the events that are asked for by id, by id. */
export async function findEvents(
  context: RangeContext,
  logs: Logs,
  bounds: readonly (Bound | null)[],
): Promise<ReadonlyMap<string, Position>> {
  const wanted = new Set(bounds.flatMap((bound) => (bound?.kind === 'event' ? [bound.id] : [])))
  const found = new Map<string, Position>()
  if (wanted.size === 0) return found
  const created = Math.min(...[...wanted].map(createdAt)) - CLOCK_MARGIN
  const later = new Map<RangePlace, bigint>()
  for (const place of context.places) later.set(place, clamped(await publishedAt(context, created, place), logs(place), place))
  // where an id tells its time, what was published since is looked at first
  const ranges = [
    ...context.places.map((place) => ({ place, start: later.get(place) ?? 0n, end: place.end })),
    ...context.places.map((place) => ({ place, start: logs(place).start, end: later.get(place) ?? 0n })),
  ]
  for (const { place, ...range } of ranges)
    for await (const { event } of eventsOf(context, place, range)) {
      if (event.source !== context.source || !wanted.delete(event.id)) continue
      found.set(event.id, event.position)
      if (wanted.size === 0) return found
    }
  return found
}

/** the time that a UUID of version 7 bears (ms); 0 for any other id */
function createdAt(id: string): number {
  return isEventId(id) && id[14] === '7' ? Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : 0
}
