import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { createPipeline } from '../../src/index.ts'
import { createOutbox } from '../../src/outbox/index.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'

/** From rows that are older than the outbox to a replica, while services write: PROTOCOL 2.5 as a user sees it. */

const ROWS = 100_000
const WRITERS = 4

type Row = { readonly id: number; readonly version: number; readonly note: string }
const outbox = createOutbox()
const changed = (row: Row) => ({ aggregateType: 'order', aggregateId: row.id, type: 'OrderChanged', payload: row })

/** One service that emits with every write, until it is told to stop. */
async function write(url: string, seed: number, stopped: AbortSignal): Promise<number> {
  const client = new pg.Client(url)
  await client.connect()
  let state = seed
  const below = (n: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return Math.floor((state / 0x1_0000_0000) * n)
  }
  let writes = 0
  while (!stopped.aborted) {
    const id = 1 + below(ROWS + 2_000)
    await client.query('begin')
    try {
      const what = below(10)
      if (what < 2) {
        const { rowCount } = await client.query('delete from orders where id = $1', [id])
        if (rowCount === 1) await outbox.tombstone(client, { aggregateType: 'order', aggregateId: id, type: 'OrderErased' })
      } else if (what < 4) {
        const { rows } = await client.query<Row>(
          `insert into orders values ($1, 1, 'made again') on conflict (id) do update set version = orders.version + 1 returning *`,
          [id],
        )
        await outbox.emitAll(client, rows.map(changed))
      } else {
        // the event comes before its row at times, and two rows in any order
        const { rows } = await client.query<Row>(
          `update orders set version = version + 1, note = 'changed' where id in ($1, $2) returning *`,
          [id, 1 + below(ROWS)],
        )
        await outbox.emitAll(client, rows.map(changed))
      }
      await client.query(below(10) === 0 ? 'rollback' : 'commit')
      writes++
    } catch (error) {
      // two services that wait for each other, as without a backfill
      await client.query('rollback')
      if ((error as { code?: unknown }).code !== '40P01') throw error
    }
  }
  await client.end()
  return writes
}

test(`${ROWS} rows become events while services change and delete them, and the replica equals the source`, {
  timeout: 420_000,
}, async () => {
  const home = await mkdtemp(join(tmpdir(), 'millrace-backfill-'))
  const source = await createDatabase()
  const replica = await createDatabase()
  await source.query(
    `create table orders (id int primary key, version int not null, note text not null);
     insert into orders select n, 0, 'old ' || n from generate_series(1, ${ROWS}) n`,
  )
  await replica.query(
    'create table orders (id int primary key, version int not null, note text not null, _millrace_position text collate "C")',
  )
  const pipeline = createPipeline(
    {
      name: source.name.slice(0, 40),
      source: { url: source.url, acceptUnlimitedWal: true },
      queue: { kind: 'local', path: join(home, 'queue.db'), topics: { partitions: 3 } },
      sinks: {
        warehouse: {
          kind: 'postgres',
          url: replica.url,
          tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderChanged: 'upsert', OrderErased: 'delete' } }],
        },
      },
      http: false,
    },
    { logLevel: 'silent' },
  )
  await pipeline.init()
  const running = await pipeline.run()
  const stop = new AbortController()
  const writers = Array.from({ length: WRITERS }, (_, n) => write(source.url, 7 + n, stop.signal))
  onTestFinished(async () => {
    stop.abort()
    await Promise.allSettled(writers)
    await running.stop().catch(() => {})
    await pipeline.teardown({ slot: true })
    await Promise.all([source.drop(), replica.drop()])
    await rm(home, { recursive: true, force: true })
  })

  const progress = await pipeline.backfill({ name: 'orders', select: { table: 'orders' }, toEvent: (row: Row) => changed(row) })
  expect(progress).toMatchObject({ done: true })
  expect(progress.rows).toBeGreaterThan(ROWS * 0.9)
  stop.abort()
  const writes = (await Promise.all(writers)).reduce((sum, count) => sum + count, 0)
  expect(writes).toBeGreaterThan(100)

  const content = async (database: Database): Promise<string> =>
    (
      await database.query(
        `select md5(string_agg(id || ' ' || version || ' ' || note, ',' order by id)) || count(*) as content from orders`,
      )
    ).rows[0].content
  const count = async (database: Database): Promise<string> =>
    (await database.query('select count(*) as count from orders')).rows[0].count
  const expected = await content(source)
  const size = await count(source)
  await eventually(async () => (await count(replica)) === size && (await content(replica)) === expected, {
    within: 240_000,
    what: 'the replica equals the source',
  })
})
