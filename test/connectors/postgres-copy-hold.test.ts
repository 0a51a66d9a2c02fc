import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import type { Copy } from '../../src/core/copy.ts'
import { batchOf } from '../../src/testing/events.ts'
import { withClient } from '../postgres/each-postgres.ts'
import { createDatabase } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { compareAll, follow, kinds, mendAll, WHOLE } from './postgres-copy-fixture.ts'
import { at, ORDERS, openSink } from './postgres-fixture.ts'

const changed = (key: string, note: string) => ({ type: 'Changed', key, payload: { id: key, total: 1, note } })
const erased = (key: string) => ({ type: 'Erased', key })
const tables = [{ from: 'order', into: 'orders', key: 'id', on: { Changed: 'upsert', Erased: 'delete' } }] as const

async function orders() {
  const database = await createDatabase()
  onTestFinished(() => database.drop())
  await database.query(ORDERS)
  const follower = await follow({ url: database.url, tables, lockTimeout: 5_000 })
  const folded = async (): Promise<Copy> => {
    const copy = await follower.create()
    onTestFinished(() => copy.close())
    await follower.foldOn(copy)
    return copy
  }
  const rows = async () =>
    Object.fromEntries((await database.query('select id, note from orders')).rows.map(({ id, note }) => [id, note]))
  /** so many of the sink's sessions wait for a lock */
  const waiting = (count: number) =>
    eventually(
      async () => {
        const { rows: found } = await database.query(
          `select count(*)::int as n from pg_stat_activity where datname = current_database() and application_name like 'millrace%' and wait_event_type = 'Lock'`,
        )
        return found[0].n === count
      },
      { what: `${count} sessions of the sink wait for a lock` },
    )
  return { ...follower, database, folded, rows, waiting }
}

test('there is one copy, one works on it, and whoever takes it later finds what was kept', async () => {
  const { copies, database } = await orders()
  const other = await openSink({ url: database.url, tables })
  onTestFinished(() => other.close())
  expect(await copies.find()).toBe(null)
  await expect(copies.take()).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_UNKNOWN' })
  await expect(copies.ask('pause')).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_UNKNOWN' })
  const copy = await copies.create('one', 'rows')
  for (const again of [() => copies.create('two', 'rows'), () => other.copies?.create('two', 'rows'), () => other.copies?.take()])
    await expect(again()).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_RUNNING', fields: { held: true } })
  expect(await other.copies?.find()).toMatchObject({ job: 'one', wish: null, held: true })
  expect(await copy.keep('two')).toBe(null)
  await other.copies?.ask('pause')
  expect(await copy.keep('three')).toBe('pause')
  await copy.close()
  expect(await copies.find()).toMatchObject({ job: 'three', wish: 'pause', held: false })
  await expect(copies.create('four', 'rows')).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_RUNNING', fields: { held: false } })
  const taken = (await other.copies?.take()) as Copy
  expect(taken.job).toBe('three')
  await other.copies?.ask(null)
  expect(await taken.keep('five')).toBe(null)
  await taken.drop()
  expect(await copies.find()).toBe(null)
})

test('a copy whose holder is gone can be taken, and its holder can do nothing more', async () => {
  const { copies, folded, live, database } = await orders()
  await live([changed('a', '1')])
  const copy = await folded()
  await database.query(
    `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
  )
  const heir = await eventually(() => copies.take(), { what: 'the copy is to be had' })
  for (const late of [() => copy.keep('late'), () => copy.restart(), () => copy.select(), () => copy.drop()])
    await expect(late()).rejects.toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE' })
  expect(heir.job).toBe('job')
  expect(await kinds(heir)).toEqual({})
  await heir.drop()
})

test('nothing of a copy is left when it is dropped, and the copy of another sink stays', async () => {
  const { folded, live, database, park } = await orders()
  await live([changed('a', '1'), erased('a'), changed('b', '1')])
  await park([changed('c', '1')])
  const other = await openSink({ url: database.url, tables }, { sink: `o'ther" \\#` })
  onTestFinished(() => other.close())
  const kept = (await other.copies?.create('theirs', 'rows')) as Copy
  onTestFinished(() => kept.close())
  const state = async () => {
    const { rows: names } = await database.query(
      `select c.oid::regclass::text as name from pg_class c where relnamespace = 'millrace_copy'::regnamespace and relkind = 'r' order by 1`,
    )
    const counts: Record<string, number> = {}
    for (const { name } of names) counts[name] = (await database.query(`select count(*)::int as n from ${name}`)).rows[0].n
    return counts
  }
  const before = await state()
  const copy = await folded()
  await copy.select()
  expect(Object.values(await state()).reduce((sum, n) => sum + n)).toBeGreaterThan(5)
  await copy.drop()
  expect(await state()).toEqual(before)
  expect(await kept.keep('still')).toBe(null)
})

test('a mend that is killed in its midst has written nothing, and is done again', async () => {
  const { folded, live, database, rows, copies, waiting } = await orders()
  await live([changed('a', '1'), changed('b', '1'), changed('c', '1')])
  const copy = await folded()
  await database.query(`update orders set note = 'damaged'`)
  const { differences } = await compareAll(copy)
  const blocker = new pg.Client({ connectionString: database.url })
  await blocker.connect()
  onTestFinished(() => blocker.end())
  await blocker.query('begin')
  await blocker.query(`select from orders where id = 'c' for update`)
  const mended = copy.mend(differences, { extras: true })
  const failed = expect(mended).rejects.toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE' })
  await waiting(1)
  await database.query(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'millrace%' and wait_event_type = 'Lock'`,
  )
  await failed
  await blocker.query('rollback')
  expect(await rows()).toEqual({ a: 'damaged', b: 'damaged', c: 'damaged' })
  const heir = await eventually(() => copies.take(), { what: 'the copy is to be had' })
  expect(await heir.mend(differences, { extras: true })).toMatchObject({ written: 3 })
  expect(await rows()).toEqual({ a: '1', b: '1', c: '1' })
  await heir.drop()
})

test('a mend waits for the batch of the lane that deletes the same row, and does not bring the row back beside its marker', async () => {
  const { sink, folded, live, database, rows, waiting } = await orders()
  const [made] = await live([changed('a', '1'), changed('held', '1')])
  const copy = await folded()
  await database.query(`delete from orders where id = 'a'`)
  const { differences } = await compareAll(copy)
  expect(differences).toMatchObject([{ key: 'a', kind: 'missing' }])
  // the lane has looked for the row that it deletes, and found none; its batch ends only when another row is free
  const blocker = new pg.Client({ connectionString: database.url })
  await blocker.connect()
  onTestFinished(() => blocker.end())
  await blocker.query('begin')
  await blocker.query(`select from orders where id = 'held' for update`)
  const lane = await sink.claim(at(0))
  const stream = { ...(made as NonNullable<typeof made>) }
  const erase = {
    ...stream,
    type: 'Erased',
    value: null,
    position: '00000001-0000000000009000-00000001' as typeof stream.position,
    prev: [...lane.checkpoint.positions.values()][0] as typeof stream.position,
  }
  const on = {
    ...stream,
    key: Buffer.from('held'),
    value: Buffer.from('{"id":"held","total":1,"note":"2"}'),
    position: '00000001-0000000000009010-00000001' as typeof stream.position,
    prev: erase.position,
  }
  const applied = lane.apply(batchOf([erase, on], 4n))
  await waiting(1)
  const mended = copy.mend(differences, { extras: true })
  await waiting(2)
  await blocker.query('commit')
  await applied
  expect(await mended).toMatchObject({ written: 0, left: 1 })
  expect(await rows()).toEqual({ held: '2' })
})

test('a lane waits for a mend of the same row, and its delete finds what that wrote', async () => {
  const { sink, folded, live, database, rows, waiting } = await orders()
  const [made] = await live([changed('a', '1'), changed('held', '1')])
  const copy = await folded()
  await database.query(`delete from orders where id = 'a'; update orders set note = 'damaged' where id = 'held'`)
  const { differences } = await compareAll(copy)
  const blocker = new pg.Client({ connectionString: database.url })
  await blocker.connect()
  onTestFinished(() => blocker.end())
  await blocker.query('begin')
  await blocker.query(`select from orders where id = 'held' for update`)
  const lane = await sink.claim(at(0))
  const mended = copy.mend(differences, { extras: true })
  await waiting(1)
  const event = made as NonNullable<typeof made>
  const erase = {
    ...event,
    type: 'Erased',
    value: null,
    position: '00000001-0000000000009000-00000001' as typeof event.position,
    prev: [...lane.checkpoint.positions.values()][0] as typeof event.position,
  }
  const applied = lane.apply(batchOf([erase], 3n))
  await waiting(2)
  await blocker.query('commit')
  expect(await mended).toMatchObject({ written: 2 })
  await applied
  expect(await rows()).toEqual({ held: '1' })
})

test('a crash of the server empties a copy with its checkpoints, so that it is folded anew; what was selected stays', async () => {
  const server: PostgresServer = await startPostgresServer()
  onTestFinished(() => server.remove())
  await withClient(server.url(), (client) => client.query(ORDERS))
  const follower = await follow({ url: server.url(), tables })
  await follower.live([changed('a', '1'), changed('b', '1'), changed('c', '1'), erased('c')])
  const copy = await follower.create()
  await follower.foldOn(copy)
  await copy.select()
  await follower.live([changed('d', '1')])
  await withClient(server.url(), (client) =>
    client.query(`update orders set note = 'damaged'; insert into orders (id) values ('c'), ('x')`),
  )
  await server.stop('kill')
  await server.start()
  const heir = await eventually(() => follower.copies.take(), { what: 'the copy is to be had again' })
  onTestFinished(() => heir.close())
  const lane = await heir.fold(at(0))
  expect(lane.checkpoint).toMatchObject({ offset: null, positions: new Map() })
  // nothing is folded: whatever stands there may be right
  const { differences } = await compareAll(heir, WHOLE)
  expect(differences.every(({ kind }) => kind === 'newer')).toBe(true)
  expect(await heir.mend(differences, { extras: true })).toMatchObject({ written: 0, removed: 0 })
  await follower.foldOn(heir)
  expect(await kinds(heir, WHOLE)).toEqual({ a: 'different', b: 'different', c: 'extra' })
  expect(await mendAll(heir)).toMatchObject({ written: 2, removed: 1, after: {} })
})

test('the role of "init --sql sink" can do it, and check says what it would lack', async () => {
  const server = await startPostgresServer({ settings: { fsync: 'off' } })
  onTestFinished(() => server.remove())
  const { createPipeline } = await import('../../src/index.ts')
  const admin = (text: string) => withClient(server.url(), (client) => client.query(text))
  await admin(ORDERS)
  const pipeline = createPipeline(
    { name: 'shop', sinks: { replica: { kind: 'postgres', url: server.url(), tables: [...tables] } } },
    { logLevel: 'silent' },
  )
  await admin(await pipeline.sql('sink'))
  const url = new URL(server.url())
  url.username = 'millrace_sink'
  const follower = await follow({ url: url.href, tables })
  expect((await follower.sink.check()).map(({ level }) => level)).toEqual(['ok'])
  await follower.live([changed('a', '1'), erased('a'), changed('b', '1')])
  const copy = await follower.create()
  await follower.foldOn(copy)
  await copy.select()
  await admin(`update orders set note = 'damaged'`)
  expect(await mendAll(copy)).toMatchObject({ written: 1, after: {} })
  await copy.drop()
  await admin('revoke create on schema millrace_copy from millrace_sink; revoke insert on millrace_copy.apart from millrace_sink')
  expect((await follower.sink.check()).filter(({ level }) => level === 'warning').map(({ message }) => message)).toEqual([
    'the role may not insert on millrace_copy.apart: replay, rebuild and verify need it',
    'the role may not make tables in the schema millrace_copy: replay, rebuild and verify need it',
  ])
  await expect(follower.create()).rejects.toMatchObject({ code: 'MILLRACE_SINK_NOT_READY' })
  expect(await follower.copies.find()).toBe(null)
  await admin('drop schema millrace_copy cascade')
  expect((await follower.sink.check()).map(({ level, remedy }) => [level, remedy])).toEqual([['warning', 'millrace init']])
})

test('tables of any name, in a bookkeeping schema of any name, are copied', async () => {
  const database = await createDatabase()
  onTestFinished(() => database.drop())
  const schema = `s"'\\ ${'é'.repeat(28)}`
  const name = `o"r'd\\er ${'ü'.repeat(25)}`
  const id = pg.escapeIdentifier
  await database.query(
    `create table ${id(name)} ("i'd""" text primary key, "select" text, "$1" int, _millrace_position text collate "C")`,
  )
  const follower = await follow({
    url: database.url,
    schema,
    tables: [
      {
        from: 'order',
        into: `public.${name}`,
        key: `i'd"`,
        columns: { [`i'd"`]: '$key' },
        on: { Set: 'upsert', Unset: 'delete' },
      },
    ],
  })
  const set = (key: string) => ({ type: 'Set', key, payload: { select: key, $1: 1 } })
  await follower.live([set(`'"\\`), set('$1'), set('b'), { type: 'Unset', key: 'b' }])
  const copy = await follower.create()
  await follower.foldOn(copy)
  expect(await kinds(copy)).toEqual({})
  expect(await copy.select()).toBe(3)
  await database.query(`update ${id(name)} set "select" = 'x'; insert into ${id(name)} values ('b')`)
  expect(await kinds(copy, null)).toEqual({ [`'"\\`]: 'different', $1: 'different', b: 'extra' })
  expect(await mendAll(copy, { reach: null })).toMatchObject({ written: 2, removed: 1, after: {} })
  await copy.drop()
})
