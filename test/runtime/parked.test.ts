import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createPipeline, defineConfig, type Pipeline, type Running } from '../../src/index.ts'
import { metricsOf } from '../../src/server/metrics.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'

let home: string
let source: Database
let replica: Database
let pipeline: Pipeline
let running: Running | null

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'millrace-parked-'))
  source = await createDatabase()
  replica = await createDatabase()
  await replica.query(`create table customers (id text primary key constraint fit check (id <> 'c1'), _millrace_position text collate "C");
create table orders (id text primary key, customer text references customers, _millrace_position text collate "C")`)
  const config = defineConfig({
    name: source.name.slice(0, 40),
    source: { url: source.url, acceptUnlimitedWal: true },
    queue: { kind: 'local', path: join(home, 'queue.db'), topics: { partitions: 1 } },
    sinks: {
      warehouse: {
        kind: 'postgres',
        url: replica.url,
        tables: [
          { from: 'order', into: 'public.orders', key: 'id', on: { OrderPlaced: 'upsert' } },
          { from: 'customer', into: 'public.customers', key: 'id', on: { CustomerNamed: 'upsert' } },
        ],
      },
    },
    http: false,
  })
  pipeline = createPipeline(config, { logLevel: 'silent' })
  await pipeline.init()
  running = null
})
afterEach(async () => {
  await running?.stop()
  await Promise.all([source.drop(), replica.drop()])
  await rm(home, { recursive: true, force: true })
})

const emit = (aggregate: string, id: string, type: string, payload: object) =>
  source.query('select millrace.emit(aggregate_type => $1, aggregate_id => $2, type => $3, payload => $4)', [
    aggregate,
    id,
    type,
    JSON.stringify(payload),
  ])

test('what is parked shows in status and metrics, of a running process and of the store, and is redriven as far as it goes', async () => {
  running = await pipeline.run()
  await emit('order', 'o1', 'OrderPlaced', { id: 'o1', customer: 'c1' })
  await emit('customer', 'c1', 'CustomerNamed', { id: 'c1' })
  await emit('customer', 'c2', 'CustomerNamed', { id: 'c2' })
  const parked = await eventually(
    async () => {
      const [sink] = (await (running as Running).status()).sinks
      return sink?.parked?.keys === 2 && sink
    },
    { within: 30_000, what: 'two keys are parked' },
  )
  expect(parked).toMatchObject({ phase: 'running', parked: { keys: 2, events: 2, bytes: expect.any(Number) } })
  const metrics = await metricsOf(await running.status())
  expect(metrics).toContain(`millrace_parked_keys{pipeline="${pipeline.name}",sink="warehouse"} 2`)
  expect(metrics).toContain(`millrace_parked_events{pipeline="${pipeline.name}",sink="warehouse"} 2`)

  const { totals, keys } = await pipeline.parked('warehouse').list()
  expect(totals).toEqual(parked.parked)
  expect(keys.map(({ order, reason }) => [order, reason.code]).sort()).toEqual([
    [`${pipeline.name}/c1`, 'MILLRACE_EVENT_REJECTED'],
    [`${pipeline.name}/o1`, 'MILLRACE_EVENT_CONFLICT'],
  ])
  expect((await pipeline.parked('warehouse').redriveAll()).map(({ applied, remaining }) => ({ applied, remaining }))).toEqual([
    { applied: 0, remaining: 1 },
    { applied: 0, remaining: 1 },
  ])
  await running.stop()
  running = null
  expect((await pipeline.status()).sinks).toMatchObject([{ phase: null, parked: totals }])

  await replica.query('alter table customers drop constraint fit')
  // whichever comes first: the order waits for its customer
  const redriven = await pipeline.parked('warehouse').redriveAll({ actor: 'ada', note: 'the constraint was wrong' })
  expect(redriven.map(({ applied, remaining }) => ({ applied, remaining }))).toEqual([
    { applied: 1, remaining: 0 },
    { applied: 1, remaining: 0 },
  ])
  expect((await replica.query('select id, customer from orders')).rows).toEqual([{ id: 'o1', customer: 'c1' }])
  expect((await pipeline.status()).sinks).toMatchObject([{ parked: { keys: 0, events: 0, bytes: 0 } }])
  expect(await pipeline.parked('warehouse').audit({ limit: 1 })).toMatchObject([
    { actor: 'ada', note: 'the constraint was wrong' },
  ])
})
