import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { createPipeline, defineConfig, type MillraceConfig, type Pipeline, type Running } from '../../src/index.ts'
import { metricsOf } from '../../src/server/metrics.ts'
import { createDatabase, type Database } from '../support/database.ts'

const eventually = <T>(check: () => Promise<T>): Promise<T> => vi.waitFor(check, { timeout: 20_000, interval: 30 })

let home: string
let source: Database
let replica: Database
const running: Running[] = []

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'millrace-pipeline-'))
  source = await createDatabase()
  replica = await createDatabase()
  await replica.query('create table orders (id bigint primary key, total numeric not null, _millrace_position text collate "C")')
})
afterEach(async () => {
  await Promise.allSettled(running.splice(0).map((one) => one.stop()))
  await Promise.all([source.drop(), replica.drop()])
  await rm(home, { recursive: true, force: true })
})

/** `name`: for what of the config differs from a working pipeline's */
function pipelineOf(different: Partial<MillraceConfig> = {}): Pipeline {
  const config = defineConfig({
    name: source.name.slice(0, 40),
    source: { url: source.url, acceptUnlimitedWal: true },
    queue: { kind: 'local', path: join(home, 'queue.db'), topics: { partitions: 2 } },
    sinks: {
      warehouse: {
        kind: 'postgres',
        url: replica.url,
        tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderPlaced: 'upsert' } }],
      },
    },
    http: false,
    ...different,
  })
  return createPipeline(config, { logLevel: 'silent' })
}

async function start(pipeline: Pipeline, roles?: Parameters<Pipeline['run']>[0]): Promise<Running> {
  const one = await pipeline.run(roles)
  running.push(one)
  return one
}

const place = (id: number) =>
  source.query(`select millrace.emit(aggregate_type => 'order', aggregate_id => $1, type => 'OrderPlaced', payload => $2)`, [
    String(id),
    JSON.stringify({ id, total: '1.10' }),
  ])
const ids = async () => (await replica.query('select id::int from orders order by id')).rows.map((row) => row.id)

test('what the commands do is there for programs', async () => {
  const pipeline = pipelineOf()
  expect((await pipeline.check()).filter(({ level }) => level === 'blocker')).not.toEqual([])
  expect(await pipeline.init()).toEqual([
    'migration 1, outbox',
    'migration 2, backfill',
    `publication millrace_${pipeline.name} for millrace.outbox`,
    `slot millrace_${pipeline.name}`,
    expect.stringMatching(/^stream [0-9a-f-]{36}$/),
    'topic outbox.event.order',
    'sink warehouse: its checkpoints have a place',
  ])
  expect((await pipeline.check()).filter(({ level }) => level === 'blocker')).toEqual([])
  const one = await start(pipeline)
  await eventually(async () => expect(one.ready()).toBe(true))
  await place(1)
  await eventually(async () => expect(await ids()).toEqual([1]))
  await one.stop()
  await expect(one.done).resolves.toBeUndefined()
  expect((await pipeline.status()).sinks[0]?.partitions.map((partition) => partition.lagEvents)).toEqual([0, 0])
  expect(await pipeline.teardown({ slot: true })).toEqual([`slot millrace_${pipeline.name}`])
})

test('init is safe to repeat, and does not found a second stream', async () => {
  const stream = (made: readonly string[]) => made.find((what) => what.startsWith('stream'))?.split(/[ :]/)[1]
  const first = await pipelineOf().init()
  expect(stream(await pipelineOf().init())).toBe(stream(first))
})

test('a standby is ready: readiness is not tied to the slot', async () => {
  await pipelineOf().init()
  const first = await start(pipelineOf())
  await eventually(async () => expect(first.ready()).toBe(true))
  const second = await start(pipelineOf(), { relay: true, sinks: [] })
  await eventually(async () => expect((await second.status()).relay?.phase).toBe('standby'))
  expect(second.ready()).toBe(true)
})

test('a wrong option of any connector is told before anything starts', async () => {
  const wrong = { kind: 'postgres', url: replica.url, tabels: [] }
  await expect(pipelineOf({ sinks: { warehouse: wrong } }).run()).rejects.toThrow(
    'config is not valid:\n  sinks.warehouse.tables: expected an array, found nothing\n  sinks.warehouse.tabels: unknown key: did you mean "tables"?',
  )
  await expect(pipelineOf({ queue: { kind: 'local' } }).run()).rejects.toThrow('queue.path: expected a string, found nothing')
  expect(() => pipelineOf({ name: 'No' })).toThrow('name: expected a lower-case letter')
  await expect(pipelineOf().run({ relay: false, sinks: ['nobody'] })).rejects.toThrow(
    'there is no sink nobody in config: its sinks are warehouse',
  )
})

test('a sink that cannot go on is halted and shown; the others flow', async () => {
  const tables = [{ from: 'order', into: 'public.nowhere', key: 'id', on: { OrderPlaced: 'upsert' } }]
  const pipeline = pipelineOf()
  await pipeline.init()
  const sinks = { broken: { kind: 'postgres', url: replica.url, tables } }
  const both = pipelineOf({
    sinks: {
      ...sinks,
      warehouse: {
        ...sinks.broken,
        tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderPlaced: 'upsert' } }],
      },
    },
  })
  const one = await start(both)
  await place(1)
  await eventually(async () => expect(await ids()).toEqual([1]))
  await eventually(async () => expect(await metricsOf(await one.status())).toMatch(/^millrace_halted\{.*sink="broken".*\} 1$/m))
  expect(one.ended).toBe(false)
})

test('a database that is away is waited for, and said; the status answers meanwhile', async () => {
  const server: PostgresServer = await startPostgresServer({ settings: { fsync: 'off' } })
  try {
    const pipeline = pipelineOf({ source: { url: server.url() } })
    await pipeline.init()
    await server.stop('kill')
    const one = await start(pipeline)
    await eventually(async () => {
      const { relay, problems } = await one.status()
      expect(relay).toMatchObject({ phase: 'waiting', error: { code: 'MILLRACE_SOURCE_UNREACHABLE' } })
      expect(problems).toMatchObject([{ code: 'MILLRACE_SOURCE_UNREACHABLE' }])
    })
    expect(one.ready()).toBe(false)
    await server.start()
    await eventually(async () => expect(one.ready()).toBe(true))
    await one.stop()
  } finally {
    await server.remove()
  }
})

test('rows leave the outbox once they have been relayed and are past their retention', async () => {
  const pipeline = pipelineOf({ source: { url: source.url, acceptUnlimitedWal: true, outbox: { retention: '1ms' } } })
  await pipeline.init()
  for (const id of [1, 2, 3]) await place(id)
  await start(pipeline)
  await eventually(async () => expect((await source.query('select 1 from millrace.outbox')).rows).toEqual([]))
  await eventually(async () => expect(await ids()).toEqual([1, 2, 3]))
})

test('the statements for each role are one transaction each', async () => {
  const pipeline = pipelineOf()
  for (const role of ['owner', 'relay', 'writer', 'sink'] as const) {
    const text = await pipeline.sql(role)
    expect(text).toMatch(/^(-- .*\n)?begin;/)
    expect(text.trimEnd()).toMatch(/commit;$/)
    expect(text).not.toContain('create_logical_replication_slot')
  }
  await source.query(await pipeline.sql('owner'))
  await replica.query((await pipeline.sql('sink')).replaceAll('millrace_sink', `sink_${source.name}`))
  expect(await pipeline.init()).not.toContain('migration 1, outbox')
})
