import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { createPipeline } from '../../src/index.ts'

/**
 * What the roles of `init --sql` may do, read from the catalogue whole: a right that is not listed here is one too many.
 * That the pipeline runs with them shows `test/faults/least-privilege.test.ts`.
 */

let server: PostgresServer
let home: string
const as = (role: string, database: string): string => server.url(database).replace('postgres@', `${role}@`)

async function run(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const results = (await client.query(text)) as unknown as pg.QueryResult | pg.QueryResult[]
    return (Array.isArray(results) ? results.at(-1) : results)?.rows ?? []
  } finally {
    await client.end()
  }
}

beforeAll(async () => {
  // roles belong to a whole server: one of its own
  server = await startPostgresServer({ settings: { fsync: 'off' } })
  home = await mkdtemp(join(tmpdir(), 'millrace-privileges-'))
  await run(server.url(), 'create role app_owner login')
  for (const database of ['shop', 'warehouse']) {
    await run(server.url(), `create database ${database} owner app_owner`)
    await run(
      as('app_owner', database),
      'create table customers (secret text); create schema other; create table other.checkpoint (x int)',
    )
  }
  await run(
    as('app_owner', 'warehouse'),
    'create table orders (id bigint primary key, total numeric, _millrace_position text collate "C")',
  )
  const pipeline = createPipeline(
    {
      name: 'shop',
      source: { url: as('millrace_relay', 'shop') },
      queue: { kind: 'local', path: join(home, 'queue.db') },
      sinks: {
        warehouse: {
          kind: 'postgres',
          url: as('millrace_sink', 'warehouse'),
          tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderPlaced: 'upsert' } }],
        },
      },
      http: false,
    },
    { logLevel: 'silent' },
  )
  await run(as('app_owner', 'shop'), await pipeline.sql('owner'))
  await run(server.url('shop'), await pipeline.sql('relay'))
  await run(server.url('shop'), await pipeline.sql('writer'))
  await run(server.url('warehouse'), await pipeline.sql('sink'))
  await run(server.url(), 'create role service login; grant millrace_writer to service')
})
afterAll(async () => {
  await server?.remove()
  await rm(home, { recursive: true, force: true })
})

/** every right on a table, view, sequence or schema of ours or of users', by what it is on */
async function rightsOf(role: string, database: string): Promise<Record<string, string>> {
  const rows = await run(
    server.url(database),
    `select n.nspname || '.' || c.relname as name, string_agg(lower(p), ' ' order by p) as rights
       from pg_class c join pg_namespace n on n.oid = c.relnamespace,
            unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
      where n.nspname !~ '^(pg_|information_schema)' and c.relkind in ('r', 'p', 'v', 'm', 'f') and has_table_privilege('${role}', c.oid, p)
      group by 1
     union all
     select 'sequence ' || n.nspname || '.' || c.relname, string_agg(lower(p), ' ' order by p)
       from pg_class c join pg_namespace n on n.oid = c.relnamespace, unnest(array['SELECT', 'USAGE', 'UPDATE']) p
      where n.nspname !~ '^(pg_|information_schema)' and c.relkind = 'S' and has_sequence_privilege('${role}', c.oid, p)
      group by 1
     union all
     select 'schema ' || nspname, string_agg(lower(p), ' ' order by p)
       from pg_namespace, unnest(array['USAGE', 'CREATE']) p
      where nspname !~ '^(pg_|information_schema)' and has_schema_privilege('${role}', oid, p)
      group by 1
     order by 1`,
  )
  return Object.fromEntries(rows.map(({ name, rights }) => [String(name), String(rights)]))
}

const attributesOf = async (role: string): Promise<unknown> =>
  (
    await run(
      server.url(),
      `select rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication, rolcanlogin from pg_roles where rolname = '${role}'`,
    )
  )[0]
const NONE = {
  rolsuper: false,
  rolcreaterole: false,
  rolcreatedb: false,
  rolbypassrls: false,
  rolreplication: false,
  rolcanlogin: true,
}

const refused = async (url: string, text: string): Promise<void> =>
  void (await expect(run(url, text), text).rejects.toMatchObject({ code: expect.stringMatching(/^(42501|28000|0LP01)$/) }))

test('the relay reads and clears the outbox and keeps its state; other tables it does not see', async () => {
  expect(await attributesOf('millrace_relay')).toEqual({ ...NONE, rolreplication: true })
  expect(await rightsOf('millrace_relay', 'shop')).toEqual({
    'millrace.migrations': 'select',
    'millrace.outbox': 'delete select',
    'millrace.relay_state': 'insert select update',
    'schema millrace': 'usage',
    'schema public': 'usage',
  })
  expect(await rightsOf('millrace_relay', 'warehouse')).toEqual({ 'schema public': 'usage' })
  const relay = as('millrace_relay', 'shop')
  for (const text of [
    'select * from customers',
    'truncate millrace.outbox',
    `insert into millrace.outbox (aggregate_type, aggregate_id, type) values ('order', '1', 'Forged')`,
    'drop publication millrace_shop',
    'create table public.mine ()',
    'create table millrace.mine ()',
    'alter table millrace.outbox disable row level security',
    'create publication everything for all tables',
    'create role another superuser',
    `copy (select 1) to program 'true'`,
  ])
    await refused(relay, text)
})

test('a writer writes events, and neither reads, changes nor removes one', async () => {
  expect(await attributesOf('millrace_writer')).toEqual({ ...NONE, rolcanlogin: false })
  const rights = {
    // how far its backfills are
    'millrace.backfill': 'delete insert select update',
    'millrace.outbox': 'insert',
    'schema millrace': 'usage',
    'schema public': 'usage',
  }
  expect(await rightsOf('millrace_writer', 'shop')).toEqual(rights)
  expect(await rightsOf('service', 'shop')).toEqual(rights)
  const service = as('service', 'shop')
  const emit = `select millrace.emit(aggregate_type => 'order', aggregate_id => '1', type => 'OrderPlaced', payload => '{}')`
  expect(await run(service, emit)).toHaveLength(1)
  for (const text of [
    'select * from millrace.outbox',
    'delete from millrace.outbox',
    `update millrace.outbox set type = 'x'`,
    'truncate millrace.outbox',
    'select * from millrace.relay_state',
    `insert into millrace.relay_state values ('shop', 'x')`,
    'select * from customers',
    `select pg_drop_replication_slot('millrace_shop')`,
    `select pg_create_logical_replication_slot('mine', 'pgoutput')`,
    `select * from pg_logical_slot_peek_changes('millrace_shop', null, null)`,
  ])
    await refused(service, text)
})

test('a sink writes its tables and its own bookkeeping, and sees nobody else’s', async () => {
  expect(await attributesOf('millrace_sink')).toEqual(NONE)
  const all = 'delete insert select update'
  expect(await rightsOf('millrace_sink', 'warehouse')).toEqual({
    'millrace.checkpoint': all,
    'millrace.copy': all,
    'millrace.deleted': all,
    'millrace.guard': all,
    'millrace.parked': all,
    'millrace.parked_audit': all,
    'millrace.parked_event': all,
    'millrace.target': all,
    'millrace_copy.apart': all,
    'millrace_copy.checkpoint': all,
    'millrace_copy.deleted': all,
    'millrace_copy.parked': all,
    'millrace_copy.target': all,
    'public.orders': all,
    'schema millrace': 'usage',
    // its copies, for a replay, and nothing else
    'schema millrace_copy': 'create usage',
    'schema public': 'usage',
  })
  expect(await rightsOf('millrace_sink', 'shop')).toEqual({ 'schema public': 'usage' })
  for (const text of [
    'select * from customers',
    'select * from other.checkpoint',
    'truncate orders',
    'drop table orders',
    'create table millrace.mine ()',
  ])
    await refused(as('millrace_sink', 'warehouse'), text)
})

test('no function of ours lends its owner’s rights, nor is there a door to pg_logical_emit_message', async () => {
  for (const database of ['shop', 'warehouse'])
    expect(
      await run(
        server.url(database),
        `select p.proname, p.prosecdef, p.prosrc ~ 'pg_logical_emit_message' as emits from pg_proc p join pg_namespace n on n.oid = p.pronamespace
          where n.nspname in ('millrace', 'public') and (p.prosecdef or p.prosrc ~ 'pg_logical_emit_message')`,
      ),
    ).toEqual([])
})
