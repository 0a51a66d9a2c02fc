import { setTimeout as wait } from 'node:timers/promises'
import { backoff } from '../core/backoff.ts'
import { type Chain, gapError, linkOf } from '../core/chain.ts'
import type { Log } from '../core/connector.ts'
import { codeOf, type ErrorCode, MillraceError } from '../core/errors.ts'
import type { Event } from '../core/event.ts'
import { policyFor } from '../core/policy.ts'
import type { Position } from '../core/position.ts'
import type { Assignment, OffsetRange, Queue, StoredRecord } from '../core/queue.ts'
import { fromRecord } from '../core/record.ts'
import type { Lane, LaneBatch, PartitionCheckpoint, Sink } from '../core/sink.ts'

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
  readonly now: () => number
  readonly random: () => number
  /** whether a constraint conflict can still be resolved by what other partitions have yet to apply */
  readonly mayResolve: (since: ConflictMark) => Promise<boolean>
  readonly markConflict: () => Promise<ConflictMark>
}

/** The ends of all partitions when a conflict arose: it is final once the others have been applied up to here. */
export type ConflictMark = ReadonlyMap<string, readonly OffsetRange[]>

export interface LaneFollower {
  status(): PartitionStatus
  /** whether it stands in a constraint conflict: it then waits for others, and none may wait for it */
  readonly inConflict: boolean
  /** looks at the log's end: for lag, and because an end below our offset means that the queue lost what it had */
  observe(): Promise<void>
  /** resolves with why it ended; never rejects */
  readonly done: Promise<'ended' | 'fenced'>
}

/** how often, and how many ms apart, the queue is asked again before its answer halts a partition */
const DOUBTS = 4
const DOUBT_PAUSE = 1_000
const DOUBTED = new Set<ErrorCode>(['MILLRACE_QUEUE_NOT_READY', 'MILLRACE_QUEUE_OFFSET_GONE'])

export function followLane(options: LaneFollowerOptions): LaneFollower {
  const { assignment, queue, sink, start, sources, now, random } = options
  const { topic, partition, signal } = assignment
  const log = options.log.child({ topic, partition })
  const place = { topic, partition }

  let phase: LanePhase = 'claiming'
  let error: Error | null = null
  let chains = new Map<string, Chain>()
  let offset: bigint | null = null
  let end: bigint | null = null
  let behindSince: number | null = null
  let applied = 0
  let passedOver = 0
  let foundedAt: Position | null = null
  let conflict: ConflictMark | null = null
  let foundingUntil: bigint | null = null
  let lostEnd: Error | null = null
  let doubts = 0

  /** Where to read from; a sink without a checkpoint pins its start at once, or a restart would begin elsewhere. */
  async function beginAt(lane: Lane, checkpoint: PartitionCheckpoint): Promise<bigint> {
    const range = await assignment.range()
    end = range.end
    // only what this lane founded itself is still being founded: a checkpoint that was found is a chain that holds
    chains = new Map([...checkpoint.positions].map(([source, at]) => [source, { at, foundingUntil }]))
    if (checkpoint.offset !== null) {
      checkRange(checkpoint.offset, range)
      return checkpoint.offset
    }
    const from =
      start === 'earliest' ? range.start : start === 'latest' ? range.end : await queue.offsetAt(topic, partition, start)
    // a log that is read from its very first record has no stale run before its chain
    foundingUntil = from > 0n ? range.end : null
    await lane.apply({ moves: [], offset: from, events: [] })
    return from
  }

  function checkRange(at: bigint, range: OffsetRange): void {
    if (at >= range.start && at <= range.end) return
    throw new MillraceError(
      'MILLRACE_QUEUE_OFFSET_GONE',
      `${topic}/${partition}: the sink stands at offset ${at}, and the queue holds ${range.start} to ${range.end}`,
      {
        remedy:
          at < range.start
            ? 'the queue no longer retains what this sink has yet to apply: its replica must be rebuilt'
            : 'the queue lost what it had acknowledged: find out what truncated or re-created the topic before going on',
        fields: { topic, partition, offset: String(at), start: String(range.start), end: String(range.end) },
      },
    )
  }

  async function follow(lane: Lane, checkpoint: PartitionCheckpoint): Promise<void> {
    lostEnd = null
    offset = await beginAt(lane, checkpoint)
    phase = 'following'
    if (conflict === null) error = null
    for await (const records of assignment.read(offset)) {
      if (signal.aborted) return
      if (lostEnd !== null) throw lostEnd
      await applyRecords(lane, records)
      error = null
      conflict = null
      doubts = 0
    }
  }

  async function applyRecords(lane: Lane, records: readonly StoredRecord[]): Promise<void> {
    const events: Event[] = []
    const offsets: bigint[] = []
    const before = chains
    const after = new Map(chains)
    let skipped = 0
    let stopped: unknown = null
    for (const record of records) {
      let event: Event | null
      try {
        event = fromRecord(record)
      } catch (unreadable) {
        stopped = unreadable
        break
      }
      if (event === null || (sources !== null && !sources.has(event.source))) {
        skipped++
        continue
      }
      const chain = after.get(event.source) ?? { at: null, foundingUntil }
      const link = linkOf(chain, event, record.offset)
      if (link === 'stale') continue
      if (link === 'gap') {
        stopped = gapError(place, chain, event, record.offset)
        break
      }
      if (link === 'founding') {
        foundedAt = event.position
        const where = { source: event.source, position: event.position, prev: event.prev, at: chain.at }
        if (chain.at === null) log.info(where, 'the chain of this partition begins here')
        else log.warn(where, 'the chain of this partition begins anew here: what came before was a late duplicate')
      }
      after.set(event.source, { ...chain, at: event.position })
      events.push(event)
      offsets.push(record.offset)
    }
    const next = ((stopped === null ? records.at(-1)?.offset : offsets.at(-1)) ?? (offset as bigint) - 1n) + 1n
    behindSince = events[0]?.committedAt ?? null
    try {
      await apply(lane, before, events, next)
    } catch (caught) {
      await applyPrefix(lane, before, events, offsets, caught)
      throw caught
    }
    passedOver += skipped
    if (stopped !== null) throw stopped
    behindSince = end !== null && next < end ? behindSince : null
    assignment.report(next)
  }

  async function apply(lane: Lane, before: ReadonlyMap<string, Chain>, events: readonly Event[], next: bigint): Promise<void> {
    const last = new Map<string, Position>()
    for (const event of events) last.set(event.source, event.position)
    const moves: LaneBatch['moves'][number][] = []
    for (const [source, to] of last) moves.push({ source, from: before.get(source)?.at ?? null, to })
    await lane.apply({ moves, offset: next, events })
    const moved = new Map(chains)
    for (const { source, to } of moves)
      moved.set(source, { at: to, foundingUntil: before.get(source)?.foundingUntil ?? foundingUntil })
    chains = moved
    applied += events.length
    offset = next
    if (end === null || next > end) end = next
  }

  /** What stands before an event that cannot be applied is not held back by it. */
  async function applyPrefix(
    lane: Lane,
    before: ReadonlyMap<string, Chain>,
    events: readonly Event[],
    offsets: readonly bigint[],
    caught: unknown,
  ): Promise<void> {
    if (!(caught instanceof MillraceError)) return
    const { position, source } = caught.fields
    const at = events.findIndex((event) => event.position === position && (source === undefined || event.source === source))
    if (at <= 0) return
    await apply(lane, before, events.slice(0, at), offsets[at] as bigint)
    // another event is at fault than before: whether it is final is to be judged from now
    conflict = null
  }

  async function run(): Promise<'ended' | 'fenced'> {
    let lane: Lane | null = null
    let attempts = 0
    await options.after
    try {
      while (!signal.aborted) {
        const appliedBefore: number = applied
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
          if (applied > appliedBefore) attempts = 0
          error = caught as Error
          const code = codeOf(error)
          if (code === 'MILLRACE_SINK_FENCED') {
            phase = 'fenced'
            log.warn({ code }, `${error.message}`)
            return 'fenced'
          }
          let policy = policyFor(error)
          if (code === 'MILLRACE_EVENT_CONFLICT') {
            conflict ??= await options.markConflict().catch(() => null)
            if (conflict !== null && !(await options.mayResolve(conflict).catch(() => true))) policy = 'halt'
          } else conflict = null
          // what the queue lacks is believed when it says so again: a broker that has just restarted may know better soon
          const doubted = policy === 'halt' && DOUBTED.has(code) && ++doubts <= DOUBTS
          if (policy === 'halt' && !doubted) {
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
          await wait(delay, undefined, { signal }).catch(() => {})
        }
      }
      return 'ended'
    } finally {
      await lane?.release().catch(() => {})
    }
  }

  return {
    status: () => ({
      topic,
      partition,
      phase,
      error,
      positions: new Map([...chains].flatMap(([source, { at }]) => (at === null ? [] : [[source, at] as const]))),
      offset,
      end,
      lagMs: offset !== null && end !== null && offset < end && behindSince !== null ? Math.max(0, now() - behindSince) : 0,
      applied,
      passedOver,
      foundedAt,
    }),
    get inConflict() {
      return conflict !== null
    },
    async observe() {
      // our place is taken before the log is asked: what is applied meanwhile may lie beyond the answer
      const at = offset
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

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
