import { backoff } from '../core/backoff.ts'
import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import { codeOf, MillraceError } from '../core/errors.ts'
import type { Event } from '../core/event.ts'
import { isRetried, policyFor } from '../core/policy.ts'
import type { Consumer, OffsetRange, Queue, StoredRecord, TopicPartition } from '../core/queue.ts'
import { fromRecord } from '../core/record.ts'
import type { PartitionCheckpoint, Sink } from '../core/sink.ts'
import { insisted } from './doubt.ts'
import { type ConflictMark, type EventPlace, followLane, type LaneFollower, type PartitionStatus } from './lane-follower.ts'

/**
 * The applier: queue → sink. A member of the sink's consumer group; each partition it is assigned becomes a lane of
 * its own, so that a slow or halted one holds back no other.
 */
export interface ApplierOptions {
  /** the sink's name */
  readonly name: string
  readonly pipeline: string
  readonly sink: Sink
  readonly queue: Queue
  /** as `Queue.topics` takes them: a trailing `*` matches all that begin so */
  readonly topics: readonly string[]
  readonly start: 'earliest' | 'latest' | number
  /** null: every source */
  readonly sources: readonly string[] | null
  readonly log: Log
  readonly clock: Clock
  readonly random: () => number
}

export interface ApplierStatus {
  readonly phase: 'starting' | 'running' | 'waiting' | 'halted' | 'stopped'
  readonly error: Error | null
  /** topics that were found, of those wanted */
  readonly topics: readonly string[]
  readonly partitions: readonly PartitionStatus[]
}

export interface Applier {
  status(): ApplierStatus
  /** resolves when stopped, rejects with the reason when the whole sink is halted */
  readonly done: Promise<void>
  /** finishes the batches under way, keeps their checkpoints, leaves the group */
  stop(): Promise<void>
}

/** topics are made by relays: how often to look for those that are still missing (ms) */
const TOPICS_INTERVAL = 2_000
const OBSERVE_INTERVAL = 5_000
/** how long a fenced lane waits for the group to take its partition before the member joins anew (ms) */
const FENCED_PATIENCE = 10_000
/** a membership that lasted for so long was well (ms) */
const STEADY = 10_000
/**
 * for how long another process's partition that has something to apply must stand still before a conflict waits for it no
 * longer (ms): it may be halted. A dead owner's partitions are somebody's again by then
 */
export const CONFLICT_PATIENCE = 120_000
/**
 * … where all it has yet to apply was committed after ours (ms). It may be in a conflict itself, and wait for us: of those
 * that wait for each other the first in commit order is final, long before the others lose their patience with it
 */
const CONFLICT_PATIENCE_LATER = 30_000
/** failures in a row, of which the last says that the queue lacks something, before that halts the sink */
const DOUBTS = 6

export function startApplier(options: ApplierOptions): Applier {
  const { queue, sink, random, clock } = options
  const log = options.log.child({ sink: options.name })
  const stopping = new AbortController()
  const lanes = new Map<string, LaneFollower>()
  let phase: ApplierStatus['phase'] = 'starting'
  let error: Error | null = null
  let topics: readonly string[] = []
  /** of the topics and their partition counts: a change of either means to join anew */
  let shape = ''
  let gone: readonly PartitionStatus[] = []
  /** by conflict: where the partitions that it waits for were seen to stand since it arose */
  const standing = new WeakMap<ConflictMark, Map<string, { readonly offset: bigint; readonly since: number }>>()
  let runningSince: number | null = null

  const wanted = async (): Promise<readonly string[]> => {
    const found = await queue.topics(options.topics)
    shape = shapeOf(found)
    return [...found.keys()].sort()
  }

  /**
   * Partitions that the sink has a checkpoint in and whose topic is no longer there: halted, as lanes that found their
   * log shorter than their offset are. The other topics flow on.
   */
  async function goneTopics(): Promise<readonly PartitionStatus[]> {
    const follows = (topic: string): boolean =>
      options.topics.some((name) => (name.endsWith('*') ? topic.startsWith(name.slice(0, -1)) : topic === name))
    const stands = (await sink.checkpoints()).filter(({ topic, offset }) => offset !== null && follows(topic))
    const missing = (): readonly PartitionCheckpoint[] => stands.filter(({ topic }) => !topics.includes(topic))
    const known = ({ topic, partition }: TopicPartition): PartitionStatus | undefined =>
      gone.find((one) => one.topic === topic && one.partition === partition)
    await insisted(
      async () => {
        topics = await wanted()
        const found = missing().find((checkpoint) => known(checkpoint) === undefined)
        if (found !== undefined) throw goneError(found)
      },
      clock,
      stopping.signal,
    ).catch((caught: unknown) => {
      if (codeOf(caught) !== 'MILLRACE_QUEUE_OFFSET_GONE') throw caught
    })
    // asked to stop while it was in doubt: the next start will tell
    if (stopping.signal.aborted) return gone
    return missing().map((checkpoint) => known(checkpoint) ?? goneFrom(checkpoint))
  }

  function goneFrom(checkpoint: PartitionCheckpoint): PartitionStatus {
    const lost = goneError(checkpoint)
    log.error({ err: lost, code: lost.code, ...lost.fields }, 'the partition is halted')
    return haltedPartition(checkpoint, lost)
  }

  /** One membership of the group: until we stop, it breaks, topics appear, or a fenced lane needs a new assignment. */
  async function membership(): Promise<void> {
    topics = await wanted()
    gone = await goneTopics()
    if (topics.length === 0) {
      phase = 'running'
      error = null
      await clock.wait(TOPICS_INTERVAL, stopping.signal)
      return
    }
    const ended = new AbortController()
    const signal = AbortSignal.any([ended.signal, stopping.signal])
    const consumer = await queue.consume({
      group: `millrace.${options.pipeline}.${options.name}`,
      clientId: `millrace-${options.pipeline}`,
      topics,
      signal,
    })
    const following = new Set<Promise<unknown>>()
    const watch = watchTopics(ended)
    const observer = observeLanes(signal)
    try {
      phase = 'running'
      error = null
      runningSince = clock.elapsed()
      await followAssignments(consumer, ended, following)
    } finally {
      ended.abort()
      await Promise.allSettled([consumer.close(), watch, observer, ...following])
      lanes.clear()
    }
  }

  async function followAssignments(consumer: Consumer, ended: AbortController, following: Set<Promise<unknown>>): Promise<void> {
    for await (const assignment of consumer) {
      const key = `${assignment.topic}/${assignment.partition}`
      const lane = followLane({
        assignment,
        after: lanes.get(key)?.done,
        queue,
        sink,
        start: options.start,
        sources: options.sources === null ? null : new Set(options.sources),
        log,
        clock,
        random,
        markConflict,
        mayResolve,
      })
      lanes.set(key, lane)
      const followed = lane.done.then(async (why) => {
        if (why === 'fenced') {
          await clock.wait(FENCED_PATIENCE, assignment.signal)
          if (!assignment.signal.aborted) ended.abort()
        }
        if (lanes.get(key) === lane) lanes.delete(key)
        following.delete(followed)
      })
      following.add(followed)
    }
  }

  async function watchTopics(ended: AbortController): Promise<void> {
    const signal = AbortSignal.any([ended.signal, stopping.signal])
    while (!signal.aborted) {
      await clock.wait(TOPICS_INTERVAL, signal)
      const found = signal.aborted ? null : await queue.topics(options.topics).catch(() => null)
      if (found !== null && shapeOf(found) !== shape) ended.abort()
    }
  }

  async function observeLanes(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await clock.wait(OBSERVE_INTERVAL, signal)
      for (const lane of lanes.values()) if (!signal.aborted) await lane.observe().catch(() => {})
    }
  }

  async function markConflict(): Promise<ConflictMark> {
    const mark = new Map<string, Awaited<ReturnType<Queue['ranges']>>>()
    for (const topic of topics) mark.set(topic, await queue.ranges(topic))
    return mark
  }

  /** for how long the partition was seen to stand there (ms) */
  function standsFor(mark: ConflictMark, key: string, offset: bigint): number {
    const seen = standing.get(mark) ?? new Map<string, { offset: bigint; since: number }>()
    standing.set(mark, seen)
    const since = seen.get(key)?.offset === offset ? (seen.get(key)?.since as number) : clock.elapsed()
    seen.set(key, { offset, since })
    return clock.elapsed() - since
  }

  /** PROTOCOL 2.4: until every partition has been applied to the end it had, a value may just not be given up yet. */
  async function mayResolve(since: ConflictMark, at: EventPlace | null): Promise<boolean> {
    const offsets = new Map((await sink.checkpoints()).map((c) => [`${c.topic}/${c.partition}`, c.offset ?? 0n]))
    let may = false
    for (const [topic, ranges] of since)
      for (const [partition, { start, end }] of ranges.entries()) {
        const offset = offsets.get(`${topic}/${partition}`) ?? 0n
        // each is looked at, so that those which stand still are waited for side by side
        if (start !== end && offset < end && !(await isPast({ topic, partition }, { start: offset, end }, since, at))) may = true
      }
    return may
  }

  /** Whether the conflict waits no longer for what the partition has yet to apply: the range. */
  async function isPast(place: TopicPartition, range: OffsetRange, since: ConflictMark, at: EventPlace | null): Promise<boolean> {
    const key = `${place.topic}/${place.partition}`
    const lane = lanes.get(key)
    const stuck = lane?.stuck ?? null
    if (stuck === 'halted' || stuck === 'unknown') return true
    // what would resolve ours may stand behind a conflict that was committed before it, and will be parked first
    if (stuck !== null) return at === null || !precedes(stuck, at)
    const still = standsFor(since, key, range.start)
    // what the queue has lost since then comes no more. Its word is taken only when nothing has come for long
    if (lane !== undefined) return still >= CONFLICT_PATIENCE && (await firstRecords(place, range)).length === 0
    if (still >= CONFLICT_PATIENCE) return true
    if (still < CONFLICT_PATIENCE_LATER || at === null) return false
    const next = (await firstRecords(place, range)).map(fromRecord).find((event) => event !== null && isFollowed(event))
    return next != null && next.source === at.source && precedes(at, next)
  }

  const isFollowed = ({ source }: Event): boolean => options.sources === null || options.sources.includes(source)

  /** the first records of what is left of the range; markers and what was compacted away are none */
  async function firstRecords(place: TopicPartition, { start, end }: OffsetRange): Promise<readonly StoredRecord[]> {
    const last = (await queue.ranges(place.topic))[place.partition]?.end ?? 0n
    const left = { start, end: last < end ? last : end }
    for await (const records of queue.read(place, left)) return records
    return []
  }

  async function run(): Promise<void> {
    let attempts = 0
    while (!stopping.signal.aborted) {
      try {
        await membership()
        attempts = 0
      } catch (caught) {
        error = caught as Error
        if (runningSince !== null && clock.elapsed() - runningSince >= STEADY) attempts = 0
        runningSince = null
        const policy = policyFor(error)
        // a broker that has just restarted may miss a topic that it finds again
        if (!isRetried(policy) && !(codeOf(error) === 'MILLRACE_QUEUE_NOT_READY' && attempts < DOUBTS)) {
          phase = 'halted'
          log.error({ err: error, code: codeOf(error) }, 'the sink is halted')
          throw error
        }
        attempts++
        phase = 'waiting'
        const delay = backoff(attempts, random, policy === 'retry-slowly' ? { base: 5_000, cap: 60_000 } : {})
        log.warn({ err: error, code: codeOf(error), attempts, delay }, 'the sink cannot follow the queue; trying again')
        await clock.wait(delay, stopping.signal)
      }
    }
    phase = 'stopped'
  }

  const done = run()
  done.catch(() => {})
  return {
    status: () => ({ phase, error, topics, partitions: [...gone, ...[...lanes.values()].map((lane) => lane.status())] }),
    done,
    async stop() {
      stopping.abort()
      await done.catch(() => {})
    },
  }
}

/** in commit order; positions of two sources do not compare, and any order of them keeps two from waiting for each other */
const precedes = (one: EventPlace, other: EventPlace): boolean =>
  one.source === other.source ? one.position < other.position : one.source < other.source

const shapeOf = (topics: ReadonlyMap<string, number>): string =>
  [...topics]
    .map(([topic, partitions]) => `${topic} ${partitions}`)
    .sort()
    .join('\n')

function goneError({ topic, partition, offset }: PartitionCheckpoint): MillraceError {
  return new MillraceError(
    'MILLRACE_QUEUE_OFFSET_GONE',
    `the topic ${topic} is gone, and the sink stands at offset ${offset} of its partition ${partition}`,
    {
      remedy:
        'what the sink had not applied of it is lost with it: restore the topic, or find out who deleted it; the replica keeps what was applied',
      fields: { topic, partition, offset: String(offset) },
    },
  )
}

function haltedPartition({ topic, partition, positions, offset, parked }: PartitionCheckpoint, error: Error): PartitionStatus {
  const nothing = { end: null, lagMs: 0, applied: 0, parked: 0, passedOver: 0, foundedAt: null }
  return { topic, partition, phase: 'halted', error, positions, offset, parkedKeys: parked.size, ...nothing }
}
