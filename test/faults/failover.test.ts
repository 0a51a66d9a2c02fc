import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Chain, type Link, linkOf, UNFOUNDED } from '../../src/core/chain.ts'
import { MillraceError } from '../../src/core/errors.ts'
import type { Event } from '../../src/core/event.ts'
import { formatLsn, type Lsn, parseLsn, parsePosition } from '../../src/core/position.ts'
import { fromRecord } from '../../src/core/record.ts'
import { latestState, type RelayState, statePrefix } from '../../src/core/relay-state.ts'
import { type Relay, startRelay } from '../../src/pipeline/relay.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { type PostgresPair, startPostgresPair } from '../support/postgres-pair.ts'
import { requires } from '../support/requires.ts'
import {
  clockOf,
  FINGERPRINT,
  openQueue,
  openSource,
  type Pipeline,
  prepare,
  query,
  quietLog,
  topicOfOrders,
  topicTemplate,
} from './parts.ts'

/** A standby is promoted: the stream goes on in a new epoch where nothing is missing, and stops where something is (PROTOCOL 2.1). */

let replica: Database
let folder: string
let count = 0
const ends: (() => Promise<unknown>)[] = []

beforeEach(async () => {
  replica = await createDatabase('replica')
  folder = await mkdtemp(join(tmpdir(), 'millrace-failover-'))
})

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
  await replica.drop()
  await rm(folder, { recursive: true, force: true })
})

interface Scene {
  readonly pair: PostgresPair
  readonly pipeline: Pipeline
  /** `url`: default the address that moves */
  relay(url?: string): Promise<Relay>
  /** commits an event of the key for each name; `local`: without waiting for the standby */
  emit(names: readonly string[], on?: { readonly url?: string; readonly local?: boolean; readonly key?: string }): Promise<void>
  /** the events in the topic, in order: one partition holds all of a key */
  events(): Promise<readonly Event[]>
  /** resolves with the events once there are so many */
  published(count: number): Promise<readonly Event[]>
  state(): Promise<RelayState>
}

async function startScene(version: 15 | 18, synchronous: boolean): Promise<Scene> {
  const pair = await startPostgresPair({ version, synchronous })
  ends.push(() => pair.remove())
  const pipeline: Pipeline = {
    name: `o${process.pid}_${++count}`,
    sourceUrl: pair.url(),
    replicaUrl: replica.url,
    queue: { kind: 'local', path: join(folder, `${count}.db`) },
  }
  await prepare(pipeline)
  const queue = await openQueue(pipeline)
  ends.push(() => queue.close())

  const events = async (): Promise<readonly Event[]> => {
    const found: Event[] = []
    for (const [partition, range] of (await queue.ranges(topicOfOrders(pipeline))).entries())
      for await (const batch of queue.read({ topic: topicOfOrders(pipeline), partition }, range))
        for (const record of batch) {
          const event = fromRecord(record)
          if (event !== null) found.push(event)
        }
    return found
  }
  return {
    pair,
    pipeline,
    async relay(url = pair.url()) {
      const source = await openSource({ ...pipeline, sourceUrl: url })
      const own = await openQueue(pipeline)
      const relay = startRelay({
        source,
        queue: own,
        topicTemplate: topicTemplate(pipeline),
        fingerprint: FINGERPRINT,
        sinkTopics: [topicOfOrders(pipeline)],
        log: quietLog,
        clock: clockOf(true),
        random: Math.random,
      })
      ends.push(() => relay.stop().then(() => Promise.all([source.close(), own.close()])))
      return relay
    },
    emit: (names, { url = pair.url(), local = false, key = 'one' } = {}) =>
      query(url, async (client) => {
        if (local) await client.query('set synchronous_commit = local')
        for (const name of names)
          await client.query(
            "select millrace.emit(aggregate_type => 'order', aggregate_id => $2, type => 'OrderChanged', payload => $1)",
            [JSON.stringify({ name }), key],
          )
      }),
    events,
    published: (wanted) =>
      eventually(
        async () => {
          const found = await events()
          return found.length >= wanted ? found : undefined
        },
        { within: 30_000, what: `${wanted} events to be published` },
      ),
    async state() {
      const state = latestState(await queue.state.read(statePrefix(pipeline.name)))
      if (state === null) throw new Error('there is no state')
      return state
    },
  }
}

const slotOf = ({ pipeline }: Scene): string => `millrace_${pipeline.name}`
const namesOf = (events: readonly Event[]): readonly string[] =>
  events.map(({ value }) => JSON.parse(new TextDecoder().decode(value ?? new Uint8Array())).name)
const numbered = (from: number, to: number): readonly string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => `e${String(from + i)}`)

function phase(relay: Relay, wanted: ReturnType<Relay['status']>['phase']): Promise<void> {
  return eventually(() => relay.status().phase === wanted, { within: 30_000, what: `the relay to be ${wanted}` }).then(() => {})
}

async function halt(relay: Relay): Promise<MillraceError> {
  const error = await relay.done.then(
    () => null,
    (reason: unknown) => reason,
  )
  if (error instanceof MillraceError) return error
  throw new Error(`the relay did not halt: ${String(error)}`)
}

/** what a sink makes of each, in one partition */
function linksOf(events: readonly Event[]): readonly Link[] {
  let chain: Chain = UNFOUNDED
  return events.map((event) => {
    const link = linkOf(chain, event, true)
    if (link === 'founding' || link === 'next') chain = { ...chain, at: event.position }
    return link
  })
}

async function switchPoint(url: string): Promise<Lsn> {
  return query(url, async (client) => {
    const { rows } = await client.query("select pg_read_file('pg_wal/00000002.history') as history")
    return parseLsn(rows[0].history.split('\t')[1])
  })
}

test('a promoted standby that has everything continues the stream: in a new epoch from the switch point on, nothing twice, no hole', async () => {
  const scene = await startScene(18, true)
  const { pair } = scene
  const relay = await scene.relay()
  await phase(relay, 'running')
  await scene.emit(numbered(1, 20))
  await scene.published(20)
  await pair.followed(slotOf(scene))
  await scene.emit(numbered(21, 30))
  await pair.primary.stop('kill')
  // the address moves sooner than the standby is promoted: that is waited for
  pair.move()
  await eventually(() => (relay.status().error as MillraceError | null)?.code === 'MILLRACE_SOURCE_STANDBY', {
    within: 30_000,
    what: 'the relay to meet a standby',
  })
  expect(relay.status().phase).toBe('waiting')
  await pair.promote()
  await scene.emit(numbered(31, 40))
  const events = await scene.published(40)

  expect(namesOf(events)).toEqual(numbered(1, 40))
  expect(events.map(({ prev }) => prev)).toEqual([null, ...events.slice(0, -1).map(({ position }) => position)])
  const left = await switchPoint(pair.url())
  for (const { position } of events) {
    const { epoch, commitLsn } = parsePosition(position)
    expect(epoch, position).toBe(commitLsn < left ? 1 : 2)
  }
  expect(parsePosition(events[30]?.position ?? '').epoch).toBe(2)
  expect((await scene.state()).epochs).toEqual([
    expect.objectContaining({ epoch: 1, timeline: 1 }),
    expect.objectContaining({ epoch: 2, timeline: 2, began: left, from: left }),
  ])
})

test('a promoted standby that lagged behind what was relayed stops the relay: it names the gap and publishes nothing more', async () => {
  const scene = await startScene(18, false)
  const { pair } = scene
  const relay = await scene.relay()
  await phase(relay, 'running')
  await scene.emit(numbered(1, 10))
  await scene.published(10)
  await pair.followed(slotOf(scene))
  await pair.inSync()
  pair.wal.hold()
  await scene.emit(numbered(11, 20))
  const before = await scene.published(20)
  await pair.primary.stop('kill')
  await pair.promote()
  pair.move()
  await scene.emit(numbered(21, 25))

  const { code, message, remedy } = await halt(relay)
  expect(code).toBe('MILLRACE_SOURCE_CHANGED')
  const left = formatLsn(await switchPoint(pair.url()))
  expect(message).toContain(`promoted to timeline 2, which left timeline 1 at ${left}`)
  expect(message).toContain(`from ${left} up to ${before.at(-1)?.position} that this database never had`)
  expect(remedy).toContain('millrace resume --accept-gap')
  expect((await halt(await scene.relay())).message).toBe(message)
  expect(await scene.events()).toEqual(before)
})

test('a primary that was replaced and still runs cannot relay what the standby never had, where it waits for its standbys', async () => {
  const scene = await startScene(18, true)
  const { pair } = scene
  const zombie = await scene.relay(pair.primary.url())
  await phase(zombie, 'running')
  await scene.emit(numbered(1, 5))
  await scene.published(5)
  await pair.followed(slotOf(scene))
  await pair.promote()
  pair.move()
  await scene.emit(['of nobody'], { url: pair.primary.url(), local: true })
  await phase(await scene.relay(), 'running')
  await scene.emit(numbered(6, 10))
  expect(namesOf(await scene.published(10))).toEqual(numbered(1, 10))
  // it stops by itself as soon as it has to begin anew: the state knows of a later server
  await query(pair.primary.url(), (client) =>
    client.query(
      'select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null and slot_type = $1',
      ['logical'],
    ),
  )
  expect(await halt(zombie)).toMatchObject({
    code: 'MILLRACE_SOURCE_CHANGED',
    message: expect.stringContaining('does not descend'),
  })
  expect(namesOf(await scene.events())).toEqual(numbered(1, 10))
})

test('a primary that was replaced, still runs and waits for nobody relays what is no event of ours: sinks pass it over or stop, never go on', async () => {
  const scene = await startScene(18, false)
  const { pair } = scene
  const zombie = await scene.relay(pair.primary.url())
  await phase(zombie, 'running')
  await scene.emit(numbered(1, 3))
  await scene.published(3)
  await pair.followed(slotOf(scene))
  await pair.inSync()
  await pair.promote()
  pair.move()
  const relay = await scene.relay()
  await phase(relay, 'running')
  await scene.emit(['4'])
  await scene.published(4)
  await scene.emit(['of nobody'], { url: pair.primary.url() })
  await scene.published(5)
  // behind the new epoch it is stale for everyone, and the next session passes it over as well
  expect(linksOf(await scene.events())).toEqual(['founding', 'next', 'next', 'next', 'stale'])
  await relay.stop()
  const next = await scene.relay()
  await phase(next, 'running')
  // a partition that the new epoch has not reached yet takes it; the next event of ours then does not follow
  await scene.emit(['of nobody'], { url: pair.primary.url(), key: 'two' })
  await scene.published(6)
  await scene.emit(['5'], { key: 'two' })
  await scene.published(7)
  expect(linksOf((await scene.events()).filter(({ key }) => new TextDecoder().decode(key) === 'two'))).toEqual([
    'founding',
    'gap',
  ])
})

test('where the address moves between two connections, a session that would mix two servers does not begin', async () => {
  const scene = await startScene(18, true)
  const { pair, pipeline } = scene
  const relay = await scene.relay()
  await phase(relay, 'running')
  await scene.emit(numbered(1, 3))
  await scene.published(3)
  await pair.followed(slotOf(scene))
  await relay.stop()
  const source = await openSource(pipeline)
  ends.push(() => source.close())
  const { signal } = new AbortController()
  // a connection for statements is there, to the old primary; the stream's is yet to be made
  await source.slotStatus()
  await pair.promote()
  pair.move('stay')
  await expect(source.open({ signal })).rejects.toMatchObject({
    code: 'MILLRACE_SOURCE_UNREACHABLE',
    message: expect.stringContaining('do not reach the same server'),
  })
  const session = await eventually(() => source.open({ signal }), { within: 30_000, what: 'a session on the new primary' })
  expect(session.identity).toMatchObject({ timeline: 2, history: [{ timeline: 1, end: await switchPoint(pair.url()) }] })
  await session.close()
})

requires('postgres15')('Postgres 15, whose slots do not follow', () => {
  test('a promoted standby has no slot: the relay stops and names the gap', async () => {
    const scene = await startScene(15, true)
    const { pair } = scene
    const relay = await scene.relay()
    await phase(relay, 'running')
    await scene.emit(numbered(1, 10))
    await scene.published(10)
    await pair.primary.stop('kill')
    await pair.promote()
    pair.move()
    await scene.emit(numbered(11, 12))

    const { code, message, remedy } = await halt(relay)
    expect(code).toBe('MILLRACE_SLOT_MISSING')
    expect(message).toContain('before Postgres 17 slots do not follow')
    const intent = formatLsn((await scene.state()).intent)
    expect(message).toMatch(
      new RegExp(`between ${intent} and [0-9A-F]+/[0-9A-F]+ may be missing in the queue; everything up to ${intent} `),
    )
    expect(remedy).toMatch(/millrace resume --refill .*millrace resume --accept-gap/)
  })
})
