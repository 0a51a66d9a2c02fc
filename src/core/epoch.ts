import { type Lsn, type Position, position } from './position.ts'
import type { Tail } from './relay-state.ts'

/**
 * Epoch: what keeps positions in order when LSNs cannot (PROTOCOL 2.1). A promoted standby writes its own WAL from the
 * switch point on, over LSNs that the old primary may have used as well; a restored or new database begins anywhere.
 * The epoch of a change is that of the timeline its commit record lies on.
 */
export interface Epoch {
  /** grows by one with each */
  readonly epoch: number
  readonly systemId: string
  readonly timeline: number
  /** where this timeline left the one before it; 0 for the first. Two standbys promoted apart share a number, not this */
  readonly began: Lsn
  /** commits at and above this LSN are of this epoch, until the next one's; 0: all that the server still sends */
  readonly from: Lsn
}

/** What a server says of itself, whatever slots it has. */
export interface ServerIdentity {
  readonly systemId: string
  readonly timeline: number
  /** the timelines that led to this one, oldest first, each with the LSN at which it was left; empty on timeline 1 */
  readonly history: readonly { readonly timeline: number; readonly end: Lsn }[]
  /** how far its WAL reached when it was asked */
  readonly walEnd: Lsn
}

/** The epoch of a commit that the server sends now; of a state's epochs, which are never empty. */
export function epochAt(epochs: readonly Epoch[], commitLsn: Lsn): number {
  let index = epochs.length - 1
  while (index > 0 && commitLsn < (epochs[index] as Epoch).from) index--
  return (epochs[index] as Epoch).epoch
}

/** All events of commits below the LSN stand below it, and no other. */
export function beginningAt(epochs: readonly Epoch[], lsn: Lsn): Position {
  return position(epochAt(epochs, lsn), lsn, 0)
}

export function lastEpoch(epochs: readonly Epoch[]): Epoch {
  return epochs[epochs.length - 1] as Epoch
}

/** A further epoch on the server's timeline as it is; the first one of a stream when there is none before it. */
export function nextEpoch(epochs: readonly Epoch[], server: ServerIdentity, from: Lsn = 0n): Epoch {
  const { systemId, timeline, history } = server
  return { epoch: (epochs.at(-1)?.epoch ?? 0) + 1, systemId, timeline, began: history.at(-1)?.end ?? 0n, from }
}

/**
 * Up to where the server's WAL is that of the epoch's timeline: the switch point at which it left that timeline, or the
 * end of its WAL while it is on it. Null: the server has never been on it.
 */
export function sharedUpTo(epoch: Epoch, server: ServerIdentity): Lsn | null {
  if (epoch.systemId !== server.systemId) return null
  let began = 0n
  for (const { timeline, end } of server.history) {
    if (timeline === epoch.timeline && began === epoch.began) return end
    began = end
  }
  return server.timeline === epoch.timeline && began === epoch.began ? server.walEnd : null
}

/** The commit LSN of the last event that was relayed in the epoch, of all partitions; null: none was. */
export function relayedUpTo(epoch: Epoch, topics: ReadonlyMap<string, readonly Tail[]>): Lsn | null {
  const prefix = `${epoch.epoch.toString(16).padStart(8, '0')}-`
  let last: string | null = null
  for (const tails of topics.values())
    for (const { position } of tails) if (position?.startsWith(prefix) && (last === null || position > last)) last = position
  return last === null ? null : BigInt(`0x${last.slice(9, 25)}`)
}

/**
 * The epochs with which the stream goes on upon this server, once it may: one more for each timeline that the server
 * took since, from its switch point on, so that what it still sends of the shared past keeps its epoch. A server that
 * does not descend from what was read, or has lost WAL of its own that was relayed, shares no past that could be relied
 * on: all that it sends is of a new epoch.
 */
export function epochsUpon(
  epochs: readonly Epoch[],
  server: ServerIdentity,
  topics: ReadonlyMap<string, readonly Tail[]>,
): readonly Epoch[] {
  const last = lastEpoch(epochs)
  const shared = sharedUpTo(last, server)
  if (shared === null) return [...epochs, nextEpoch(epochs, server)]
  const branch = [...server.history.map(({ timeline }) => timeline), server.timeline]
  const at = branch.indexOf(last.timeline)
  if (at === branch.length - 1) {
    const relayed = relayedUpTo(last, topics)
    return relayed !== null && relayed >= shared ? [...epochs, nextEpoch(epochs, server)] : epochs
  }
  const later = branch.slice(at + 1).map((timeline, index): Epoch => {
    const began = (server.history[at + index] as { readonly end: Lsn }).end
    return { epoch: last.epoch + 1 + index, systemId: server.systemId, timeline, began, from: began }
  })
  return [...epochs, ...later]
}
