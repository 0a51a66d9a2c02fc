import { randomBytes } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import { MillraceError } from '../core/errors.ts'
import { formatLsn, type Lsn, parseLsn } from '../core/position.ts'
import type { Queue } from '../core/queue.ts'
import { isAtRest, latestState, type RelayState, stateKey, statePrefix } from '../core/relay-state.ts'
import { encodeState } from '../core/state-text.ts'
import { settle } from '../postgres/options.ts'
import { quoted } from '../postgres/publication.ts'
import type { ParsedConfig } from './config-schema.ts'
import { connectSource, openQueue, openSource, prepareSink, requireSource, type Surroundings, sourceOptions } from './open.ts'
import { type Running, startRoles } from './run.ts'

export interface DrainOptions {
  /** ms. Default: 10 minutes */
  readonly timeout?: number
}

/** What `millrace drain --json` prints. */
export interface DrainReport {
  readonly schema: 1
  readonly pipeline: string
  /** all that was committed below this LSN is published and applied */
  readonly lsn: string
  /** by this machine's clock, ISO 8601 */
  readonly at: string
  /** events that the drain itself published */
  readonly published: number
  /** services wrote on meanwhile: what came after `lsn` waits in the slot */
  readonly stillWriting: boolean
  readonly sinks: readonly { readonly name: string; readonly partitions: number; readonly parkedKeys: number }[]
}

const TIMEOUT = 600_000
const POLL = 200
/** from when all was sent to when it is worth a look whether it was published as well (ms) */
const SETTLED = 1_500
/** another relay holds the slot, and does not go (ms) */
const STANDBY_PATIENCE = 5_000

/**
 * Relays what was committed before it began, applies it with every sink, and records durably that the stream stands
 * still: what a changed mapping, template or partition count, and the move to another server, ask for. The mark is gone
 * as soon as a relay begins again.
 *
 * The relay goes first: only once nothing is published any more is the end of a partition an end.
 *
 * @throws MILLRACE_DRAIN_TIMEOUT with who is behind, MILLRACE_SLOT_IN_USE while another relay runs, and what halts the
 *   relay or a sink
 */
export async function drainPipeline(
  config: ParsedConfig,
  around: Surroundings,
  { timeout = TIMEOUT }: DrainOptions = {},
): Promise<DrainReport> {
  requireSource(config, around)
  const until = performance.now() + timeout
  const names = Object.keys(config.sinks)
  const sinks = names.length === 0 ? null : startRoles(config, { relay: false, sinks: names }, around)
  const queue = await openQueue(config, around)
  try {
    const relayed = await drainRelay(config, around, queue, until)
    const applied = sinks === null ? [] : await drainSinks(config, around, { sinks, queue, until })
    const state = await mark(config, around, queue, relayed.session)
    return {
      schema: 1,
      pipeline: config.name,
      lsn: formatLsn(state.lsn),
      at: new Date(state.at).toISOString(),
      published: relayed.published,
      stillWriting: await wroteAfter(config, around, relayed.stoppedAt),
      sinks: applied,
    }
  } finally {
    await sinks?.stop().catch(() => {})
    await queue.close()
  }
}

interface RelayDrained {
  readonly published: number
  /** its last session did */
  readonly endedWell: boolean
  /** the session whose state covers all that the sinks are waited for */
  readonly session: number
  /** by the server's clock */
  readonly stoppedAt: string
}

/** Relays until the recorded intent covers what was committed at the beginning, and all that was relayed. */
async function drainRelay(config: ParsedConfig, around: Surroundings, queue: Queue, until: number): Promise<RelayDrained> {
  let target = await committedUpTo(config, around)
  let published = 0
  const recorded = async (): Promise<RelayState | null> => latestState(await queue.state.read(statePrefix(config.name)))
  for (;;) {
    const before = await recorded()
    const once = await relayOnce(config, around, target, until)
    published += once.published
    const state = await recorded()
    if (isAtRest(state, { before, target, endedWell: once.endedWell })) return { ...once, published, session: state.session }
    if (performance.now() > until) throw late('the relay stopped in the midst of a transaction each time: services write on')
    target = await committedUpTo(config, around)
  }
}

/** One relay, until it has confirmed that far, or has been sent that far for a while: its own drain confirms the rest. */
async function relayOnce(
  config: ParsedConfig,
  around: Surroundings,
  target: Lsn,
  until: number,
): Promise<Omit<RelayDrained, 'session'>> {
  const relay = startRoles(config, { relay: true, sinks: [] }, around)
  const begunAt = performance.now()
  let sentAt: number | null = null
  try {
    for (;;) {
      const { relay: now } = await alive(relay)
      const at = performance.now()
      if (now?.phase === 'standby' && at - begunAt > STANDBY_PATIENCE)
        throw new MillraceError('MILLRACE_SLOT_IN_USE', 'another relay holds the slot', {
          remedy: 'stop millrace run first, wherever it runs: drain relays and applies by itself',
        })
      if (reaches(now?.walEnd, target)) sentAt ??= at
      if (reaches(now?.confirmed, target) || (sentAt !== null && at - sentAt > SETTLED)) {
        const stoppedAt = await serverTime(config, around)
        await relay.stop(Math.max(until - at, 1))
        const { relay: last } = await relay.status()
        const count = Object.values(last?.published ?? {}).reduce((sum, one) => sum + one, 0)
        return { published: count, endedWell: last?.error === null, stoppedAt }
      }
      if (at > until)
        throw late(
          `the relay (${now?.phase ?? 'not begun'}) has confirmed ${now?.confirmed ?? 'nothing'} of ${formatLsn(target)}`,
          now?.error?.message,
        )
      await wait(POLL)
    }
  } finally {
    await relay.stop(0).catch(() => {})
  }
}

const reaches = (lsn: string | null | undefined, target: Lsn): boolean => lsn != null && parseLsn(lsn) >= target

/** rejects with why it ended, if it did */
async function alive(running: Running): ReturnType<Running['status']> {
  if (running.ended) await running.done
  return running.status()
}

async function drainSinks(
  config: ParsedConfig,
  around: Surroundings,
  { sinks, queue, until }: { readonly sinks: Running; readonly queue: Queue; readonly until: number },
): Promise<DrainReport['sinks']> {
  const ends = new Map<string, readonly bigint[]>()
  const prepared = await Promise.all(
    Object.keys(config.sinks).map(async (name) => ({ name, ...(await prepareSink(config, name, around)) })),
  )
  for (const { topics } of prepared)
    for (const topic of (await queue.topics(topics)).keys())
      if (!ends.has(topic))
        ends.set(
          topic,
          (await queue.ranges(topic)).map(({ start, end }) => (start === end ? 0n : end)),
        )
  const drained: DrainReport['sinks'][number][] = []
  for (const { name, topics, open } of prepared) {
    const sink = await open()
    try {
      const own = [...(await queue.topics(topics)).keys()].sort()
      for (;;) {
        const status = (await alive(sinks)).sinks.find((one) => one.name === name)
        const halted =
          status?.error ?? status?.partitions.find((partition) => partition.error !== null && partition.phase === 'halted')?.error
        if (halted != null)
          throw new MillraceError(halted.code as MillraceError['code'], `the sink ${name} is halted: ${halted.message}`, {
            ...(halted.remedy !== null && { remedy: halted.remedy }),
          })
        // other processes may apply a part of the partitions: the store knows of all of them, where it remembers any
        const places = sink.traits.checkpoints
          ? (await sink.checkpoints()).map(({ topic, partition, offset }) => ({ topic, partition, offset }))
          : (status?.partitions ?? []).map(({ topic, partition, offset }) => ({
              topic,
              partition,
              offset: offset === null ? null : BigInt(offset),
            }))
        const at = new Map(places.map(({ topic, partition, offset }) => [`${topic}/${partition}`, offset]))
        const behind = own.flatMap((topic) =>
          (ends.get(topic) ?? []).flatMap((end, partition) => {
            const place = `${topic}/${partition}`
            const offset = at.get(place) ?? null
            // a partition that was added: a sink with `start: latest` must have its place before anything is published there
            if (offset === null && sink.traits.checkpoints) return [`${place}, which it has not begun,`]
            const missing = end - (offset ?? 0n)
            return missing > 0n ? [`${place} by ${missing}`] : []
          }),
        )
        if (behind.length === 0) break
        if (performance.now() > until)
          throw late(`the sink ${name} is behind: ${behind.slice(0, 5).join(', ')}${behind.length > 5 ? ' …' : ''}`)
        await wait(POLL)
      }
      const partitions = own.reduce((sum, topic) => sum + (ends.get(topic)?.length ?? 0), 0)
      const parkedKeys = (await sink.checkpoints()).reduce((sum, { parked }) => sum + parked.size, 0)
      drained.push({ name, partitions, parkedKeys })
    } finally {
      await sink.close()
    }
  }
  await sinks.stop(Math.max(until - performance.now(), 1))
  return drained
}

function late(who: string, why?: string): MillraceError {
  return new MillraceError('MILLRACE_DRAIN_TIMEOUT', `the stream is not drained: ${who}${why === undefined ? '' : ` (${why})`}`, {
    remedy: 'nothing is lost: run millrace drain again, with a longer --timeout, or millrace status to see what holds it up',
  })
}

/** Recorded on both sides: a dump that holds the copy was taken after the drain. The queue's record first, as always. */
async function mark(
  config: ParsedConfig,
  around: Surroundings,
  queue: Queue,
  session: number,
): Promise<{ readonly lsn: Lsn; readonly at: number }> {
  const source = await openSource(config, around)
  try {
    const records = await queue.state.read(statePrefix(source.name))
    const state = latestState(records)
    // also one that is gone again: the sinks were not waited for what it published
    if (state?.session !== session || (await source.slotStatus())?.activePid != null)
      throw new MillraceError('MILLRACE_SLOT_IN_USE', 'another relay took the slot while the stream was drained', {
        remedy: 'stop it, then run millrace drain again',
      })
    const drained = { lsn: state.intent, at: around.clock.now() }
    const marked: RelayState = { ...state, session: state.session + 1, drained }
    const key = stateKey(source.name, marked.session, randomBytes(6).toString('hex'))
    await queue.state.write(key, encodeState(marked))
    for (const former of records.keys()) await queue.state.remove(former)
    await source.stateCopy.write(encodeState(marked))
    return drained
  } finally {
    await source.close()
  }
}

/**
 * An LSN that everything committed so far lies below. What a transaction without `synchronous_commit` wrote is not sent
 * before it is flushed, so a commit of our own follows, which flushes it: the copy of the relay's state, as it is.
 */
async function committedUpTo(config: ParsedConfig, around: Surroundings): Promise<Lsn> {
  const client = await connectSource(config, around)
  try {
    const { rows } = await client.query('select pg_current_wal_insert_lsn()::text as lsn')
    await client.query("set synchronous_commit = 'local'")
    await client.query('update millrace.relay_state set updated_at = updated_at where source = $1', [config.name])
    return parseLsn(rows[0].lsn)
  } finally {
    await client.end().catch(() => {})
  }
}

async function serverTime(config: ParsedConfig, around: Surroundings): Promise<string> {
  const client = await connectSource(config, around)
  try {
    return (await client.query('select clock_timestamp()::text as now')).rows[0].now
  } finally {
    await client.end().catch(() => {})
  }
}

async function wroteAfter(config: ParsedConfig, around: Surroundings, time: string): Promise<boolean> {
  const { columns } = requireSource(config, around).outbox
  const createdAt = columns === undefined ? 'created_at' : columns.createdAt
  if (createdAt === undefined) return false
  const { table } = settle(sourceOptions(config, around))
  const client = await connectSource(config, around)
  try {
    const { rows } = await client.query(
      `select exists (select from ${quoted(table.schema)}.${quoted(table.name)} where ${quoted(createdAt)} > $1::timestamptz) as wrote`,
      [time],
    )
    return rows[0].wrote
  } finally {
    await client.end().catch(() => {})
  }
}
