import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import { type Event, orderOf } from '../core/event.ts'
import { policyFor } from '../core/policy.ts'
import type { Queue, StoredRecord } from '../core/queue.ts'
import type { Sink } from '../core/sink.ts'
import type { Desk } from './job.ts'
import { type LaneRules, type LaneState, planLane } from './lane-plan.ts'
import { paceOf } from './pace.ts'
import { aggregateFilter, type ReplayAggregate, type ReplayFailpoint, watched } from './replay.ts'
import { decodeRange, type PartitionRange, selects } from './replay-range.ts'

/**
 * Replay, for a sink whose effects are no rows: the events of the range are delivered once more, partition after partition,
 * each in its order, marked as replayed. At least once: what was under way when it broke off comes again.
 */
export interface RedeliverState {
  /** as `encodeRange` writes it */
  readonly range: string
  /** null: every aggregate */
  readonly aggregate: ReplayAggregate | null
  /** events a second; null: as fast as the sink takes them */
  readonly rate: number | null
  /** the partition that is read, as its place in the range, and the next offset */
  readonly partition: number
  readonly offset: string
  readonly read: number
  readonly delivered: number
  /** events of keys that wait in the sink */
  readonly parked: number
  /** events that the sink refused for good: the first of them by position, and how many */
  readonly refused: number
  readonly refusals: readonly string[]
}

export interface Redelivered {
  readonly read: number
  readonly delivered: number
  readonly parked: number
  readonly refused: number
  readonly refusals: readonly string[]
}

export interface RedeliverWork {
  readonly sink: Pick<Sink, 'checkpoints'> & { readonly redeliver: NonNullable<Sink['redeliver']> }
  readonly queue: Pick<Queue, 'read'>
  readonly desk: Desk<RedeliverState>
  /** null: every source */
  readonly sources: ReadonlySet<string> | null
  readonly log: Log
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly failpoint: (name: ReplayFailpoint) => Promise<void> | void
}

/** of one request to the sink */
const PIECE = 1_000
const REFUSALS_NAMED = 20

export function beginRedelivery(asked: Pick<RedeliverState, 'range' | 'aggregate' | 'rate'>): RedeliverState {
  return { ...asked, partition: 0, offset: '', read: 0, delivered: 0, parked: 0, refused: 0, refusals: [] }
}

/** Goes on from what the desk remembers. @throws Stopped, and whatever the sink and the queue do */
export async function redeliver(work: RedeliverWork): Promise<Redelivered> {
  const { sink, queue, desk, sources, log, clock, signal, failpoint } = work
  const { aggregate } = desk.job.state
  const range = decodeRange(desk.job.state.range)
  const pace = paceOf(desk.job.state.rate, clock)
  const piece = Math.min(pace.piece, PIECE)
  const isMeant = aggregateFilter(aggregate?.id ?? null)
  const partitions = range.partitions.filter(({ topic }) => aggregate === null || topic === aggregate.topic)
  const of = partitions.reduce((sum, { start, end }) => sum + Number(end - start), 0)

  async function deliver(own: PartitionRange, events: readonly Event[]): Promise<void> {
    let left = events
    while (left.length > 0)
      try {
        return await sink.redeliver({ topic: own.topic, partition: own.partition }, left)
      } catch (caught) {
        const refused = refusedEvent(left, caught)
        if (refused === null) throw caught
        const { topic, partition } = own
        log.warn(
          { topic, partition, position: refused.position, source: refused.source, code: (caught as MillraceError).code },
          `an event could not be delivered again: ${(caught as MillraceError).message}`,
        )
        const { state } = desk.job
        const refusals = [...state.refusals, refused.position].slice(0, REFUSALS_NAMED)
        await desk.note({ state: { ...state, refused: state.refused + 1, refusals, delivered: state.delivered - 1 } })
        left = left.filter((event) => event !== refused)
      }
  }

  async function partition(own: PartitionRange, index: number, parked: ReadonlySet<string>): Promise<void> {
    const { topic, partition: number } = own
    const before = desk.job.state
    const start = before.partition === index && before.offset !== '' ? BigInt(before.offset) : own.start
    const watch = watched(range, own)
    const rules: LaneRules = { topic, partition: number, sources, parks: true }
    // where it goes on in the midst of the log a stale run may stand first
    let lane: LaneState = { chains: new Map(), parked: NONE, offset: start, beginning: { until: own.end, founding: new Set() } }
    if (start >= own.end) return

    async function apply(records: readonly StoredRecord[]): Promise<void> {
      const plan = planLane(lane, records, rules)
      if (start === own.start) for (const founded of plan.founded) watch.founded(founded)
      const meant = plan.batch.events.filter((event) => isMeant(event) && selects(own, event))
      const events = parked.size === 0 ? meant : meant.filter((event) => !parked.has(orderOf(event)))
      const { state } = desk.job
      await deliver(own, events)
      await failpoint('replay-batch-delivered')
      const read = state.read + records.length
      const { refused, refusals, delivered } = desk.job.state
      await desk.note({
        state: {
          ...state,
          partition: index,
          offset: String(plan.after.offset),
          read,
          delivered: delivered + events.length,
          parked: state.parked + meant.length - events.length,
          refused,
          refusals,
        },
        progress: { phase: 'deliver', unit: 'events', done: Math.min(read, of), of },
      })
      lane = { ...plan.after, parked: NONE }
      if (plan.stopped !== null) throw plan.stopped
    }

    for await (const batch of queue.read({ topic, partition: number }, { start, end: own.end }, signal))
      for (let from = 0; from < batch.length; from += piece) {
        const records = batch.slice(from, from + piece)
        await pace.take(records.length, signal)
        if (signal.aborted) return
        await apply(records)
      }
  }

  const checkpoints = await sink.checkpoints()
  for (const [index, own] of partitions.entries()) {
    if (index < desk.job.state.partition) continue
    const { topic, partition: number } = own
    const standing = checkpoints.find((one) => one.topic === topic && one.partition === number)
    await partition(own, index, standing?.parked ?? NONE)
    // says whether it was asked to stop
    const next = signal.aborted ? {} : { partition: index + 1, offset: '' }
    await desk.note({ state: { ...desk.job.state, ...next } }, true)
  }
  const { read, delivered, parked, refused, refusals } = desk.job.state
  return { read, delivered, parked, refused, refusals }
}

const NONE: ReadonlySet<string> = new Set()

function refusedEvent(events: readonly Event[], caught: unknown): Event | null {
  if (!(caught instanceof MillraceError) || policyFor(caught) !== 'park') return null
  const { position, source } = caught.fields
  return events.find((event) => event.position === position && (source === undefined || event.source === source)) ?? null
}
