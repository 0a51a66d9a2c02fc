// Over 400 lines, because every way a backfill can be disturbed is told over one fixture.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { CamelCasePlugin, Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { type BackfillControl, type BackfillSelect, createOutbox, type FreeEvent } from '../../src/outbox/index.ts'
import { migrate } from '../../src/postgres/migrate.ts'
import { roleSql } from '../../src/postgres/roles.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'

/** Rows that are older than the outbox become events: what stands in the outbox in the end, whatever happens meanwhile. */

let database: Database
let pool: pg.Pool
const outbox = createOutbox()
const rows = async (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> =>
  (await pool.query(text, values)).rows
const connected = async (): Promise<pg.Client> => {
  const client = new pg.Client(database.url)
  await client.connect()
  onTestFinished(() => client.end())
  return client
}

beforeAll(async () => {
  database = await createDatabase()
  pool = new pg.Pool({ connectionString: database.url, max: 5 })
  const client = await pool.connect()
  await migrate(client)
  client.release()
})
afterAll(async () => {
  await pool.end()
  await database.drop()
})
beforeEach(async () => {
  await pool.query('truncate millrace.outbox, millrace.backfill; drop table if exists orders')
  await pool.query('create table orders (id int primary key, note text not null, placed_at timestamptz not null default now())')
})

const fill = (count: number) =>
  pool.query(`insert into orders select n, 'note ' || n from generate_series(1, $1::int) n`, [count])
type Order = { readonly id: number; readonly note: string }
const changed = ({ id, note }: Order): FreeEvent => ({
  aggregateType: 'order',
  aggregateId: id,
  type: 'OrderChanged',
  payload: { id, note },
})
const orders = (
  more: Partial<{ select: Partial<BackfillSelect>; chunk: number; rate: number; name: string }> & BackfillControl = {},
) => ({
  name: 'orders',
  toEvent: changed,
  ...more,
  select: { table: 'orders', ...more.select },
})
/** in the order in which they were written */
const emitted = async (): Promise<readonly string[]> =>
  (await rows('select aggregate_id from millrace.outbox order by id')).map(({ aggregate_id }) => String(aggregate_id))
const upTo = (count: number): readonly string[] => Array.from({ length: count }, (_, n) => String(n + 1))

describe('every row becomes an event once', () => {
  test('through a pool, a client, a Kysely, and one that renames what it reads', async () => {
    await fill(300)
    const client = await connected()
    const dialect = new PostgresDialect({ pool: new pg.Pool({ connectionString: database.url, max: 2 }) })
    const kysely = new Kysely({ dialect })
    onTestFinished(() => kysely.destroy())
    for (const db of [pool, client, kysely, kysely.withPlugin(new CamelCasePlugin())]) {
      await pool.query('truncate millrace.outbox, millrace.backfill')
      expect(await outbox.backfill<Order>(db, orders({ chunk: 70 }))).toMatchObject({
        rows: 300,
        events: 300,
        done: true,
        retries: 0,
      })
      expect(await emitted()).toEqual(upTo(300))
    }
    expect(await rows('select payload::text from millrace.outbox order by id limit 1')).toEqual([
      { payload: '{"id":1,"note":"note 1"}' },
    ])
  })

  test('of a table whose names and keys are as hostile as Postgres lets them be', async () => {
    const evil = `it's "evil"; drop table orders; -- $1 é`
    const quoted = (name: string): string => pg.escapeIdentifier(name)
    await pool.query(`create schema ${quoted(evil)}`)
    onTestFinished(async () => void (await pool.query(`drop schema ${quoted(evil)} cascade`)))
    const table = `${quoted(evil)}.${quoted('select')}`
    await pool.query(
      `create table ${table} (${quoted('Key"1')} text, "order" timestamptz, ${quoted('$2')} numeric, body text, primary key ("order", ${quoted('Key"1')}, ${quoted('$2')}))`,
    )
    const keys = ['', ' ', `'; --`, '"', '\\', '{a,b}', 'null', 'NULL', 'é', '\u{1F600}', '%', 'A', 'a', 'a ', '\n', '[1]']
    for (const [index, key] of keys.entries())
      for (const time of [
        '2026-11-20 10:00:00.000001+00',
        '2026-11-20 10:00:00.000002+00',
        'infinity',
        '-infinity',
        '0044-03-15 BC',
      ])
        await pool.query(`insert into ${table} values ($1, $2, $3, 'x')`, [key, time, index % 2 === 0 ? '1.10' : 'NaN'])
    const seen = new Set<string>()
    const progress = await outbox.backfill<Record<string, string>>(pool, {
      name: evil,
      chunk: 7,
      select: {
        table: { schema: evil, name: 'select' },
        columns: { [evil]: `"order"::text -- a comment`, key: `"Key""1"`, two: '"$2"::text' },
      },
      toEvent: (row) => {
        const id = JSON.stringify([row[evil], row['key'], row['two']])
        seen.add(id)
        return { aggregateType: 'x', aggregateId: id, type: 'X', payload: null }
      },
    })
    expect(progress).toMatchObject({ rows: keys.length * 5, events: keys.length * 5, done: true })
    expect(seen.size).toBe(keys.length * 5)
    expect(await rows('select count(distinct aggregate_id)::int as n from millrace.outbox')).toEqual([{ n: keys.length * 5 }])
  })

  test('of those that are asked for, with what is asked for', async () => {
    await fill(50)
    const taken: unknown[] = []
    await outbox.backfill<{ id: number; upper: string }>(pool, {
      name: 'some',
      chunk: 3,
      select: {
        table: 'ORDERS',
        columns: { id: 'id', upper: 'upper(note)' },
        where: 'orders.id % $1 = 0 -- every tenth',
        values: [10],
      },
      toEvent: (row) => {
        taken.push(row)
        return row.id === 20
          ? null
          : [1, 2].map((n) => ({ aggregateType: 'order', aggregateId: row.id, type: `Part${n}`, payload: row }))
      },
    })
    expect(taken).toEqual([10, 20, 30, 40, 50].map((id) => ({ id, upper: `NOTE ${id}` })))
    expect(await emitted()).toEqual(['10', '10', '30', '30', '40', '40', '50', '50'])
  })

  test('at no more than the rate', async () => {
    await fill(60)
    const begun = performance.now()
    await outbox.backfill<Order>(pool, orders({ rate: 80, chunk: 10 }))
    expect(performance.now() - begun).toBeGreaterThan(600)
    expect(await emitted()).toEqual(upTo(60))
  })
})

describe('it goes on where it stood', () => {
  test('after it was stopped; a finished one is done at once; begun anew it does all of it', async () => {
    await fill(100)
    const stop = new AbortController()
    const first = await outbox.backfill<Order>(
      pool,
      orders({ chunk: 10, signal: stop.signal, onProgress: ({ rows }) => rows >= 30 && stop.abort() }),
    )
    expect(first).toMatchObject({ rows: 30, done: false })
    expect(await outbox.backfill<Order>(pool, orders())).toMatchObject({ rows: 100, events: 100, done: true })
    expect(await emitted()).toEqual(upTo(100))
    expect(await outbox.backfill<Order>(pool, orders())).toMatchObject({ rows: 100, events: 100, done: true })
    expect(await emitted()).toHaveLength(100)
    expect(await outbox.backfill<Order>(pool, orders({ restart: true }))).toMatchObject({ rows: 100, done: true })
    expect(await emitted()).toEqual([...upTo(100), ...upTo(100)])
  })

  test('two that run at once take its chunks in turn', async () => {
    await fill(400)
    await Promise.all([1, 2, 3].map(() => outbox.backfill<Order>(pool, orders({ chunk: 20 }))))
    expect((await emitted()).toSorted((a, b) => Number(a) - Number(b))).toEqual(upTo(400))
  })

  test('after kill -9, again and again', async () => {
    await fill(3_000)
    for (let kills = 0; kills < 4; kills++) {
      const child = spawn(process.execPath, [join(import.meta.dirname, 'backfill-process.ts'), database.url], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const ended = new Promise((resolve) => child.once('close', resolve))
      const before = Number((await rows('select coalesce(sum(rows_read), 0) as n from millrace.backfill'))[0]?.['n'])
      await eventually(
        async () => Number((await rows('select coalesce(sum(rows_read), 0) as n from millrace.backfill'))[0]?.['n']) > before,
        {
          within: 60_000,
          what: 'some rows are read',
        },
      )
      child.kill('SIGKILL')
      await ended
    }
    expect((await emitted()).length).toBeLessThan(3_000)
    expect(await outbox.backfill<Order>(pool, orders())).toMatchObject({ rows: 3_000, events: 3_000, done: true })
    expect(await emitted()).toEqual(upTo(3_000))
  })

  test('with other rows under its name it is refused', async () => {
    await fill(3)
    await outbox.backfill<Order>(pool, orders())
    for (const select of [{ where: 'id > 1' }, { where: 'id > $1', values: [1] }, { table: 'public.orders' }])
      await expect(outbox.backfill<Order>(pool, orders({ select }))).rejects.toMatchObject({
        code: 'MILLRACE_USAGE',
        message: expect.stringContaining('was begun with other rows') as string,
      })
  })
})

test('a role that may read and lock the rows and write events is enough', async () => {
  await fill(20)
  const role = `backfiller_${database.name}`
  await pool.query(roleSql('writer', { name: 'shop', role }))
  await pool.query(
    `alter role ${role} login; grant usage on schema public to ${role}; grant select, update (note) on orders to ${role}`,
  )
  onTestFinished(async () => void (await pool.query(`drop owned by ${role}; drop role ${role}`)))
  const url = new URL(database.url)
  url.username = role
  const client = new pg.Client(url.href)
  await client.connect()
  onTestFinished(() => client.end())
  expect(await outbox.backfill<Order>(client, orders())).toMatchObject({ rows: 20, done: true })
  expect(await outbox.backfill<Order>(client, orders({ restart: true }))).toMatchObject({ rows: 20, done: true })
  await expect(client.query('select from millrace.outbox')).rejects.toMatchObject({ code: '42501' })
})

describe('beside those who write', () => {
  const waiting = () =>
    eventually(
      async () =>
        (
          await rows(
            `select from pg_stat_activity where wait_event_type = 'Lock' and query like '%for share%' and datname = current_database()`,
          )
        ).length > 0,
      {
        what: 'the backfill waits for a row',
      },
    )

  test('rows that others have locked are waited for, and a chunk that waits too long is tried again', async () => {
    await fill(50)
    const service = await connected()
    await service.query(`begin; update orders set note = 'newer' where id = 20`)
    const running = outbox.backfill<Order>(pool, orders())
    await waiting()
    await eventually(async () => Number((await rows('select rows_read from millrace.backfill'))[0]?.['rows_read']) > 0, {
      what: 'smaller chunks get by',
    })
    await service.query('commit')
    const { retries } = await running
    expect(retries).toBeGreaterThan(0)
    expect(await emitted()).toEqual(upTo(50))
    expect(await rows(`select payload->>'note' as note from millrace.outbox where aggregate_id = '20'`)).toEqual([
      { note: 'newer' },
    ])
  })

  test('of two who wait for each other the service goes on', async () => {
    await fill(50)
    const service = await connected()
    await service.query(`begin; update orders set note = 'late' where id = 40`)
    const running = outbox.backfill<Order>(pool, orders())
    await waiting()
    // the chunk holds this one
    await service.query(`update orders set note = 'early' where id = 1`)
    await service.query('commit')
    await running
    expect(
      await rows(
        `select aggregate_id as id, payload->>'note' as note from millrace.outbox where aggregate_id in ('1', '40') order by id`,
      ),
    ).toEqual([
      { id: '1', note: 'early' },
      { id: '40', note: 'late' },
    ])
  })

  test('a row whose key changes while it is waited for takes nobody else along', async () => {
    await fill(30)
    const service = await connected()
    await service.query('begin; update orders set id = 1000000 where id = 10; delete from orders where id = 11')
    const running = outbox.backfill<Order>(pool, orders({ chunk: 30 }))
    await waiting()
    await service.query('commit')
    await running
    expect(await emitted()).toEqual([...upTo(30).filter((id) => id !== '10' && id !== '11'), '1000000'])
  })

  test('whoever writes a row of a chunk waits until its events are committed', async () => {
    await fill(5)
    const service = await connected()
    let updated: Promise<unknown> | undefined
    let settled = false
    const kysely = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: database.url, max: 2 }) }) })
    onTestFinished(() => kysely.destroy())
    let open: (() => void) | undefined
    const held = new Promise<void>((resolve) => {
      open = resolve
    })
    // a database whose commit waits for us
    const slow = {
      isTransaction: false,
      transaction: () => ({
        execute: <T>(work: Parameters<ReturnType<(typeof kysely)['transaction']>['execute']>[0]) =>
          kysely.transaction().execute(async (tx) => {
            const result = await work(tx)
            if ((await rows('select from orders')).length === 5 && updated === undefined && readSome) {
              updated = service.query(`update orders set note = 'newer' where id = 3`).then(() => {
                settled = true
              })
              await eventually(
                async () =>
                  (await rows(`select from pg_stat_activity where wait_event_type = 'Lock' and query like 'update orders%'`))
                    .length > 0,
                {
                  what: 'the service waits',
                },
              )
              expect(settled).toBe(false)
              open?.()
            }
            return result as T
          }),
      }),
    }
    let readSome = false
    await outbox.backfill<Order>(slow, {
      ...orders(),
      toEvent: (row) => {
        readSome = true
        return changed(row)
      },
    })
    await held
    await updated
    expect(settled).toBe(true)
    expect(await rows(`select payload->>'note' as note from millrace.outbox where aggregate_id = '3'`)).toEqual([
      { note: 'note 3' },
    ])
  })

  test('a connection that breaks is no end', async () => {
    await fill(500)
    pool.on('error', () => {})
    let kills = 0
    await outbox.backfill<Order>(pool, {
      ...orders({ chunk: 16 }),
      onProgress() {
        if (kills++ % 5 === 0)
          void pool.query(
            `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`,
          )
      },
    })
    expect(await emitted()).toEqual(upTo(500))
  })
})

describe('what cannot be backfilled is refused', () => {
  test.each([
    ['a table that is not there', { table: 'nowhere' }, 'there is no table "nowhere"'],
    ['a view', { table: 'v' }, '"v" is no table'],
    ['a table without a key', { table: 'keyless' }, 'has no primary key'],
    ['a key that may be twice', { table: 'orders', key: ['note'] }, 'is not unique'],
    ['a key of which a part may be null', { table: 'keyless', key: ['a'] }, 'is not unique'],
    ['a key that is unique for some rows', { table: 'keyless', key: ['b'] }, 'is not unique'],
    ['a key that is unique at commit', { table: 'keyless', key: ['c'] }, 'is not unique'],
    ['a column that is not there', { table: 'orders', key: ['id"'] }, 'has no column "id\\""'],
    ['no column at all', { table: 'orders', columns: [] }, 'columns is empty'],
    ['a name that is none', { table: 'orders; drop table orders' }, 'expected a name such as'],
  ])('%s', async (_, select, message) => {
    await pool.query(`
      create table if not exists keyless (a int unique, b int not null, c int not null unique deferrable);
      create unique index if not exists partly on keyless (b) where a > 0;
      create or replace view v as select * from keyless`)
    onTestFinished(async () => void (await pool.query('drop view v; drop table keyless')))
    await fill(1)
    await expect(outbox.backfill<Order>(pool, { name: 'x', select, toEvent: changed })).rejects.toMatchObject({
      code: 'MILLRACE_USAGE',
      message: expect.stringContaining(message) as string,
    })
    expect(await emitted()).toEqual([])
  })

  test('a transaction that is open already, and what is no database', async () => {
    const client = await connected()
    await client.query('begin')
    const kysely = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: database.url, max: 2 }) }) })
    onTestFinished(() => kysely.destroy())
    for (const db of [client, {}, null, 'db'])
      await expect(outbox.backfill<Order>(db as never, orders())).rejects.toMatchObject({ code: 'MILLRACE_USAGE' })
    await kysely.transaction().execute(async (tx) => {
      await expect(outbox.backfill<Order>(tx, orders())).rejects.toMatchObject({ code: 'MILLRACE_USAGE' })
    })
  })

  test('an event that the outbox refuses is told with its row, and those before it stay', async () => {
    await fill(40)
    await pool.query(`update orders set note = repeat('x', 1000001) where id = 27`)
    await expect(outbox.backfill<Order>(pool, orders())).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_INVALID',
      message: expect.stringContaining('the event of the row ["27"] is refused') as string,
      fields: { backfill: 'orders', key: '["27"]' },
    })
    expect(await emitted()).toEqual(upTo(26))
    await pool.query(`update orders set note = 'short' where id = 27`)
    await outbox.backfill<Order>(pool, orders())
    expect(await emitted()).toEqual(upTo(40))
  })

  test('a toEvent that throws is told with its row', async () => {
    await fill(3)
    const toEvent = ({ id }: Order): FreeEvent => {
      if (id === 2) throw new Error('no')
      return { aggregateType: 'order', aggregateId: id, type: 'X', payload: 1 }
    }
    await expect(outbox.backfill<Order>(pool, { ...orders(), toEvent })).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_INVALID',
      fields: { key: '["2"]' },
    })
    expect(await emitted()).toEqual([])
  })
})
