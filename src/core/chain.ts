import { MillraceError } from './errors.ts'
import type { Event } from './event.ts'
import type { Position } from './position.ts'
import type { TopicPartition } from './queue.ts'

/** One source's chain of events in one partition, as a sink has applied it (PROTOCOL 2.4). */
export interface Chain {
  /** the last position applied; null before the first */
  readonly at: Position | null
  /** it may have begun with a stale duplicate run: a forward jump founds it anew */
  readonly founding: boolean
}

export const UNFOUNDED: Chain = { at: null, founding: false }

/**
 * How a sink began to read a partition. Kept with its checkpoint: a restart must judge the chains as the first start
 * would have, whatever retention took away meanwhile.
 */
export interface Beginning {
  /** the end that the log had when the sink began in the midst of it; 0: it began with the very first record */
  readonly until: bigint
  /** sources whose chain may still begin anew */
  readonly founding: ReadonlySet<string>
}

export function encodeBeginning({ until, founding }: Beginning): string {
  return JSON.stringify({ until: String(until), founding: [...founding].sort() })
}

export function decodeBeginning(text: string): Beginning {
  const { until, founding } = JSON.parse(text) as { until: string; founding: readonly string[] }
  return { until: BigInt(until), founding: new Set(founding) }
}

/** `stale` was applied before, `next` follows, `founding` begins the chain (or begins it anew), `gap` means loss. */
export type Link = 'stale' | 'next' | 'founding' | 'gap'

/** @param whole the log was read from its very first record: a chain can only begin there with an event that follows none */
export function linkOf(chain: Chain, event: Event, whole: boolean): Link {
  if (chain.at === null) return whole && event.prev !== null ? 'gap' : 'founding'
  if (event.position <= chain.at) return 'stale'
  if (event.prev === chain.at) return 'next'
  return chain.founding ? 'founding' : 'gap'
}

/**
 * Whether the chain may still begin anew after the event at `offset`. All that stood in the log when the sink began may be a
 * stale run, its very end too; the first event beyond it then jumps, and from there on the chain holds.
 */
export function staysFounding(chain: Chain, offset: bigint, { until }: Beginning): boolean {
  return (chain.at === null || chain.founding) && offset < until
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
            ? 'nothing of it was applied; what it follows is missing from the queue: find out what removed it, or made the topic anew'
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
