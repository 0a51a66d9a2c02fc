import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { createPipeline, type MillraceConfig } from '../../src/index.ts'
import { eventually } from '../support/eventually.ts'
import { query } from './parts.ts'

test('the roles of `init --sql`, none of them a superuser, make the stream and run it', async () => {
  // roles belong to a whole server: one of its own
  const server = await startPostgresServer({ settings: { fsync: 'off' } })
  const home = await mkdtemp(join(tmpdir(), 'millrace-roles-'))
  onTestFinished(() => rm(home, { recursive: true, force: true }))
  onTestFinished(() => server.remove())
  const as = (role: string, database: string): string => server.url(database).replace('postgres@', `${role}@`)
  const run = (url: string, text: string): Promise<unknown> => query(url, (client) => client.query(text))

  await run(server.url(), 'create role app_owner login')
  for (const database of ['shop', 'warehouse']) await run(server.url(), `create database ${database} owner app_owner`)
  await run(
    as('app_owner', 'warehouse'),
    'create table orders (id bigint primary key, total numeric, _millrace_position text collate "C")',
  )
  const config: MillraceConfig = {
    name: 'shop',
    source: { url: as('millrace_relay', 'shop') },
    queue: { kind: 'local', path: join(home, 'queue.db'), topics: { partitions: 1 } },
    sinks: {
      warehouse: {
        kind: 'postgres',
        url: as('millrace_sink', 'warehouse'),
        tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderPlaced: 'upsert' } }],
      },
    },
    http: false,
  }
  const pipeline = createPipeline(config, { logLevel: 'silent' })
  await run(as('app_owner', 'shop'), await pipeline.sql('owner'))
  // making roles, and letting one replicate, is the administrator's
  await run(server.url('shop'), await pipeline.sql('relay'))
  await run(server.url('shop'), await pipeline.sql('writer'))
  await run(server.url('warehouse'), await pipeline.sql('sink'))
  await run(server.url(), 'create role service login; grant millrace_writer to service')

  await pipeline.init()
  expect((await pipeline.check()).filter(({ level }) => level === 'blocker')).toEqual([])
  const running = await pipeline.run()
  await run(
    as('service', 'shop'),
    `select millrace.emit(aggregate_type => 'order', aggregate_id => '1', type => 'OrderPlaced', payload => '{"id":1,"total":1.50}')`,
  )
  await expect(run(as('service', 'shop'), 'select * from millrace.outbox')).rejects.toMatchObject({ code: '42501' })
  await eventually(
    () =>
      query(
        server.url('warehouse'),
        async (client) => (await client.query('select total::text from orders')).rows[0]?.total === '1.50',
      ),
    { within: 20_000, what: 'the event to be a row' },
  )
  // the sink's role parks and redrives too
  await run(
    as('service', 'shop'),
    `select millrace.emit(aggregate_type => 'order', aggregate_id => '2', type => 'OrderPlaced', payload => '{"id":2,"total":"much"}')`,
  )
  await eventually(async () => (await pipeline.parked('warehouse').list()).totals.keys === 1, { what: 'the key is parked' })
  await run(as('app_owner', 'warehouse'), 'alter table orders alter column total type text')
  expect(await pipeline.parked('warehouse').redriveAll()).toMatchObject([{ applied: 1, remaining: 0 }])
  await running.stop()

  // the relay's role goes on after a loss, and drains
  await run(as('millrace_relay', 'shop'), `select pg_drop_replication_slot('millrace_shop')`)
  await run(
    as('service', 'shop'),
    `select millrace.emit(aggregate_type => 'order', aggregate_id => '3', type => 'OrderPlaced', payload => '{"id":3,"total":3}')`,
  )
  expect((await pipeline.resume({ way: 'refill' })).resumed).toMatchObject({ refilled: { published: 1, ambiguous: 0 } })
  expect(await pipeline.drain({ timeout: 30_000 })).toMatchObject({ stillWriting: false })
  expect(
    await query(server.url('warehouse'), async (client) => (await client.query('select id::int from orders')).rows),
  ).toContainEqual({ id: 3 })
})
