import pg from 'pg'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { policyFor } from '../../src/core/policy.ts'
import type { Sink } from '../../src/core/sink.ts'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { at, ORDERS, openSink } from './postgres-fixture.ts'

let database: Database
let sinks: Sink[]

beforeEach(async () => {
  database = await createDatabase()
  sinks = []
})
afterEach(async () => {
  for (const sink of sinks) await sink.close()
  await database.drop()
})

const tables: PostgresSinkOptions['tables'] = [
  { from: 'order', into: 'orders', key: 'id', on: { Changed: 'upsert', Erased: 'delete' } },
]

async function open(options: Partial<PostgresSinkOptions> = {}): Promise<Sink> {
  const sink = await openSink({ url: database.url, tables, ...options })
  sinks.push(sink)
  return sink
}

const changed = (key: string, note: string | null = null) => ({ type: 'Changed', key, payload: { id: key, total: 1, note } })
const notes = async (): Promise<unknown[]> =>
  (await database.query('select note from orders order by id')).rows.map(({ note }) => note)

async function claimed(ddl: string, options: Partial<PostgresSinkOptions> = {}) {
  await database.query(ddl)
  const sink = await open(options)
  await sink.init()
  return { sink, lane: await sink.claim(at(0)), stream: eventStream() }
}

const UNIQUE = ORDERS.replace('note text', 'note text unique')

describe('constraints', () => {
  it('take what commit order takes: a value that moves from row to row', async () => {
    const { lane, stream } = await claimed(UNIQUE)
    await lane.apply(batchOf([stream.next(changed('a', '1')), stream.next(changed('b', '2'))], 2n))
    await lane.apply(
      batchOf([stream.next(changed('b', '3')), stream.next(changed('a', '2')), stream.next(changed('b', '1'))], 5n),
    )
    expect(await notes()).toEqual(['2', '1'])
    await lane.apply(
      batchOf([stream.next({ type: 'Erased', key: 'b' }), stream.next(changed('a', '1')), stream.next(changed('c', '2'))], 8n),
    )
    expect(await notes()).toEqual(['1', '2'])
  })

  it('that still fail are a conflict of the event that fails, and may be tried again', async () => {
    const { lane, stream } = await claimed(UNIQUE)
    await lane.apply(batchOf([stream.next(changed('a', 'taken'))], 1n))
    const fit = stream.next(changed('b', 'free'))
    const clash = stream.next(changed('c', 'taken'))
    const error: unknown = await lane.apply(batchOf([fit, clash], 3n)).catch((caught: unknown) => caught)
    expect(error).toMatchObject({
      code: 'MILLRACE_EVENT_CONFLICT',
      fields: { position: clash.position, source: 'shop', cause: '23505', constraint: 'orders_note_key' },
    })
    expect(policyFor(error)).toBe('park')
    expect(String(error)).not.toContain('taken')
    expect(await notes()).toEqual(['taken'])
    await database.query('delete from orders')
    await lane.apply(batchOf([fit, clash], 3n))
    expect(await notes()).toEqual(['free', 'taken'])
  })

  it('that are deferred fail at the commit, and nothing is applied', async () => {
    const { lane, stream } = await claimed(
      `create table parents (name text primary key); ${ORDERS.replace('note text', 'note text references parents deferrable initially deferred')}`,
    )
    const batch = batchOf([stream.next(changed('a', 'nobody'))], 1n)
    await expect(lane.apply(batch)).rejects.toMatchObject({ code: 'MILLRACE_EVENT_CONFLICT', fields: { cause: '23503' } })
    expect(await notes()).toEqual([])
    await database.query(`insert into parents values ('nobody')`)
    await lane.apply(batch)
    expect(await notes()).toEqual(['nobody'])
  })
})

describe('the table', () => {
  it('that loses a column or vanishes halts its partition, not retried for ever', async () => {
    const { lane, stream } = await claimed(ORDERS)
    await lane.apply(batchOf([stream.next(changed('a'))], 1n))
    await database.query('alter table orders drop column total')
    const batch = batchOf([stream.next(changed('a'))], 2n)
    for (const change of ['select 1', 'drop table orders']) {
      await database.query(change)
      const error: unknown = await lane.apply(batch).catch((caught: unknown) => caught)
      expect(error).toMatchObject({ code: 'MILLRACE_SINK_NOT_READY' })
      expect(policyFor(error)).toBe('halt')
    }
  })

  it('may gain a column while it is fed, and the batch after it is applied', async () => {
    const { lane, stream } = await claimed(ORDERS)
    await lane.apply(batchOf([stream.next(changed('a', 'x'))], 1n))
    await database.query(
      `alter table orders add column later text default 'kept'; alter table orders alter column note type varchar(20)`,
    )
    await lane.apply(batchOf([stream.next(changed('a', 'y'))], 2n))
    expect((await database.query('select note, later from orders')).rows).toEqual([{ note: 'y', later: 'kept' }])
  })
})

describe('the server', () => {
  it('that ends our sessions is transient: the outcome is read again and the work goes on', async () => {
    const { lane, stream } = await claimed(ORDERS)
    const batch = batchOf([stream.next(changed('a', 'x'))], 1n)
    await lane.apply(batch)
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'millrace shop/replica'`,
    )
    const next = batchOf([stream.next(changed('a', 'y'))], 2n)
    const error: unknown = await lane.apply(next).catch((caught: unknown) => caught)
    if (error !== undefined) {
      expect(error).toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE' })
      expect((await lane.reread()).offset).toBe(1n)
      await lane.apply(next)
    }
    expect(await notes()).toEqual(['y'])
  })

  it('that is not there is unreachable, in check as a finding', async () => {
    const sink = await openSink({ url: 'postgres://nobody@127.0.0.1:1/none', tables })
    sinks.push(sink)
    expect(await sink.check()).toMatchObject([
      { level: 'blocker', subject: 'sinks.replica', message: expect.stringContaining('cannot be reached') },
    ])
    await expect(sink.claim(at(0))).rejects.toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE' })
  })

  it('that fails inside itself, as a full disk makes it, is transient', async () => {
    const { lane, stream } = await claimed(ORDERS)
    await database.query(`create function fail() returns trigger language plpgsql as $$ begin
      raise 'could not write init file' using errcode = 'XX000';
    end $$`)
    await database.query('create trigger fail before insert on orders execute function fail()')
    const batch = batchOf([stream.next(changed('a', 'x'))], 1n)
    const error: unknown = await lane.apply(batch).catch((caught: unknown) => caught)
    expect(error).toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE', fields: { cause: 'XX000' } })
    await database.query('drop trigger fail on orders')
    await lane.reread()
    await lane.apply(batch)
    expect(await notes()).toEqual(['x'])
  })

  it('that stops answering is given up after the statement time-out', async () => {
    const url = new URL(database.url)
    const proxy = await startTcpProxy({ port: Number(url.port) })
    try {
      url.port = String(proxy.port)
      const { lane, stream } = await claimed(ORDERS, { url: url.href, statementTimeout: 200 })
      for (const offset of [1n, 2n]) await lane.apply(batchOf([stream.next(changed('a', 'x'))], offset))
      proxy.hold('to-client')
      const batch = batchOf([stream.next(changed('a', 'y'))], 3n)
      await expect(lane.apply(batch)).rejects.toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE' })
      proxy.restore()
      // another connection of the pool that was silent as long may break under the first try
      const { offset } = await eventually(() => lane.reread(), { what: 'the outcome is read' })
      expect(offset).toBe(3n)
    } finally {
      await proxy.remove()
    }
  }, 30_000)

  it('waits in reread for a transaction of a broken connection that is still running', async () => {
    const { lane, stream } = await claimed(ORDERS, { lockTimeout: 200 })
    await lane.apply(batchOf([stream.next(changed('a', 'x'))], 1n))
    const client = await openHolder()
    await client.query('begin')
    await client.query('update millrace.checkpoint set "offset" = 2')
    await expect(lane.reread()).rejects.toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE', fields: { cause: '55P03' } })
    await client.query('commit')
    expect((await lane.reread()).offset).toBe(2n)
    await client.end()
  })

  it('that refuses the password is told from one that is away', async () => {
    const server = await startPostgresServer({ settings: { fsync: 'off' } })
    try {
      const sink = await openSink({ url: server.url('missing'), tables })
      sinks.push(sink)
      await expect(sink.claim(at(0))).rejects.toMatchObject({
        code: 'MILLRACE_SINK_NOT_READY',
        message: expect.stringContaining('3D000'),
      })
      const stranger = await openSink({ url: server.url().replace('postgres@', 'stranger@'), tables })
      sinks.push(stranger)
      await expect(stranger.claim(at(0))).rejects.toMatchObject({ code: 'MILLRACE_SINK_AUTH' })
      const secured = await openSink({ url: server.url(), tls: { mode: 'verify-full' }, tables })
      sinks.push(secured)
      await expect(secured.claim(at(0))).rejects.toMatchObject({ code: 'MILLRACE_TLS' })
    } finally {
      await server.remove()
    }
  })
})

async function openHolder(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  return client
}

describe('check', () => {
  const blockers = async (sink: Sink) => (await sink.check()).filter(({ level }) => level === 'blocker')

  it('names the bookkeeping that init makes, and is content after it', async () => {
    await database.query(ORDERS)
    const sink = await open()
    expect(await blockers(sink)).toMatchObject([
      { message: expect.stringContaining('bookkeeping is missing'), remedy: 'millrace init' },
    ])
    await expect(sink.claim(at(0))).rejects.toMatchObject({
      code: 'MILLRACE_SINK_NOT_READY',
      remedy: expect.stringContaining('millrace init'),
    })
    await sink.init()
    expect(await sink.check()).toMatchObject([{ level: 'ok' }])
  })

  it('prints statements that mend the table, and they do', async () => {
    await database.query('create table orders (id text not null, total numeric, note text)')
    const sink = await open()
    await sink.init()
    const found = await blockers(sink)
    expect(found.map(({ remedy }) => remedy)).toEqual([
      'create unique index concurrently on "public"."orders" ("id")',
      'alter table "public"."orders" add column _millrace_position text collate "C"',
    ])
    for (const { remedy } of found) await database.query(remedy as string)
    expect(await blockers(sink)).toEqual([])
    await database.query('alter table orders alter column _millrace_position type text collate "default"')
    const [collation] = await blockers(sink)
    await database.query(collation?.remedy as string)
    expect(await blockers(sink)).toEqual([])
  })

  it('names missing tables and columns, unmapped not-null columns, and what cannot be written', async () => {
    await database.query(
      'create table orders (id text primary key, made int generated always as (1) stored, must text not null, _millrace_position text collate "C")',
    )
    const sink = await open({
      tables: [
        {
          from: 'order',
          into: 'orders',
          key: 'id',
          columns: { made: 'made', must: false, gone: 'x' },
          on: { Changed: 'upsert' },
        },
        { from: 'order', into: 'elsewhere.lines', key: 'id', on: { Changed: 'upsert' } },
      ],
    })
    await sink.init()
    expect((await blockers(sink)).map(({ message }) => message)).toEqual([
      'public.orders has no column gone',
      'public.orders.made is made by the database and cannot be written',
      'public.orders.must must not be null, has no default, and is not mapped',
      'there is no table elsewhere.lines, or the role may not see its schema',
    ])
  })

  it('names the privileges that the role lacks', async () => {
    await database.query(ORDERS)
    await (await open()).init()
    const role = `reader_${database.name}`
    await database.query(
      `create role ${role} login; grant usage on schema millrace to ${role}; grant select on orders to ${role}`,
    )
    try {
      const sink = await open({ url: database.url.replace('postgres@', `${role}@`) })
      const messages = (await blockers(sink)).map(({ message }) => message)
      expect(messages).toContain('the role may not insert, update, delete on public.orders')
      expect(messages).toContain('the role may not select, insert, update, delete on millrace.checkpoint')
    } finally {
      await database.query(`drop owned by ${role}; drop role ${role}`)
    }
  })
})
