import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { migrate, migrationSql } from '../../src/postgres/migrate.ts'
import { type DatabaseRole, roleSql } from '../../src/postgres/roles.ts'
import { eachPostgres, type TestDatabase, withClient } from './each-postgres.ts'
import { uniqueName } from './outbox-fixture.ts'

eachPostgres('a role is given what it needs and nothing beyond', (create) => {
  let database: TestDatabase
  let client: pg.Client
  /** a role's name may hold anything */
  let role: string
  let name: string
  beforeEach(async () => {
    database = await create()
    client = new pg.Client({ connectionString: database.url })
    await client.connect()
    name = uniqueName()
    role = `r"; '$millrace$ ${name}`
  })
  afterEach(async () => {
    await client.query('reset role')
    const { rows } = await client.query('select 1 from pg_roles where rolname = $1', [role])
    if (rows.length > 0)
      await client.query(`drop owned by ${pg.escapeIdentifier(role)} cascade; drop role ${pg.escapeIdentifier(role)}`)
    await client.end()
    await database.drop()
  })
  const give = async (kind: DatabaseRole, more: object = {}): Promise<void> => {
    await client.query(roleSql(kind, { name, role, ...more }))
  }
  const asRole = async (): Promise<void> => {
    await client.query(`set role ${pg.escapeIdentifier(role)}`)
  }
  const refused = async (...statements: string[]): Promise<void> => {
    for (const statement of statements) await expect(client.query(statement), statement).rejects.toMatchObject({ code: '42501' })
  }
  const one = async (text: string): Promise<unknown> => Object.values((await client.query(text)).rows[0])[0]
  const EMIT = `select millrace.emit('order', '1', 'Placed', '{}', '{"a":"b"}')`

  test('the owner makes the schema and the publication, without being a superuser', async () => {
    await client.query(
      `create role ${pg.escapeIdentifier(role)}; grant create on database ${pg.escapeIdentifier(String(await one('select current_database()')))} to ${pg.escapeIdentifier(role)}`,
    )
    await asRole()
    await give('owner', { statements: await migrationSql() })
    expect((await client.query('select * from pg_publication_tables')).rows).toMatchObject([
      { pubname: `millrace_${name}`, schemaname: 'millrace', tablename: 'outbox' },
    ])
    expect((await client.query('select pubinsert, pubupdate, pubdelete, pubtruncate from pg_publication')).rows).toEqual([
      { pubinsert: true, pubupdate: false, pubdelete: false, pubtruncate: false },
    ])
    await client.query(EMIT)
    await refused('create role more_power')
  })

  test('a writer writes events, and neither reads nor changes any', async () => {
    await migrate(client)
    await give('writer')
    await give('writer')
    await asRole()
    await client.query(EMIT)
    await client.query("select millrace.tombstone('order', '1', 'Erased')")
    await client.query(
      "insert into millrace.outbox (aggregate_type, aggregate_id, type, payload) values ('order', '1', 'X', '{}')",
    )
    await expect(client.query("select millrace.emit('a b', '1', 'X', '{}')")).rejects.toMatchObject({ code: '23514' })
    await refused(
      'select * from millrace.outbox',
      'delete from millrace.outbox',
      'truncate millrace.outbox',
      "update millrace.outbox set type = 'Y'",
      'select * from millrace.relay_state',
      'create table millrace.mine ()',
      "insert into millrace.migrations values (9, 'x')",
    )
  })

  test('nobody else writes', async () => {
    await migrate(client)
    await client.query(`create role ${pg.escapeIdentifier(role)}; grant usage on schema millrace to ${pg.escapeIdentifier(role)}`)
    await asRole()
    await refused(
      EMIT,
      "select millrace.tombstone('order', '1', 'X')",
      "insert into millrace.outbox (aggregate_type) values ('x')",
    )
  })

  test('the relay makes its slot, keeps its state and deletes; it writes no event and owns nothing', async () => {
    await migrate(client)
    await client.query(EMIT)
    await give('relay')
    await give('relay')
    expect(
      await one(`select rolreplication and rolcanlogin and not rolsuper from pg_roles where rolname = ${pg.escapeLiteral(role)}`),
    ).toBe(true)
    await withClient(database.url, async (relay) => {
      await relay.query(`set role ${pg.escapeIdentifier(role)}`)
      const slot = `millrace_${name}`
      await relay.query(`select pg_create_logical_replication_slot('${slot}', 'pgoutput')`)
      await relay.query(`select pg_drop_replication_slot('${slot}')`)
    })
    await asRole()
    await client.query(
      "insert into millrace.relay_state (source, state) values ('s', '1') on conflict (source) do update set state = excluded.state",
    )
    await client.query(
      'select state from millrace.relay_state; select version from millrace.migrations; select pg_try_advisory_lock(1)',
    )
    expect((await client.query('delete from millrace.outbox where id in (select id from millrace.outbox)')).rowCount).toBe(1)
    await refused(
      EMIT,
      "update millrace.outbox set type = 'Y'",
      'truncate millrace.outbox',
      'drop table millrace.outbox',
      'create table millrace.mine ()',
    )
  })

  test('a relay of a table that was there before reads it', async () => {
    await migrate(client)
    await client.query('create schema "My App"; create table "My App"."outbox events" (id uuid)')
    await give('relay', { outbox: { schema: 'My App', name: 'outbox events' } })
    await asRole()
    await client.query('select id from "My App"."outbox events"')
    await refused('insert into "My App"."outbox events" values (null)')
  })

  test('a sink writes to its tables and its bookkeeping', async () => {
    const statements =
      'create schema millrace; create table millrace.checkpoint (sink text); create table millrace.deleted (sink text);'
    await client.query('create table orders (id int); create table others (id int)')
    await give('sink', { statements, tables: [{ schema: 'public', name: 'orders' }] })
    await asRole()
    for (const table of ['millrace.checkpoint', 'millrace.deleted', 'public.orders'])
      await client.query(
        `insert into ${table} values (null); update ${table} set ${table === 'public.orders' ? 'id' : 'sink'} = null; select * from ${table}; delete from ${table}`,
      )
    await refused('select * from others', 'drop table orders', 'create table millrace.mine ()')
  })

  test('all is said in one transaction, and no slot is made in it', () => {
    for (const kind of ['owner', 'relay', 'writer', 'sink'] as const) {
      const sql = roleSql(kind, { name })
      expect([sql.startsWith('begin;\n'), sql.endsWith('\ncommit;\n')]).toEqual([true, true])
      expect(sql.match(/\b(begin|commit);/g)).toEqual(['begin;', 'commit;'])
      expect(sql).not.toMatch(/replication_slot|superuser|extension|event trigger/)
    }
  })
})
