import { type Beginning, type Chain, encodeBeginning, gapError, linkOf, staysFounding, UNFOUNDED } from '../core/chain.ts'
import { isErrorCode, MillraceError } from '../core/errors.ts'
import { type Event, orderOf } from '../core/event.ts'
import type { Position } from '../core/position.ts'
import type { StoredRecord, TopicPartition } from '../core/queue.ts'
import { fromRecord } from '../core/record.ts'
import type { LaneBatch, ParkedEvent, ParkReason } from '../core/sink.ts'

/**
 * What a sink does with the records it reads: pure. The lane follower carries out the batch and, once it is durable,
 * goes on from `after`; when the sink refuses an event, it plans the same records again with a verdict on that event.
 */
export interface LaneState {
  /** by source */
  readonly chains: ReadonlyMap<string, Chain>
  /** as `orderOf` writes them */
  readonly parked: ReadonlySet<string>
  /** the next to read */
  readonly offset: bigint
  /** null: not known, so no chain begins anew */
  readonly beginning: Beginning | null
}

export interface LanePlan {
  readonly batch: LaneBatch
  /** where the lane stands once the batch is durable */
  readonly after: LaneState
  /** why the record after the batch's last cannot be passed; null: all records were planned */
  readonly stopped: unknown
  /** records of foreign producers, and of sources that this sink does not follow */
  readonly passedOver: number
  readonly founded: readonly Founded[]
}

export interface Founded {
  readonly event: Event
  /** where the chain stood: null when it begins here, else what came before was a late duplicate run */
  readonly at: Position | null
}

/** What was found out about an event by trying to apply it. */
export type Verdict = { readonly park: ParkReason } | { readonly stop: unknown }
/** by {@link eventKey} */
export type Verdicts = ReadonlyMap<string, Verdict>

export const eventKey = ({ source, position }: Pick<Event, 'source' | 'position'>): string => `${source}/${position}`

export interface LaneRules extends TopicPartition {
  /** null: every source is followed */
  readonly sources: ReadonlySet<string> | null
  /** whether the sink parks what it cannot apply */
  readonly parks: boolean
  /** what the chain goes through and is not applied; absent: nothing */
  readonly passes?: (event: Event) => boolean
}

export function planLane(
  state: LaneState,
  records: readonly StoredRecord[],
  rules: LaneRules,
  verdicts: Verdicts = NO_VERDICTS,
): LanePlan {
  const chains = new Map(state.chains)
  let { beginning } = state
  let parkedKeys: Set<string> | null = null
  const events: Event[] = []
  const parked: ParkedEvent[] = []
  const founded: Founded[] = []
  const moved = new Map<string, Position>()
  let passedOver = 0
  let stopped: unknown = null
  let offset = state.offset

  for (const record of records) {
    let event: Event | null
    try {
      event = fromRecord(record)
    } catch (unreadable) {
      stopped = unreadable
      break
    }
    if (event === null || (rules.sources !== null && !rules.sources.has(event.source))) {
      passedOver++
      offset = record.offset + 1n
      continue
    }
    const chain = chains.get(event.source) ?? UNFOUNDED
    const link = linkOf(chain, event, beginning?.until === 0n)
    if (link === 'stale') {
      offset = record.offset + 1n
      continue
    }
    if (link === 'gap') {
      stopped = gapError(rules, chain, event, record.offset)
      break
    }
    // an order is looked up only where something is parked: it costs a text per event
    const order = parkedKeys !== null || state.parked.size > 0 ? orderOf(event) : null
    const waits = order !== null && (parkedKeys ?? state.parked).has(order)
    const passed = rules.passes?.(event) === true
    const verdict = verdicts.size > 0 ? verdicts.get(eventKey(event)) : undefined
    const refused = verdict ?? (event.placeholder === null || passed ? null : placeholderVerdict(event, event.placeholder, rules))
    if (refused !== null && 'stop' in refused) {
      stopped = refused.stop
      break
    }
    if (passed) passedOver++
    else if (waits) parked.push({ event, offset: record.offset, reason: null })
    else if (refused === null) events.push(event)
    else {
      parkedKeys ??= new Set(state.parked)
      parkedKeys.add(order ?? orderOf(event))
      parked.push({ event, offset: record.offset, reason: refused.park })
    }
    if (link === 'founding') founded.push({ event, at: chain.at })
    const founding = beginning !== null && staysFounding(chain, record.offset, beginning)
    if (beginning !== null && founding !== chain.founding) beginning = withFounding(beginning, event.source, founding)
    chains.set(event.source, { at: event.position, founding })
    moved.set(event.source, event.position)
    offset = record.offset + 1n
  }

  const moves = [...moved].map(([source, to]) => ({ source, from: state.chains.get(source)?.at ?? null, to }))
  return {
    batch: {
      moves,
      offset,
      events,
      parked,
      beginning: beginning === null || beginning === state.beginning ? null : encodeBeginning(beginning),
    },
    after: { chains, parked: parkedKeys ?? state.parked, offset, beginning },
    stopped,
    passedOver,
    founded,
  }
}

const NO_VERDICTS: Verdicts = new Map()

function withFounding({ until, founding }: Beginning, source: string, is: boolean): Beginning {
  const others = [...founding].filter((other) => other !== source)
  return { until, founding: new Set(is ? [...others, source] : others) }
}

/** The relay could not publish the event whole: there is nothing to apply, and what follows of its key may not overtake it. */
function placeholderVerdict(event: Event, placeholder: string, { topic, partition, parks }: LaneRules): Verdict {
  const code = isErrorCode(placeholder) ? placeholder : 'MILLRACE_RECORD_INVALID'
  const message = `the event ${event.position} (${event.type}, id ${event.id}) of ${topic}/${partition} could not be published whole (${placeholder}): its payload is in the outbox only`
  if (parks) return { park: { code, message } }
  return {
    stop: new MillraceError(code, message, {
      remedy: 'this sink parks nothing: bring its key to the right state by hand, and take the sink past it under another name',
      fields: { topic, partition, source: event.source, position: event.position, id: event.id, type: event.type },
    }),
  }
}
