import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import local from '../../connectors/queues/local.ts'
import { MillraceError } from '../../src/core/errors.ts'
import type { Event } from '../../src/core/event.ts'
import { partitionOf } from '../../src/core/murmur2.ts'
import type { Queue } from '../../src/core/queue.ts'
import { fromRecord, toRecord } from '../../src/core/record.ts'
import { latestState, type RelayState, stateKey, statePrefix, type Tail } from '../../src/core/relay-state.ts'
import { decodeState, encodeState } from '../../src/core/state-text.ts'
import { topicOf } from '../../src/core/topic-template.ts'
import { initRelayState } from '../../src/pipeline/init-state.ts'
import { type Relay, type RelayOptions, startRelay } from '../../src/pipeline/relay.ts'
import { migrate } from '../../src/postgres/migrate.ts'
import { openPostgresSource, type PostgresSource } from '../../src/postgres/source.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { silent } from '../connectors/postgres-fixture.ts'
import { query } from '../faults/parts.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'

const NAME = 'shop'
const TEMPLATE = 'outbox.event.{aggregate_type}'
const TOPIC = topicOf(TEMPLATE, 'order')
/** a table of somebody else's, without our constraints */
const TABLE =
  'create table events (n bigserial, id text primary key, kind text not null, aggregate text not null, type text not null, body text, headers text)'

let database: Database
let folder: string
let queue: Queue
let source: PostgresSource
let slot: string
const relays: Relay[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-relay-'))
  database = await createDatabase('source')
  slot = `relay_${process.pid}_${Math.random().toString(36).slice(2, 10)}`
  await database.query(TABLE)
  queue = await openQueue()
  const columns = { id: 'id', aggregateType: 'kind', aggregateId: 'aggregate', type: 'type', payload: 'body', headers: 'headers' }
  source = openPostgresSource(
    { name: NAME, url: database.url, slot, outbox: { table: 'events', columns }, acceptUnlimitedWal: true },
    { log: silent, now: Date.now },
  )
  await query(database.url, migrate)
  await source.init()
  const session = await source.open({ signal: AbortSignal.timeout(30_000) })
  await session.close()
  await initRelayState({ source, queue, identify: async () => session.identity, fingerprint: 'f', newStreamId: randomUUID })
})

afterEach(async () => {
  await Promise.all(relays.splice(0).map((relay) => relay.stop()))
  await source.close()
  await queue.close()
  await database.drop()
  await rm(folder, { recursive: true, force: true })
})

async function openQueue(): Promise<Queue> {
  const parsed = await local.options['~standard'].validate({
    path: join(folder, 'queue.db'),
    topics: { partitions: 2 },
    maxRecordBytes: 20_000,
  })
  if (parsed.issues) throw new Error(JSON.stringify(parsed.issues))
  return local.open(parsed.value, { log: silent, pipeline: NAME, now: Date.now })
}

function relay(options: Partial<RelayOptions> = {}): Relay {
  const started = startRelay({
    source,
    queue,
    topicTemplate: TEMPLATE,
    fingerprint: 'f',
    sinkTopics: [],
    log: silent,
    clock: systemClock,
    random: Math.random,
    ...options,
  })
  relays.push(started)
  return started
}

interface Row {
  readonly id: string
  readonly body?: string
  readonly headers?: string
}

/** in one transaction, so in one batch */
function emit(...rows: readonly Row[]): Promise<unknown> {
  return database.query(
    `insert into events (id, kind, aggregate, type, body, headers)
     select r->>'id', 'order', r->>'id', 'Put', coalesce(r->>'body', '{}'), r->>'headers' from json_array_elements($1::json) r`,
    [JSON.stringify(rows)],
  )
}

/** ids whose events share a partition, in the order that they sort in */
function sameOrder(count: number): readonly string[] {
  const names = Array.from({ length: 100 }, (_, i) => `e${String(i).padStart(2, '0')}`)
  return names.filter((name) => partitionOf(new TextEncoder().encode(name), 2) === 0).slice(0, count)
}

/** what the queue holds, by partition */
async function published(): Promise<readonly (readonly Event[])[]> {
  if (!(await queue.topics([TOPIC])).has(TOPIC)) return [[], []]
  const partitions: Event[][] = []
  for (const [partition, range] of (await queue.ranges(TOPIC)).entries()) {
    const events: Event[] = []
    for await (const records of queue.read({ topic: TOPIC, partition }, range))
      events.push(...records.map((r) => fromRecord(r) as Event))
    partitions.push(events)
  }
  return partitions
}
const ids = async (): Promise<readonly string[]> =>
  (await published())
    .flat()
    .sort((a, b) => (a.position < b.position ? -1 : 1))
    .map(({ id }) => id)
const untilPublished = (expected: readonly string[]): Promise<unknown> =>
  eventually(async () => JSON.stringify(await ids()) === JSON.stringify(expected), {
    within: 15_000,
    what: `the queue holds ${expected.join(', ')}`,
  })
const running = (one: Relay): Promise<unknown> =>
  eventually(() => one.status().phase === 'running', { within: 15_000, what: 'the relay runs' })
const haltOf = (one: Relay): Promise<unknown> =>
  one.done.then(
    () => 'stopped',
    (error) => error,
  )

/** how long it takes, in ms */
async function duration(work: Promise<unknown>): Promise<number> {
  const begun = performance.now()
  await work
  return performance.now() - begun
}

describe('for a row that cannot be published whole a placeholder stands in its place in the chain, and the rest flows', () => {
  for (const [what, poison, code] of [
    ['headers that are no object of strings', { id: 'poison', headers: '{"n": 1}' }, 'MILLRACE_OUTBOX_ROW_INVALID'],
    ['headers that are not JSON', { id: 'poison', headers: 'x' }, 'MILLRACE_OUTBOX_ROW_INVALID'],
    [
      'a header that is Millrace’s own',
      { id: 'poison', headers: '{"millrace-position": "00000000-0000000000000000-00000001"}' },
      'MILLRACE_OUTBOX_ROW_INVALID',
    ],
    ['a record above the queue’s limit', { id: 'poison', body: 'x'.repeat(20_000) }, 'MILLRACE_EVENT_TOO_LARGE'],
    [
      'many small headers above the queue’s limit',
      {
        id: 'poison',
        headers: JSON.stringify(Object.fromEntries(Array.from({ length: 1_200 }, (_, i) => [`h${i.toString(36)}`, '']))),
      },
      'MILLRACE_EVENT_TOO_LARGE',
    ],
  ] as const)
    test(what, async () => {
      await emit({ id: 'a' }, { id: 'b', headers: '{"trace": "1"}' }, poison, { id: 'c' })
      const one = relay()
      await untilPublished(['a', 'b', 'poison', 'c'])
      expect(one.status().phase).toBe('running')
      const events = (await published()).flat()
      expect(events.find(({ id }) => id === 'poison')).toMatchObject({ placeholder: code, type: 'Put', value: null, headers: [] })
      expect(events.filter(({ placeholder }) => placeholder !== null)).toHaveLength(1)
      for (const partition of await published())
        for (const [i, event] of partition.entries()) expect(event.prev).toBe(partition[i - 1]?.position ?? null)
    })

  test('whose key alone is above the queue’s limit no placeholder fits: the relay halts and names it, what stood before it is published', async () => {
    await emit({ id: 'a' }, { id: 'k'.repeat(20_000) }, { id: 'c' })
    expect(await haltOf(relay())).toMatchObject({
      code: 'MILLRACE_EVENT_TOO_LARGE',
      fields: { type: 'Put', position: expect.any(String) },
    })
    expect(await ids()).toEqual(['a'])
  })
})

describe('stop ends within its bound', () => {
  test('while the database is idle, and the slot is free then', async () => {
    const one = relay()
    await running(one)
    expect(await duration(one.stop())).toBeLessThan(5_000)
    expect(one.status().phase).toBe('stopped')
    expect((await source.slotStatus())?.activePid).toBeNull()
  })

  test('while the database is busy, and nothing is published twice afterwards', async () => {
    const one = relay()
    await running(one)
    const rows = Array.from({ length: 3_000 }, (_, i) => ({ id: `e${String(i).padStart(4, '0')}` }))
    await emit(...rows.slice(0, 1_000))
    await emit(...rows.slice(1_000))
    await eventually(async () => (await ids()).length > 0, { what: 'something is published' })
    expect(await duration(one.stop())).toBeLessThan(5_000)
    const again = relay()
    await untilPublished(rows.map(({ id }) => id))
    await again.stop()
    for (const events of await published())
      for (const [i, event] of events.entries()) expect(event.prev).toBe(events[i - 1]?.position ?? null)
  })

  test('while the queue is blocked, and what was under way comes again', async () => {
    const one = relay()
    await emit({ id: 'a' })
    await untilPublished(['a'])
    const blocker = new DatabaseSync(join(folder, 'queue.db'))
    try {
      blocker.exec('begin immediate')
      await emit({ id: 'b' })
      await eventually(() => one.status().phase === 'waiting', {
        within: 20_000,
        what: 'the relay sees that the queue is blocked',
      })
      expect(await duration(one.stop())).toBeLessThan(20_000)
      expect(one.status().phase).toBe('stopped')
    } finally {
      blocker.exec('rollback')
      blocker.close()
    }
    relay()
    await untilPublished(['a', 'b'])
  }, 90_000)
})

test('two sessions of one number do not overwrite each other: the one that went on counts', async () => {
  await queue.createTopic(TOPIC)
  const one = relay()
  await emit({ id: 'a' })
  await untilPublished(['a'])
  await one.stop()
  const records = await queue.state.read(statePrefix(NAME))
  const current = latestState(records)
  if (current === null) throw new Error('no state')
  // the first write of a session whose outcome was unknown: it arrives only now
  const late = { ...current, intent: 1n, topics: new Map() }
  await queue.state.write(stateKey(NAME, current.session, 'another'), encodeState(late))
  await queue.state.write(stateKey(NAME, current.session), encodeState(late))
  relay()
  await emit({ id: 'b' })
  await untilPublished(['a', 'b'])
  const sessions = [...(await queue.state.read(statePrefix(NAME))).values()].map((text) => decodeState(text).session)
  // the one before may still be the slot's owner: its record stays until the next
  expect(new Set(sessions)).toEqual(new Set([current.session, current.session + 1]))
})

/** The queue, whose next state write after `hold` is under way until `lose`; then it fails, and may `arrive` all the same. */
function holdingState(): {
  readonly queue: Queue
  hold(): void
  readonly underWay: Promise<{ lose(): void; arrive(): Promise<void> }>
} {
  const underWay = Promise.withResolvers<{ lose(): void; arrive(): Promise<void> }>()
  let holds = false
  const { state } = queue
  const write = (key: string, text: string): Promise<void> => {
    if (!holds) return state.write(key, text)
    holds = false
    const { promise, reject } = Promise.withResolvers<void>()
    const lose = (): void => reject(new MillraceError('MILLRACE_QUEUE_UNREACHABLE', 'the reply was lost'))
    setTimeout(lose, 30_000).unref()
    underWay.resolve({ lose, arrive: () => state.write(key, text) })
    return promise
  }
  const held = { read: (prefix: string) => state.read(prefix), remove: (key: string) => state.remove(key), write }
  return {
    queue: new Proxy(queue, {
      get(target, name) {
        const value = Reflect.get(target, name, target)
        return name === 'state' ? held : typeof value === 'function' ? value.bind(target) : value
      },
    }),
    hold() {
      holds = true
    },
    underWay: underWay.promise,
  }
}

test('after a state write of unknown outcome a session writes no more, though it is asked to stop: the late one would replace it', async () => {
  const holding = holdingState()
  const one = relay({ queue: holding.queue })
  await emit({ id: 'a' })
  await untilPublished(['a'])
  holding.hold()
  await emit({ id: 'b' })
  const write = await holding.underWay
  await emit({ id: 'c' })
  await untilPublished(['a', 'b', 'c'])
  const stopped = one.stop()
  write.lose()
  await stopped
  await write.arrive()
  // what is confirmed, and copied, may not be ahead of what the queue holds
  relay()
  await emit({ id: 'd' })
  await untilPublished(['a', 'b', 'c', 'd'])
}, 40_000)

test("a zombie's recorded tail behind what the owner had not recorded is no loss: the chain is found in the whole log", async () => {
  const [a, b, c, d, e] = sameOrder(5) as [string, string, string, string, string]
  const first = relay()
  await emit({ id: a })
  await untilPublished([a])
  await first.stop()
  const records = await queue.state.read(statePrefix(NAME))
  const recorded = latestState(records) as RelayState
  const holding = holdingState()
  const owner = relay({ queue: holding.queue })
  await running(owner)
  holding.hold()
  await emit({ id: b })
  await emit({ id: c })
  await untilPublished([a, b, c])
  // the zombie publishes b late, has it acknowledged and records that; then the owner goes on, and dies before it records
  const tails = recorded.topics.get(TOPIC) as readonly Tail[]
  const partition = tails.findIndex(({ position }) => position !== null)
  const late = (await published())[partition]?.find(({ id }) => id === b) as Event
  const zombie = await queue.publisher()
  const [offset] = await zombie.publish([{ topic: TOPIC, partition, records: [toRecord(late)] }])
  await zombie.close()
  const behind = tails.with(partition, { position: late.position, offset: offset as bigint })
  await queue.state.write(
    stateKey(NAME, recorded.session, 'zombie'),
    encodeState({ ...recorded, topics: new Map([[TOPIC, behind]]) }),
  )
  await emit({ id: d })
  await untilPublished([a, b, b, c, d])
  const write = await holding.underWay
  const stopped = owner.stop()
  write.lose()
  await stopped
  relay()
  await emit({ id: e })
  await untilPublished([a, b, b, c, d, e])
  const events = (await published())[partition] as readonly Event[]
  expect(events.at(-1)?.prev).toBe(events.find(({ id }) => id === d)?.position)
}, 40_000)

test('a session that fails again and again is not tried in haste', async () => {
  let sessions = 0
  const failing = new Proxy(queue, {
    get(target, name) {
      const value = Reflect.get(target, name, target)
      if (name !== 'publisher') return typeof value === 'function' ? value.bind(target) : value
      return async () => {
        sessions++
        const publisher = await target.publisher()
        // closed under the relay's hands: its publish is refused, each time
        return {
          publish: (batches: never) =>
            publisher
              .close()
              .then(() => publisher.publish(batches))
              .catch((cause) => Promise.reject(unknown(cause))),
          close: () => publisher.close(),
        }
      }
    },
  })
  const one = relay({ queue: failing, random: () => 0 })
  await emit({ id: 'a' })
  await eventually(() => one.status().attempts >= 4, { within: 20_000, what: 'failures in a row are counted' })
  expect(sessions).toBeGreaterThanOrEqual(4)
  await one.stop()
}, 40_000)

const unknown = (cause: unknown): Error =>
  new MillraceError('MILLRACE_PUBLISH_UNKNOWN', 'it is unknown whether events were written', { cause })
