import { once } from 'node:events'
import { type AddressInfo, connect as connectTo, createServer } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import { createDatabase, type Database } from '../support/database.ts'
import {
  insert,
  type LoggedLine,
  lastEnd,
  queryOnce,
  read,
  SCHEMA,
  session,
  sourceOn,
  textOf,
  uniqueName,
} from './outbox-fixture.ts'

let db: Database
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

beforeEach(async () => {
  await db.query('drop schema if exists millrace cascade')
  await db.query(SCHEMA)
})

const messages = (findings: readonly { level: string; message: string }[], level: string): string =>
  findings
    .filter((finding) => finding.level === level)
    .map(({ message }) => message)
    .join('\n')

test('init makes the publication, then the slot, once; check knows it before and after', async () => {
  const source = sourceOn(db.url)
  const before = await source.check()
  expect(messages(before, 'blocker')).toBe('')
  expect(messages(before, 'warning')).toMatch(/no publication millrace_\w+ yet[\s\S]*no slot millrace_\w+ yet/)
  await expect(session(source)).rejects.toMatchObject({ code: 'MILLRACE_PUBLICATION_MISSING' })

  expect(await source.init()).toEqual([
    expect.stringMatching(/^publication millrace_\w+ for millrace\.outbox$/),
    expect.stringMatching(/^slot millrace_\w+$/),
  ])
  expect(await source.init()).toEqual([])
  const { rows } = await db.query(
    "select to_jsonb(s)->>'failover' as failover, plugin, two_phase from pg_replication_slots s where slot_name = $1",
    [`millrace_${source.name}`],
  )
  expect(rows).toEqual([{ failover: 'true', plugin: 'pgoutput', two_phase: false }])
  const after = await source.check()
  expect(messages(after, 'blocker')).toBe('')
  expect(messages(after, 'ok')).toMatch(/^Postgres 18\.\d+, database .*, slot millrace_/)
  expect(messages(after, 'warning')).toContain('superuser')
})

test('events that were written before init are not in the stream, those after it are', async () => {
  const source = sourceOn(db.url)
  await db.query(insert('before'))
  await source.init()
  await db.query(insert('after'))
  const { changes } = await read(await session(source), 1)
  expect(changes.map(({ aggregateId }) => textOf(aggregateId))).toEqual(['after'])
})

test.each([
  ['all tables', "for all tables with (publish = 'insert')", /publishes all tables/],
  ['another table', "for table other with (publish = 'insert')", /publishes public\.other, does not publish millrace\.outbox/],
  ['more tables', "for table millrace.outbox, other with (publish = 'insert')", /publishes public\.other$/],
  ['updates too', 'for table millrace.outbox', /publishes insert, update, delete, truncate, expected insert only/],
  ['some rows', "for table millrace.outbox where (version > 1) with (publish = 'insert')", /has a row filter/],
  [
    'some columns',
    "for table millrace.outbox (id, type, aggregate_id) with (publish = 'insert')",
    /leaves out the columns aggregate_type, payload, headers, ordering_key, version/,
  ],
])('a publication of %s is refused by init, check and open, and shown how it must be', async (_, definition, fault) => {
  await db.query('create table if not exists other (id int primary key)')
  const source = sourceOn(db.url)
  const statement = (what: string): string => `create publication millrace_${source.name} ${what}`
  await db.query(statement(definition))
  onTestFinished(() => db.query(`drop publication if exists millrace_${source.name}`).then(() => {}))
  await expect(source.init()).rejects.toMatchObject({
    code: 'MILLRACE_SOURCE_NOT_READY',
    message: expect.stringMatching(fault),
    remedy: expect.stringContaining(
      `create publication "millrace_${source.name}" for table "millrace"."outbox" with (publish = 'insert')`,
    ),
  })
  expect(messages(await source.check(), 'blocker')).toMatch(new RegExp(fault.source.replace('$', ''), 'm'))
  await expect(session(source)).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_NOT_READY' })
})

test('a publication that went away while the slot is there is not made anew', async () => {
  const source = sourceOn(db.url)
  await source.init()
  await source.teardown({ publication: true })
  for (const attempt of [() => source.init(), () => session(source)])
    await expect(attempt()).rejects.toMatchObject({ code: 'MILLRACE_PUBLICATION_MISSING' })
  expect(messages(await source.check(), 'blocker')).toContain('younger than the slot')
})

test('a publication that was altered or made again is another one, also when it is as it was before', async () => {
  const source = sourceOn(db.url)
  await source.init()
  const identity = async (): Promise<string> => {
    const opened = await session(source)
    await opened.close()
    return opened.identity.publication
  }
  const before = await identity()
  const publication = `millrace_${source.name}`
  expect(await identity()).toBe(before)
  await queryOnce(db.url, `alter publication ${publication} set (publish = 'update')`)
  await queryOnce(db.url, `alter publication ${publication} set (publish = 'insert')`)
  const altered = await identity()
  await queryOnce(db.url, `alter publication ${publication} drop table millrace.outbox`)
  await queryOnce(db.url, `alter publication ${publication} add table millrace.outbox`)
  const joined = await identity()
  await queryOnce(db.url, `drop publication ${publication}`)
  await queryOnce(db.url, `create publication ${publication} for table millrace.outbox with (publish = 'insert')`)
  expect(new Set([before, altered, joined, await identity()]).size).toBe(4)
})

test('a slot that a stream was begun on is not made anew', async () => {
  const source = sourceOn(db.url)
  await source.init()
  await source.stateCopy.write('{}')
  await source.teardown({ slot: true })
  await expect(source.init()).rejects.toMatchObject({ code: 'MILLRACE_SLOT_MISSING' })
  await expect(session(source)).rejects.toMatchObject({ code: 'MILLRACE_SLOT_MISSING' })
  expect(messages(await source.check(), 'blocker')).toContain('a relay has used it')
})

test('a slot of another plugin or database is not ours', async () => {
  const name = uniqueName()
  await db
    .query("select pg_create_logical_replication_slot($1, 'test_decoding')", [name])
    .catch(() => db.query('select pg_create_physical_replication_slot($1)', [name]))
  onTestFinished(() => db.query('select pg_drop_replication_slot($1)', [name]).then(() => {}))
  const source = sourceOn(db.url, { slot: name })
  await expect(source.init()).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_CHANGED' })

  const other = await createDatabase()
  onTestFinished(() => other.drop())
  await other.query(SCHEMA)
  const elsewhere = sourceOn(other.url)
  await elsewhere.init()
  const here = sourceOn(db.url, { slot: `millrace_${elsewhere.name}` })
  await expect(here.init()).rejects.toMatchObject({
    code: 'MILLRACE_SOURCE_CHANGED',
    message: expect.stringContaining(other.name),
  })
})

test('teardown removes what is named, and not a slot that a relay holds', async () => {
  const source = sourceOn(db.url)
  await source.init()
  const opened = await session(source)
  await expect(source.teardown({ slot: true })).rejects.toMatchObject({ code: 'MILLRACE_SLOT_IN_USE' })
  await opened.close()
  expect(await source.teardown({ slot: true })).toEqual([`slot millrace_${source.name}`])
  expect(await source.teardown({ slot: true })).toEqual([])
  expect(await source.slotStatus()).toBeNull()
  expect(await source.teardown({ publication: true, schema: true })).toEqual([
    `publication millrace_${source.name}`,
    'schema millrace',
  ])
  expect(await source.stateCopy.read()).toBeNull()
  expect(messages(await source.check(), 'blocker')).toMatch(/millrace\.outbox does not exist[\s\S]*relay_state does not exist/)
  await expect(source.init()).rejects.toMatchObject({ code: 'MILLRACE_SCHEMA_OUTDATED' })
})

test('the state copy is one text per source', async () => {
  const [one, two] = [sourceOn(db.url), sourceOn(db.url)]
  expect(await one.stateCopy.read()).toBeNull()
  await one.stateCopy.write('{"a":1}')
  await two.stateCopy.write('{"b":1}')
  await one.stateCopy.write('{"a":2}')
  expect([await one.stateCopy.read(), await two.stateCopy.read()]).toEqual(['{"a":2}', '{"b":1}'])
  // over what was read only: of two sessions the late one changes nothing
  expect(await one.stateCopy.write('{"a":3}', '{"a":1}')).toBe(false)
  expect(await one.stateCopy.write('{"a":3}', null)).toBe(false)
  expect(await one.stateCopy.write('{"a":3}', '{"a":2}')).toBe(true)
  const three = sourceOn(db.url)
  expect(await three.stateCopy.write('{"c":1}', '{"c":0}')).toBe(false)
  expect(await three.stateCopy.write('{"c":1}', null)).toBe(true)
  expect([await one.stateCopy.read(), await three.stateCopy.read()]).toEqual(['{"a":3}', '{"c":1}'])
})

test('slotStatus tells how far the slot is and what it keeps', async () => {
  const source = sourceOn(db.url)
  await source.init()
  const opened = await session(source)
  await db.query(insert('1'))
  opened.confirm(lastEnd(await read(opened, 1)))
  const held = await source.slotStatus()
  expect(held?.activePid).toBeGreaterThan(0)
  await opened.close()
  const status = await source.slotStatus()
  expect(status).toMatchObject({ plugin: 'pgoutput', database: db.name, walStatus: 'reserved', activePid: null })
  expect(status?.retainedBytes).toBeGreaterThanOrEqual(0n)
  expect(status?.safeWalSize).toBeGreaterThan(0n)
  expect(status?.currentWal).toBeGreaterThanOrEqual(status?.confirmed as bigint)
})

test('a partitioned outbox is published as its root', async () => {
  const table = uniqueName()
  await db.query(`create table ${table} (like millrace.outbox) partition by range (created_at)`)
  await db.query(`create table ${table}_1 partition of ${table} default`)
  const source = sourceOn(db.url, {
    outbox: {
      table,
      columns: { id: 'id', aggregateType: 'aggregate_type', aggregateId: 'aggregate_id', type: 'type', payload: 'payload' },
    },
  })
  await source.init()
  expect(messages(await source.check(), 'blocker')).toBe('')
  const opened = await session(source)
  await db.query(
    insert('1')
      .replace('millrace.outbox', table)
      .replace('(aggregate_type', '(id, version, created_at, aggregate_type')
      .replace("('order'", "(gen_random_uuid(), 1, now(), 'order'"),
  )
  expect((await read(opened, 1)).changes).toHaveLength(1)
})

test('a mapping that the table does not have is a blocker that names column and type', async () => {
  await db.query('create unlogged table if not exists wrong (id uuid, kind text, payload int, "when" timestamptz)')
  const source = sourceOn(db.url, {
    outbox: {
      table: 'wrong',
      columns: { id: 'when', aggregateType: 'kind', aggregateId: 'nowhere', type: 'kind', payload: 'payload' },
    },
  })
  const blockers = messages(await source.check(), 'blocker')
  expect(blockers).toContain('public.wrong is unlogged')
  expect(blockers).toContain('has no column nowhere (for aggregateId)')
  expect(blockers).toContain('column when of public.wrong has the type timestamptz')
  expect(blockers).toContain('column payload of public.wrong has the type int4, expected json, jsonb, text, varchar, bytea')
  await expect(session(source)).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_NOT_READY' })
})

test('a relay needs no superuser: REPLICATION and the state table are enough, and what lacks is said', async () => {
  const role = uniqueName()
  await db.query(`create role ${role} login`)
  onTestFinished(() => db.query(`drop owned by ${role}; drop role ${role}`).then(() => {}))
  const owner = sourceOn(db.url)
  const url = db.url.replace('postgres@', `${role}@`)
  const relay = sourceOn(url, { name: owner.name })
  expect(messages(await relay.check(), 'blocker')).toMatch(/may not replicate[\s\S]*may not read and write millrace\.relay_state/)
  await expect(session(relay)).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_AUTH' })
  await db.query(`alter role ${role} replication`)
  await db.query(`grant usage on schema millrace to ${role}`)
  await db.query(`grant select, insert, update on millrace.relay_state to ${role}`)
  await db.query(`grant select on millrace.migrations to ${role}`)
  await expect(relay.init()).rejects.toMatchObject({
    code: 'MILLRACE_SOURCE_AUTH',
    remedy: expect.stringContaining('create publication'),
  })
  await db.query(`create publication millrace_${owner.name} for table millrace.outbox with (publish = 'insert')`)
  expect(await relay.init()).toEqual([`slot millrace_${owner.name}`])
  expect(messages(await relay.check(), 'blocker')).toBe('')
  await db.query(insert('1'))
  const opened = await session(relay)
  const got = await read(opened, 1)
  opened.confirm(lastEnd(got))
  await relay.stateCopy.write('{}')
  await opened.close()
  expect((await relay.slotStatus())?.confirmed).toBe(lastEnd(got))
  await relay.teardown({ slot: true })
  await owner.teardown({ publication: true })
})

test('what cannot be reached or entered is a finding with a remedy, and the code that says whether to try again', async () => {
  const role = uniqueName()
  await db.query(`create role ${role} login`)
  onTestFinished(() => db.query(`drop role ${role}`).then(() => {}))
  const nowhere = sourceOn('postgres://postgres@127.0.0.1:1/x')
  expect(await nowhere.check()).toEqual([
    {
      level: 'blocker',
      subject: 'source',
      message: expect.stringContaining('ECONNREFUSED'),
      remedy: expect.stringContaining('direct address'),
    },
  ])
  await expect(session(nowhere)).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_UNREACHABLE' })
  const stranger = sourceOn(db.url.replace('postgres@', 'stranger@'))
  await expect(session(stranger)).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_AUTH' })
  const missing = sourceOn(`${db.url}_not`)
  await expect(session(missing)).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_NOT_READY' })
  // as a full disk does it, which can write no relation cache
  await db.query(`create function refuse() returns event_trigger language plpgsql as $$ begin
    if session_user = '${role}' then raise 'could not write init file' using errcode = 'XX000'; end if;
  end $$`)
  await db.query('create event trigger refuse on login execute function refuse()')
  onTestFinished(() => db.query('drop event trigger refuse; drop function refuse').then(() => {}))
  const full = sourceOn(db.url.replace('postgres@', `${role}@`))
  await expect(session(full)).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_UNREACHABLE' })
  const aborted = sourceOn(db.url)
  await expect(aborted.open({ signal: AbortSignal.abort() })).rejects.toThrow()
})

test('names that could break out of the replication command are refused or quoted', async () => {
  for (const slot of ['x"y', 'X', '', 'a b', 'x;drop', 'a'.repeat(64)])
    expect(() => sourceOn(db.url, { slot })).toThrow(expect.objectContaining({ code: 'MILLRACE_CONFIG_INVALID' }))
  for (const publication of ['', 'a\0b', 'a'.repeat(64)])
    expect(() => sourceOn(db.url, { publication })).toThrow(expect.objectContaining({ code: 'MILLRACE_CONFIG_INVALID' }))
  const source = sourceOn(db.url, { publication: `it's "a", b; --` })
  await source.init()
  const opened = await session(source)
  await db.query(insert('1'))
  expect((await read(opened, 1)).changes).toHaveLength(1)
  await opened.close()
  await source.teardown({ publication: true, slot: true })
})

test('a pooler gives itself away by the process number that it tells', async () => {
  const target = new URL(db.url)
  const pooler = createServer((inside) => {
    const outside = connectTo(Number(target.port), target.hostname)
    inside.on('error', () => outside.destroy()).pipe(outside)
    outside.on('error', () => inside.destroy())
    outside.on('data', (chunk: Buffer) => {
      // BackendKeyData: 'K', 12, the process, the key
      const at = chunk.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]))
      if (at !== -1) chunk.writeUInt32BE(1, at + 5)
      inside.write(chunk)
    })
    outside.on('end', () => inside.end())
  })
  pooler.listen(0, '127.0.0.1')
  await once(pooler, 'listening')
  onTestFinished(() => void pooler.close())
  const source = sourceOn(db.url.replace(`:${target.port}`, `:${(pooler.address() as AddressInfo).port}`))
  expect(messages(await source.check(), 'blocker')).toContain('a pooler')
  expect(messages(await sourceOn(db.url).check(), 'blocker')).toBe('')
})

test('warnings of the preflight are logged when a session opens, without a secret', async () => {
  const lines: LoggedLine[] = []
  const source = sourceOn(db.url, { password: 'canary-secret' }, lines)
  await source.init()
  await session(source)
  expect(lines.map(({ level }) => level)).toContain('warn')
  expect(JSON.stringify(lines)).not.toContain('canary-secret')
})
