import { backoff } from '../core/backoff.ts'
import { decodeBeginning, encodeBeginning } from '../core/chain.ts'
import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import { codeOf, type ErrorCode, MillraceError } from '../core/errors.ts'
import type { Event } from '../core/event.ts'
import { isRetried, policyFor } from '../core/policy.ts'
import { isPosition, type Position } from '../core/position.ts'
import type { Assignment, OffsetRange, Queue, StoredRecord } from '../core/queue.ts'
import type { Lane, LaneBatch, PartitionCheckpoint, Sink } from '../core/sink.ts'
import { eventKey, type LaneRules, type LaneState, planLane, type Verdict } from './lane-plan.ts'

/**
 * One partition of one sink, from its assignment to its end.
 *
 * claiming → following → waiting (backoff after a failure) → following …
 * following → halted (a person must decide; the other partitions flow on)
 *           → fenced (another owner has it: only a new assignment takes it again)
 */
export type LanePhase = 'claiming' | 'following' | 'waiting' | 'halted' | 'fenced'

export interface PartitionStatus {
  readonly topic: string
  readonly partition: number
  readonly phase: LanePhase
  readonly error: Error | null
  /** by source: the last position applied */
  readonly positions: ReadonlyMap<string, Position>
  /** the next offset to apply, and the end of the log when it was last seen */
  readonly offset: bigint | null
  readonly end: bigint | null
  /** commit to now of the oldest event that is known and not applied yet, ms; 0 when the end is reached */
  readonly lagMs: number
  readonly applied: number
  /** events that were parked by this lane, and how many keys of the partition are parked now */
  readonly parked: number
  readonly parkedKeys: number
  /** records of foreign producers, and of sources that this sink does not follow */
  readonly passedOver: number
  /** what a sink without a checkpoint began with: the first event's position and the one it follows */
  readonly foundedAt: Position | null
}

export interface LaneFollowerOptions {
  readonly assignment: Assignment
  /** a former lane of the same partition here: it lets go first, so that its claim cannot come after ours */
  readonly after: Promise<unknown> | undefined
  readonly queue: Queue
  readonly sink: Sink
  /** where a sink without a checkpoint begins: a number is a time of publishing in ms */
  readonly start: 'earliest' | 'latest' | number
  /** null: every source */
  readonly sources: ReadonlySet<string> | null
  readonly log: Log
  readonly clock: Clock
  readonly random: () => number
  /** whether a constraint conflict can still be resolved by what other partitions have yet to apply */
  readonly mayResolve: (since: ConflictMark, at: EventPlace | null) => Promise<boolean>
  readonly markConflict: () => Promise<ConflictMark>
}

/** The ends of all partitions when a conflict arose: it is final once the others have been applied up to here. */
export type ConflictMark = ReadonlyMap<string, readonly OffsetRange[]>

/** An event, as others tell whether it comes before theirs. */
export type EventPlace = Pick<Event, 'source' | 'position'>

/** What is known of a conflict. It is final when an attempt fails that was begun after the others had got that far. */
interface Conflict {
  /** null: the sink did not say which */
  readonly at: EventPlace | null
  readonly mark: ConflictMark
  /** since when nobody else could resolve it; null: somebody can */
  readonly aloneSince: number | null
  readonly attempt: unknown
  readonly final: boolean
}

export interface LaneFollower {
  status(): PartitionStatus
  /** the event whose constraint conflict it waits in, or that it is halted; null: it goes further by itself */
  readonly stuck: EventPlace | 'unknown' | 'halted' | null
  /** looks at the log's end: for lag, and because an end below our offset means that the queue lost what it had */
  observe(): Promise<void>
  /** resolves with why it ended; never rejects */
  readonly done: Promise<'ended' | 'fenced'>
}

/** how often, and how many ms apart, the queue is asked again before its answer halts a partition */
const DOUBTS = 4
const DOUBT_PAUSE = 1_000
/** for how long a conflict must stand that nobody else can resolve (ms): another lane's may end at its next attempt */
const CONFLICT_DOUBT = 4_000
const DOUBTED = new Set<ErrorCode>(['MILLRACE_QUEUE_NOT_READY', 'MILLRACE_QUEUE_OFFSET_GONE'])

export function followLane(options: LaneFollowerOptions): LaneFollower {
  const { assignment, queue, sink, start, clock, random } = options
  const { topic, partition, signal } = assignment
  const log = options.log.child({ topic, partition })
  const place = { topic, partition }
  const rules: LaneRules = { ...place, sources: options.sources, parks: sink.parking !== null }

  let phase: LanePhase = 'claiming'
  let error: Error | null = null
  let state: LaneState | null = null
  let end: bigint | null = null
  let behindSince: number | null = null
  let applied = 0
  let parked = 0
  let passedOver = 0
  let foundedAt: Position | null = null
  /** by event, since the partition moved last; and the one that was judged last: it goes no further than there */
  const conflicts = new Map<string, Conflict>()
  let conflict: Conflict | null = null
  let lostEnd: Error | null = null
  let doubts = { code: '', count: 0 }

  /** Where to read from; a sink without a checkpoint pins its start at once, or a restart would begin elsewhere. */
  async function begin(lane: Lane, checkpoint: PartitionCheckpoint): Promise<LaneState> {
    const range = await assignment.range()
    end = range.end
    let { offset } = checkpoint
    let beginning = checkpoint.beginning === null ? null : decodeBeginning(checkpoint.beginning)
    if (offset !== null) checkRange(offset, range)
    else {
      offset = start === 'earliest' ? range.start : start === 'latest' ? range.end : await queue.offsetAt(topic, partition, start)
      beginning = { until: offset === 0n ? 0n : range.end, founding: new Set() }
      await lane.apply({ moves: [], offset, events: [], parked: [], beginning: encodeBeginning(beginning) })
    }
    const founding = (source: string): boolean => beginning?.founding.has(source) ?? false
    const chains = new Map([...checkpoint.positions].map(([source, at]) => [source, { at, founding: founding(source) }]))
    return { chains, parked: checkpoint.parked, offset, beginning }
  }

  function checkRange(at: bigint, range: OffsetRange): void {
    if (at >= range.start && at <= range.end) return
    throw new MillraceError(
      'MILLRACE_QUEUE_OFFSET_GONE',
      `${topic}/${partition}: the sink stands at offset ${at}, and the queue holds ${range.start} to ${range.end}`,
      {
        remedy:
          at < range.start
            ? 'the queue no longer retains what this sink has yet to apply. What it applied stays as it is; it must be fed anew: empty its tables, give the sink another name, and run millrace init'
            : 'the queue lost what it had acknowledged. What this sink applied stays as it is: find out what truncated the topic or made it again, put it back as it was, and start again; millrace check says more',
        fields: { topic, partition, offset: String(at), start: String(range.start), end: String(range.end) },
      },
    )
  }

  async function follow(lane: Lane, checkpoint: PartitionCheckpoint): Promise<void> {
    lostEnd = null
    state = await begin(lane, checkpoint)
    phase = 'following'
    if (conflict === null) error = null
    for await (const records of assignment.read(state.offset)) {
      if (signal.aborted) return
      if (lostEnd !== null) throw lostEnd
      await applyRecords(lane, records)
      error = null
      forgetConflicts()
      doubts = { code: '', count: 0 }
    }
  }

  /**
   * Applies what can be applied. Each event that the sink refuses gets its verdict, and the rest is planned anew: the
   * event is parked with what follows of its key, or the partition goes no further than to the one before it.
   */
  async function applyRecords(lane: Lane, records: readonly StoredRecord[]): Promise<void> {
    const before = state as LaneState
    const verdicts = new Map<string, Verdict>()
    for (;;) {
      const plan = planLane(before, records, rules, verdicts)
      // what it stops at is in no batch, and waits the longest
      const stoppedAt = plan.stopped === null ? undefined : records.find(({ offset }) => offset >= plan.batch.offset)
      behindSince = (plan.batch.events[0] ?? plan.batch.parked[0]?.event)?.committedAt ?? stoppedAt?.timestamp ?? null
      try {
        if (plan.batch.offset > before.offset) await lane.apply(plan.batch)
      } catch (caught) {
        const refused = refusedEvent(plan.batch, caught)
        if (refused === null) throw caught
        verdicts.set(eventKey(refused), await verdictOn(caught as MillraceError))
        continue
      }
      state = plan.after
      applied += plan.batch.events.length
      passedOver += plan.passedOver
      for (const { event, at } of plan.founded) {
        foundedAt = event.position
        const where = { source: event.source, position: event.position, prev: event.prev, at }
        if (at === null) log.info(where, 'the chain of this partition begins here')
        else log.warn(where, 'the chain of this partition begins anew here: what came before was a late duplicate')
      }
      for (const { event, reason } of plan.batch.parked) {
        parked++
        if (reason !== null)
          log.warn({ code: reason.code, position: event.position, source: event.source }, `parked: ${reason.message}`)
      }
      const { offset } = plan.after
      if (end === null || offset >= end) {
        end = offset
        behindSince = null
      }
      if (stoppedAt !== undefined) behindSince = stoppedAt.timestamp
      // another event is at fault than before: whether it is final is to be judged from now
      if (plan.batch.moves.length > 0) forgetConflicts()
      if (plan.stopped !== null) throw plan.stopped
      assignment.report(offset)
      return
    }
  }

  async function verdictOn(refusal: MillraceError): Promise<Verdict> {
    const stop: Verdict = { stop: refusal }
    if (!rules.parks || policyFor(refusal) !== 'park') return stop
    if (refusal.code === 'MILLRACE_EVENT_CONFLICT' && !(await isFinal(refusal))) return stop
    return { park: { code: refusal.code, message: refusal.message } }
  }

  /** A conflict is, once nothing that other partitions have yet to apply can resolve it (PROTOCOL 2.4). */
  async function isFinal(refusal: unknown): Promise<boolean> {
    if (conflict !== null && conflict.attempt === refusal) return conflict.final
    const at = placeOf(refusal)
    // each is judged by itself: what resolves this one may have been published since another one arose
    const key = at === null ? '' : eventKey(at)
    const before = conflicts.get(key)
    const mark = before?.mark ?? (await options.markConflict().catch(() => null))
    if (mark === null) return false
    const alone = !(await options.mayResolve(mark, at).catch(() => true))
    const aloneSince = alone ? (before?.aloneSince ?? clock.elapsed()) : null
    const final = aloneSince !== null && clock.elapsed() - aloneSince >= CONFLICT_DOUBT
    conflict = { at, mark, aloneSince, attempt: refusal, final }
    conflicts.set(key, conflict)
    return final
  }

  function forgetConflicts(): void {
    conflicts.clear()
    conflict = null
  }

  async function run(): Promise<'ended' | 'fenced'> {
    let lane: Lane | null = null
    let attempts = 0
    await options.after
    try {
      while (!signal.aborted) {
        const appliedBefore = applied + parked
        try {
          if (lane === null) {
            lane = await sink.claim(place)
            await follow(lane, lane.checkpoint)
          } else {
            await follow(lane, await lane.reread())
          }
          if (!signal.aborted) throw new MillraceError('MILLRACE_QUEUE_UNREACHABLE', `reading ${topic}/${partition} ended`)
        } catch (caught) {
          if (signal.aborted) break
          if (applied + parked > appliedBefore) attempts = 0
          error = caught as Error
          const code = codeOf(error)
          if (code === 'MILLRACE_SINK_FENCED') {
            phase = 'fenced'
            log.warn({ code }, `${error.message}`)
            return 'fenced'
          }
          if (code === 'MILLRACE_PARKED_CHANGED') {
            log.info({ code }, `${error.message}; going on`)
            continue
          }
          let policy = policyFor(error)
          if (code === 'MILLRACE_EVENT_CONFLICT') policy = (await isFinal(caught)) ? 'halt' : 'retry'
          else forgetConflicts()
          // what the queue lacks is believed when it says so again: a broker that has just restarted may know better soon
          if (DOUBTED.has(code)) doubts = { code, count: doubts.code === code ? doubts.count + 1 : 1 }
          const doubted = !isRetried(policy) && DOUBTED.has(code) && doubts.count <= DOUBTS
          if (!isRetried(policy) && !doubted) {
            phase = 'halted'
            log.error({ err: error, code, ...(error instanceof MillraceError && error.fields) }, 'the partition is halted')
            await aborted(signal)
            break
          }
          attempts++
          phase = 'waiting'
          const delay = doubted
            ? DOUBT_PAUSE
            : backoff(attempts, random, policy === 'retry-slowly' ? { base: 5_000, cap: 60_000 } : {})
          log.warn({ err: error, code, attempts, delay }, 'the partition could not be followed; trying again')
          await clock.wait(delay, signal)
        }
      }
      return 'ended'
    } finally {
      await lane?.release().catch(() => {})
    }
  }

  return {
    status() {
      const offset = state?.offset ?? null
      const behind = offset !== null && end !== null && offset < end && behindSince !== null
      return {
        topic,
        partition,
        phase,
        error,
        positions: new Map(
          [...(state?.chains ?? [])].flatMap(([source, { at }]) => (at === null ? [] : [[source, at] as const])),
        ),
        offset,
        end,
        lagMs: behind ? Math.max(0, clock.now() - (behindSince as number)) : 0,
        applied,
        parked,
        parkedKeys: state?.parked.size ?? 0,
        passedOver,
        foundedAt,
      }
    },
    get stuck() {
      if (phase === 'halted') return 'halted'
      return conflict === null ? null : (conflict.at ?? 'unknown')
    },
    async observe() {
      // our place is taken before the log is asked: what is applied meanwhile may lie beyond the answer
      const at = state?.offset ?? null
      const range = await assignment.range()
      if (end === null || range.end > end) end = range.end
      if (at !== null && range.end < at && phase === 'following')
        try {
          checkRange(at, range)
        } catch (caught) {
          lostEnd = caught as Error
        }
    },
    done: run(),
  }
}

/** The event of the batch that the sink says it cannot take; null when what failed is no event's fault. */
function refusedEvent({ events, parked }: LaneBatch, caught: unknown): Event | null {
  if (!(caught instanceof MillraceError)) return null
  if (caught.code === 'MILLRACE_PARKING_FULL') return parked[0]?.event ?? null
  const { position, source } = caught.fields
  return events.find((event) => event.position === position && (source === undefined || event.source === source)) ?? null
}

/** the event that the sink says it refuses; null: it does not say */
function placeOf(refusal: unknown): EventPlace | null {
  const { source, position } = refusal instanceof MillraceError ? refusal.fields : {}
  return typeof source === 'string' && isPosition(position) ? { source, position } : null
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
