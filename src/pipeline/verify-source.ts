import type { Clock } from '../core/clock.ts'
import type { Copy, Difference, Reach } from '../core/copy.ts'
import { lastEpoch } from '../core/epoch.ts'
import { MillraceError } from '../core/errors.ts'
import { type Event, orderOf } from '../core/event.ts'
import { partitionOf } from '../core/murmur2.ts'
import { formatLsn, type Lsn, type Position, positionAt, positionPrefix } from '../core/position.ts'
import type { Queue, TopicPartition } from '../core/queue.ts'
import type { RelayState } from '../core/relay-state.ts'
import type { Lane, ParkedEvent, Sink } from '../core/sink.ts'
import { topicOf } from '../core/topic-template.ts'
import { type KeyVerdict, NO_KEYS, type TargetCounts } from './compare.ts'
import type { Pace } from './pace.ts'

/**
 * Whether a sink's tables show what a query of the user's gives on the source: a service that forgot to emit is equal to
 * its events, and not to its data (PROTOCOL 2.5).
 *
 * Each row of the query becomes an event, as if it had been emitted just before the snapshot that shows it, and goes into
 * the copy by the sink's own mapping. Once the sink has applied all that the snapshot may hold, a row that shows an
 * older position must be equal; one that shows a newer one was written since, and says nothing.
 */
export interface VerifyingSource {
  /** the pipeline's own */
  readonly source: string
  readonly topicTemplate: string
  readonly queries: readonly SourceQuery[]
  readonly sink: Pick<Sink, 'checkpoints'>
  /** emptied first, and at the end of no more use */
  readonly copy: Pick<Copy, 'fold' | 'restart' | 'targets' | 'compare' | 'recheck'>
  readonly queue: Pick<Queue, 'ranges'>
  /** the relay's, as it is recorded now; null: there is none */
  readonly state: () => Promise<RelayState | null>
  readonly pace: Pace
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly told: (verdicts: readonly KeyVerdict[]) => void
  /** Told now and then with how many rows were looked at; what it throws ends it. */
  readonly note: (rows: number) => Promise<void>
}

export interface SourceQuery {
  /** of the sink's tables, by its name */
  readonly table: string
  /** the aggregate type that the rows are of, and an event type that writes whole rows of it */
  readonly from: string
  readonly type: string
  /** see `src/postgres/source-rows.ts` */
  read(): Promise<{
    readonly from: Lsn
    readonly upTo: Lsn
    rows(): AsyncIterable<
      readonly { readonly aggregateId: string; readonly orderingKey: string | null; readonly payload: string | null }[]
    >
    close(): Promise<void>
  }>
}

const BATCH = { events: 500, bytes: 1 << 20 }
/** keys of one comparison */
const LIMIT = 5_000
/** differences that are looked at a second time, against another snapshot */
const CONFIRMED = 20_000
/** for how long relay or sink may stand before they are no longer waited for (ms) */
const PATIENCE = 30_000
const POLL = 250

export async function verifySource(verifying: VerifyingSource): Promise<readonly TargetCounts[]> {
  const { queries, copy, told } = verifying
  const tables = [...new Set(queries.map(({ table }) => table))]
  for (const table of tables) if (!copy.targets.includes(table)) throw noTable(table, copy.targets)
  const counts = new Map(tables.map((target): [string, TargetCounts] => [target, { target, keys: 0, kinds: NO_KEYS, mended: 0 }]))
  const tell = (found: readonly Difference[]): void => {
    if (found.length === 0) return
    const verdicts = found.map(
      ({ kind, ...key }): KeyVerdict => ({ ...key, kind: kind === 'newer' ? 'hot' : kind, mended: false, refused: null }),
    )
    for (const { target, kind } of verdicts) {
      const before = counts.get(target) as TargetCounts
      counts.set(target, { ...before, kinds: { ...before.kinds, [kind]: before.kinds[kind] + 1 } })
    }
    told(verdicts)
  }

  await load(verifying)
  const wrong: Difference[] = []
  for (const target of tables) {
    for (let after: string | null = null, ended = false; !ended; ) {
      const chunk = await copy.compare(target, after, { limit: LIMIT, reach: ALL })
      const before = counts.get(target) as TargetCounts
      counts.set(target, { ...before, keys: before.keys + chunk.keys })
      for (const one of chunk.differences)
        if (isWrong(one) && wrong.length < CONFIRMED) wrong.push(one)
        else tell([one])
      after = chunk.next
      ended = after === null
      await verifying.pace.take(chunk.keys, verifying.signal)
      await verifying.note(0)
    }
  }
  if (wrong.length > 0) {
    await load(verifying)
    for (let at = 0; at < wrong.length; at += LIMIT)
      tell(await copy.recheck(wrong.slice(at, at + LIMIT), { limit: LIMIT, reach: ALL }))
  }
  return [...counts.values()]
}

/** the query gives all there is, as of its snapshot */
const ALL: Reach = { whole: true, since: new Map(), values: true }

const isWrong = ({ kind }: Difference): boolean => kind === 'missing' || kind === 'extra' || kind === 'different'

interface Loading {
  readonly lane: Lane
  at: Position | null
}

/** nothing of the log is read: the copy never stands where the sink does by its offset, only by its positions */
const OFFSET = 0n

/** The copy holds what the queries give now, and the sink has applied all that they may have seen. */
async function load(verifying: VerifyingSource): Promise<void> {
  const { copy, queries, source, topicTemplate, sink, signal, pace, note } = verifying
  const state = await verifying.state()
  if (state === null) throw notRelayed('nothing was ever relayed')
  const { epoch } = lastEpoch(state.epochs)
  const parked = new Map((await sink.checkpoints()).map((checkpoint) => [placeOf(checkpoint), checkpoint.parked]))
  await copy.restart()
  const lanes = new Map<string, Loading>()
  const laneOf = async (place: TopicPartition): Promise<Loading> => {
    const known = lanes.get(placeOf(place))
    if (known !== undefined) return known
    const loading = { lane: await copy.fold(place), at: null }
    lanes.set(placeOf(place), loading)
    return loading
  }
  const apply = async (place: TopicPartition, to: Position, all: readonly Event[]): Promise<void> => {
    const loading = await laneOf(place)
    if (loading.at === to) return
    const waits = parked.get(placeOf(place)) ?? NOTHING
    const apart: ParkedEvent[] = []
    const events: Event[] = []
    for (const event of all)
      if (waits.size > 0 && waits.has(orderOf(event))) apart.push({ event, offset: OFFSET, reason: null })
      else events.push(event)
    await loading.lane.apply({
      moves: [{ source, from: loading.at, to }],
      offset: OFFSET,
      events,
      parked: apart,
      beginning: null,
    })
    loading.at = to
  }

  let upTo: Lsn = 0n
  let ordinal = 0
  try {
    for (const query of queries) {
      const snapshot = await query.read()
      try {
        // below every commit from `from` on, above all before: the text of a commit record lies between
        const prefix = positionPrefix(epoch, snapshot.from - 1n)
        const topic = topicOf(topicTemplate, query.from)
        const partitions = state.topics.get(topic)?.length ?? 1
        let batch = new Map<number, Event[]>()
        let waiting = { events: 0, bytes: 0 }
        const flush = async (): Promise<void> => {
          for (const [partition, events] of batch) await apply({ topic, partition }, (events.at(-1) as Event).position, events)
          await pace.take(waiting.events, signal)
          await note(waiting.events)
          batch = new Map()
          waiting = { events: 0, bytes: 0 }
        }
        for await (const rows of snapshot.rows())
          for (const row of rows) {
            const event = eventOf(row, query.type, source, positionAt(prefix, ++ordinal))
            const partition = partitionOf(Buffer.from(row.orderingKey ?? row.aggregateId), partitions)
            batch.set(partition, [...(batch.get(partition) ?? []), event])
            waiting = { events: waiting.events + 1, bytes: waiting.bytes + (event.value?.length ?? 0) }
            if (waiting.events >= BATCH.events || waiting.bytes >= BATCH.bytes) await flush()
          }
        await flush()
        // every partition stands there, also those without a row: what shows no newer position is judged
        const end = positionAt(prefix, ++ordinal)
        for (let partition = 0; partition < partitions; partition++) await apply({ topic, partition }, end, [])
        if (snapshot.upTo > upTo) upTo = snapshot.upTo
      } finally {
        await snapshot.close()
      }
    }
  } finally {
    await Promise.allSettled([...lanes.values()].map(({ lane }) => lane.release()))
  }
  await applied(verifying, upTo)
}

function eventOf(
  row: { readonly aggregateId: string; readonly orderingKey: string | null; readonly payload: string | null },
  type: string,
  source: string,
  position: Position,
): Event {
  return {
    source,
    position,
    prev: null,
    id: '',
    type,
    key: Buffer.from(row.aggregateId),
    value: row.payload === null ? null : Buffer.from(row.payload),
    headers: [],
    committedAt: 0,
    version: '1',
    orderingKey: row.orderingKey,
    placeholder: null,
  }
}

/** Waits until all that was committed below the LSN is published, and applied by the sink. */
async function applied(verifying: VerifyingSource, upTo: Lsn): Promise<void> {
  const { queries, queue, sink, topicTemplate } = verifying
  await comesTo(verifying, async () => {
    const intent = (await verifying.state())?.intent ?? null
    return intent !== null && intent >= upTo
      ? null
      : {
          at: String(intent),
          says: `the relay has come to ${intent === null ? 'nothing' : formatLsn(intent)}, not to ${formatLsn(upTo)}`,
        }
  })
  const known = (await verifying.state())?.topics
  const ends = new Map<string, bigint>()
  for (const topic of new Set(queries.map(({ from }) => topicOf(topicTemplate, from))))
    if (known?.has(topic))
      for (const [partition, { start, end }] of (await queue.ranges(topic)).entries())
        if (start < end) ends.set(placeOf({ topic, partition }), end)
  await comesTo(verifying, async () => {
    const offsets = new Map((await sink.checkpoints()).map((checkpoint) => [placeOf(checkpoint), checkpoint.offset ?? 0n]))
    const behind = [...ends].filter(([place, end]) => (offsets.get(place) ?? 0n) < end)
    const [first] = behind
    return first === undefined
      ? null
      : {
          at: behind.map(([place]) => offsets.get(place)).join(),
          says: `the sink has come to ${offsets.get(first[0]) ?? 'nothing'} of ${first[0]}, not to ${first[1]}`,
        }
  })
}

/** @throws MILLRACE_REPLAY_REFUSED when it has stood for a while */
async function comesTo(
  { clock, signal, note }: VerifyingSource,
  look: () => Promise<{ readonly at: string; readonly says: string } | null>,
): Promise<void> {
  let at: string | null = null
  let movedAt = clock.elapsed()
  for (;;) {
    const behind = await look()
    if (behind === null) return
    if (behind.at !== at) {
      at = behind.at
      movedAt = clock.elapsed()
    }
    if (clock.elapsed() - movedAt > PATIENCE) throw notRelayed(behind.says)
    await clock.wait(POLL, signal)
    await note(0)
  }
}

function notRelayed(why: string): MillraceError {
  return new MillraceError(
    'MILLRACE_REPLAY_REFUSED',
    `the sink cannot be compared with the source, because it has not applied what the source shows: ${why}`,
    { remedy: 'start the relay and the sink (millrace run), look at millrace status, then verify again' },
  )
}

function noTable(table: string, targets: readonly string[]): MillraceError {
  return new MillraceError('MILLRACE_CONFIG_INVALID', `verify names the table ${table}, which the sink does not feed`, {
    remedy: `its tables are ${targets.join(', ')}`,
  })
}

const NOTHING: ReadonlySet<string> = new Set()
const placeOf = ({ topic, partition }: TopicPartition): string => `${topic}/${partition}`
