import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import { codeOf, type ErrorCode, MillraceError } from '../core/errors.ts'
import { explainGap, followServer } from '../core/failover.ts'
import { formatLsn, type Lsn, type Position, parseLsn } from '../core/position.ts'
import type { OffsetRange, Publisher, Queue, TopicPartition } from '../core/queue.ts'
import { fromRecord } from '../core/record.ts'
import { latestState, type RelayState, resumeState, statePrefix, type Tail } from '../core/relay-state.ts'
import type { Source, SourceSession } from '../core/source.ts'
import { decodeState } from '../core/state-text.ts'
import { beginAnew, beginSearch, endSearch, LOST_END, searchStep, type TailSearch } from '../core/tail.ts'
import { insisted } from './doubt.ts'
import type { Failpoint } from './failpoint.ts'
import { createPlan, type RelayPlan } from './relay-plan.ts'
import { createKeeper, type StateKeeper } from './state-keeper.ts'

/** What a session tells while it runs; the relay keeps it for status and metrics. */
export interface SessionReport {
  running(session: SourceSession): void
  published(topic: string, count: number, position: Position): void
  confirmed(lsn: Lsn): void
}

export interface SessionOptions {
  readonly source: Source
  readonly queue: Queue
  readonly topicTemplate: string
  readonly fingerprint: string
  /** topics that sinks wait for: made at the start, so that they need not wait for a first event */
  readonly sinkTopics: readonly string[]
  readonly log: Log
  readonly clock: Clock
  readonly failpoint: (name: Failpoint) => Promise<void> | void
  /** tells the sessions of one number apart: a name that nobody else has */
  readonly newWriter: () => string
  readonly report: SessionReport
  /** asks for a drain: stop reading, publish what is under way, record, confirm, give the slot back */
  readonly drain: AbortSignal
}

/** one request: enough to be worth a round trip, small enough to be acknowledged soon */
const BATCH = { maxChanges: 2_000, maxBytes: 1 << 20 }
/**
 * One session of the relay: owns the slot, finds the tails, publishes and confirms until it is drained or something
 * fails. Any doubt ends it (PROTOCOL 2.3 rule 4); the next one begins from durable state alone.
 */
export async function runSession(options: SessionOptions): Promise<void> {
  const { queue, report, drain, failpoint, log } = options
  const ended = new AbortController()
  const session = await openSession(options, ended.signal)
  let publisher: Publisher | undefined
  try {
    const begun = await begin(options, session)
    const { plan, keeper } = begun
    publisher = await queue.publisher()
    const waitedFor = options.sinkTopics.filter((topic) => !plan.topics.has(topic))
    await recordTopics(options, begun, waitedFor)
    report.running(session)
    log.info({ session: keeper.session, confirmed: formatLsn(session.identity.confirmed) }, 'relay session began')

    const interrupts = createInterrupts(drain, ended.signal)
    keeper.run(session).catch((error: unknown) => interrupts.fail(error))
    try {
      for (;;) {
        const batch = await interrupts.unless(session.next(BATCH))
        if (batch === null) break
        await failpoint('read')
        if (batch.changes.length > 0) {
          await recordTopics(options, begun, plan.unknownTopics(batch.changes))
          const planned = plan.plan(batch.changes)
          for (const { code, message, fields } of planned.unpublishable)
            log.warn({ code, ...fields }, `a placeholder is published in its place: ${message}`)
          if (planned.count > 0) {
            await failpoint('planned')
            const sent = publisher.publish(planned.batches)
            // the rejection is awaited below; this keeps it from being unhandled while a failpoint waits
            sent.catch(() => {})
            await failpoint('sent')
            plan.acknowledge(planned, await sent)
            await failpoint('acked')
            for (const { topic, records, last } of planned.batches) report.published(topic, records.length, last)
          }
          if (planned.refused !== null) throw planned.refused
        }
        if (batch.end !== null) keeper.covered(batch.end, batch.changes.length > 0)
      }
    } catch (error) {
      throw meansGap(error) ? explainGap(error, { intent: keeper.confirmed, topics: plan.topics }, session.walEnd) : error
    } finally {
      await keeper.stop()
    }
    await keeper.write(session)
    await keeper.copy()
    // that the source holds it
    await keeper.record()
    log.info({ session: keeper.session, confirmed: formatLsn(keeper.confirmed) }, 'relay session drained')
  } finally {
    ended.abort()
    await Promise.allSettled([publisher?.close(), session.close()])
  }
}

/**
 * Waiting that a drain or a failure ends. Not `Promise.race`: raced again and again, a promise that lives as long as the
 * session keeps every result that won against it, a gigabyte for a million events (measured).
 */
interface Interrupts {
  /** what the promise gives; null as soon as we drain; rejects as soon as something failed */
  unless<T>(promise: Promise<T>): Promise<T | null>
  fail(error: unknown): void
}

function createInterrupts(drain: AbortSignal, ended: AbortSignal): Interrupts {
  let failure: { readonly error: unknown } | null = null
  let waiting: { resolve(value: null): void; reject(error: unknown): void } | null = null
  // the relay's drain outlives its sessions
  drain.addEventListener('abort', () => waiting?.resolve(null), { once: true, signal: ended })
  return {
    unless: (promise) =>
      new Promise((resolve, reject) => {
        waiting = { resolve, reject }
        promise.then(resolve, reject)
        if (failure !== null) reject(failure.error)
        else if (drain.aborted) resolve(null)
      }),
    fail(error) {
      failure = { error }
      waiting?.reject(error)
    },
  }
}

const GAPS = new Set<ErrorCode>(['MILLRACE_SLOT_MISSING', 'MILLRACE_SLOT_LOST', 'MILLRACE_PUBLICATION_MISSING'])
const meansGap = (error: unknown): error is MillraceError => error instanceof MillraceError && GAPS.has(error.code)

/** A source that cannot be opened because events are missing does not know from where on: the relay's state does. */
export async function openSession(
  { source, queue }: Pick<SessionOptions, 'source' | 'queue'>,
  signal: AbortSignal,
): Promise<SourceSession> {
  try {
    return await source.open({ signal })
  } catch (error) {
    if (!meansGap(error)) throw error
    const state = latestState(await queue.state.read(statePrefix(source.name)))
    const { walEnd } = error.fields
    if (state === null) throw error
    throw explainGap(error, state, typeof walEnd === 'string' ? parseLsn(walEnd) : null)
  }
}

interface Begun {
  readonly plan: RelayPlan
  readonly keeper: StateKeeper
}

/** Finds where both sides stand, or refuses; then the session's own record stands before anything is published. */
async function begin(options: SessionOptions, session: SourceSession): Promise<Begun> {
  const { source, queue } = options
  const { records, state } = await findOutInsisted(options, session)
  const plan = createPlan({
    source: source.name,
    topicTemplate: options.topicTemplate,
    maxRecordBytes: () => queue.traits.maxRecordBytes,
    state,
  })
  const keeper = createKeeper(options, plan, state, session.identity.confirmed)
  for (const [topic, partitions] of await queue.topics([...state.topics.keys()])) {
    const taken = state.topics.get(topic)?.length ?? partitions
    if (partitions > taken)
      options.log.warn(
        { topic, partitions, taken },
        'partitions were added: they are taken once the stream is drained (millrace drain)',
      )
  }
  // after a drain partitions may be taken that were added, and no two sessions may take another number of them
  const takes = latestState(records)?.drained !== null
  if (takes) await keeper.alone([])
  await keeper.record()
  if (takes) await keeper.alone([])
  // the session before ours may still be the slot's owner, if we were replaced and do not know it
  for (const [key, text] of records) if (decodeState(text).session < state.session - 1) await queue.state.remove(key)
  session.begin(state.epochs)
  return { plan, keeper }
}

/**
 * Where both sides stand, once they are believed. Of a drained stream a topic may be gone; a broker that has just come back
 * says so of one that is there, and its chain would begin anew: that, too, it must say again and again.
 */
async function findOutInsisted(options: SessionOptions, session: SourceSession): ReturnType<typeof findOut> {
  const gone = new Set<string>()
  for (;;) {
    let missing: readonly string[] = []
    const ask = (): ReturnType<typeof findOut> => {
      missing = []
      return findOut(options, session, (topics) => {
        missing = topics.filter((topic) => !gone.has(topic))
        if (missing.length > 0) throw goneError(missing[0] as string)
      })
    }
    try {
      return await insisted(ask, options.clock, options.drain)
    } catch (error) {
      if (missing.length === 0 || options.drain.aborted || codeOf(error) !== 'MILLRACE_QUEUE_LOST_END') throw error
      for (const topic of missing) gone.add(topic)
    }
  }
}

/** Where both sides stand, as they say now. Changes nothing, so it may be asked again. */
export async function findOut(
  options: Pick<SessionOptions, 'source' | 'queue' | 'fingerprint'>,
  session: Pick<SourceSession, 'identity'>,
  withoutTopics?: (topics: readonly string[]) => void,
): Promise<{
  readonly records: ReadonlyMap<string, string>
  /** what this session begins with */
  readonly state: RelayState
}> {
  const { source, queue, fingerprint } = options
  // read only now that the slot is ours: an owner before us may have written until it lost it
  const records = await queue.state.read(statePrefix(source.name))
  const copyText = await source.stateCopy.read()
  const resumed = resumeState({
    source: source.name,
    queue: latestState(records),
    copy: copyText === null ? null : decodeState(copyText),
    identity: session.identity,
    fingerprint,
  })
  const topics = await findTails(options, resumed, withoutTopics)
  const followed = followServer({ state: resumed, topics, identity: session.identity })
  return { records, state: { ...followed, session: resumed.session + 1, fingerprint } }
}

/**
 * The tails as the queue holds them now. Of a stream that was drained a topic may be gone, or have more partitions than
 * before: whatever was in it is applied, and no key has an event that another could overtake.
 */
export async function findTails(
  options: Pick<SessionOptions, 'source' | 'queue'>,
  { topics: recorded, drained }: RelayState,
  /** told what a drained stream goes on without; may refuse */
  withoutTopics: (topics: readonly string[]) => void = () => {},
): Promise<ReadonlyMap<string, readonly Tail[]>> {
  const counts = await options.queue.topics([...recorded.keys()])
  if (drained !== null) withoutTopics([...recorded.keys()].filter((topic) => !counts.has(topic)))
  const topics = new Map<string, readonly Tail[]>()
  for (const [topic, tails] of recorded) {
    const partitions = counts.get(topic)
    if (drained !== null && partitions === undefined) continue
    const found = await findTopicTails(options, topic, tails, partitions)
    // partitions that were added are taken only where nothing is under way: keys move between partitions then
    const added = drained === null ? [] : (await options.queue.ranges(topic)).slice(tails.length)
    topics.set(topic, [...found, ...added.map(({ end }): Tail => ({ position: null, offset: end - 1n }))])
  }
  return topics
}

async function findTopicTails(
  { source, queue }: Pick<SessionOptions, 'source' | 'queue'>,
  topic: string,
  recorded: readonly Tail[],
  partitions: number | undefined,
): Promise<readonly Tail[]> {
  if (partitions === undefined) throw goneError(topic)
  if (partitions < recorded.length)
    throw new MillraceError(
      'MILLRACE_PARTITIONS_CHANGED',
      `the topic ${topic} has ${partitions} partitions, the stream began with ${recorded.length}: what stood in the others is gone`,
      {
        remedy: LOST_END,
        fields: { topic, partitions, recorded: recorded.length },
      },
    )
  const logs = await queue.ranges(topic)
  const tails: Tail[] = []
  for (const [partition, tail] of recorded.entries()) {
    const place = { topic, partition }
    const log = logs[partition]
    if (log === undefined)
      throw new MillraceError('MILLRACE_QUEUE_NOT_READY', `the queue gave no range for ${topic}/${partition}`)
    tails.push(await findTail({ source, queue }, place, tail, log))
  }
  return tails
}

const goneError = (topic: string): MillraceError =>
  new MillraceError('MILLRACE_QUEUE_LOST_END', `the topic ${topic} is gone, and the relay had published to it`, {
    remedy: LOST_END,
    fields: { topic },
  })

async function findTail(
  options: Pick<SessionOptions, 'source' | 'queue'>,
  place: TopicPartition,
  recorded: Tail,
  log: OffsetRange,
): Promise<Tail> {
  const { name } = options.source
  const search = await readOn(options, beginSearch(place, name, recorded, log))
  if (search.broken === null || log.start > recorded.offset) return endSearch(search)
  return endSearch(await readOn(options, beginAnew(place, name, recorded, log)))
}

async function readOn({ queue }: Pick<SessionOptions, 'queue'>, begun: TailSearch): Promise<TailSearch> {
  let search = begun
  if (search.range.start < search.range.end)
    for await (const batch of queue.read(search.partition, search.range))
      for (const record of batch) {
        search = searchStep(search, record.offset, fromRecord(record))
        if (search.broken !== null) return search
      }
  return search
}

/**
 * Before the first event of each: the topic exists, and the state says where its partitions ended, so that reading
 * forward at the next start is never long.
 */
async function recordTopics(options: SessionOptions, { plan, keeper }: Begun, topics: readonly string[]): Promise<void> {
  const { queue, failpoint, clock, drain } = options
  if (topics.length === 0) return
  const found: (readonly OffsetRange[])[] = []
  for (const topic of topics) {
    const ask = async (): Promise<readonly OffsetRange[]> => {
      await queue.createTopic(topic)
      // what the topic takes is learned with it
      await queue.topics([topic])
      return queue.ranges(topic)
    }
    found.push(await insisted(ask, clock, drain))
  }
  await keeper.alone(topics)
  for (const [i, topic] of topics.entries())
    plan.addTopic(
      topic,
      (found[i] as readonly OffsetRange[]).map(({ end }) => ({ position: null, offset: end - 1n })),
    )
  await keeper.record()
  await keeper.alone(topics)
  await failpoint('topic-recorded')
}
