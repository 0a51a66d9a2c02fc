import { MillraceError } from './errors.ts'
import type { Event } from './event.ts'
import type { Position } from './position.ts'
import type { TopicPartition } from './queue.ts'

/** One source's chain of events in one partition, as a sink has applied it (PROTOCOL 2.4). */
export interface Chain {
  /** the last position applied; null before the first */
  readonly at: Position | null
  /**
   * A chain that was founded at the start of a trimmed log may have met a stale duplicate run first: below this offset
   * a forward jump founds it anew. Null: every jump is a gap.
   */
  readonly foundingUntil: bigint | null
  /** the log is read from its very first record: a chain can only begin there with an event that follows none */
  readonly whole: boolean
}

/** `stale` was applied before, `next` follows, `founding` begins the chain (or begins it anew), `gap` means loss. */
export type Link = 'stale' | 'next' | 'founding' | 'gap'

export function linkOf(chain: Chain, event: Event, offset: bigint): Link {
  if (chain.at === null) return chain.whole && event.prev !== null ? 'gap' : 'founding'
  if (event.position <= chain.at) return 'stale'
  if (event.prev === chain.at) return 'next'
  return chain.foundingUntil !== null && offset < chain.foundingUntil ? 'founding' : 'gap'
}

export function gapError(partition: TopicPartition, chain: Chain, event: Event, offset: bigint): MillraceError {
  return new MillraceError(
    'MILLRACE_GAP',
    `${partition.topic}/${partition.partition} has a gap at offset ${offset}: the event ${event.position} follows ${event.prev ?? 'nothing'}, but ${chain.at === null ? 'the log begins here' : `the sink stands at ${chain.at}`}`,
    {
      remedy:
        event.prev === null
          ? 'a new stream begins here, and this sink has applied an older one: feed new tables by a sink of another name'
          : chain.at === null
            ? "nothing of it was applied; what it follows is missing from the queue: find out what removed it, or made the topic anew. Where this sink's start used to be another than earliest, set it back"
            : 'nothing of it was applied; what lies between is missing from the queue: find out what removed it before going on',
      fields: {
        topic: partition.topic,
        partition: partition.partition,
        source: event.source,
        position: event.position,
        prev: event.prev,
        at: chain.at,
        offset: String(offset),
      },
    },
  )
}
