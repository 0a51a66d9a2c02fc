import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createPipeline, type MillraceConfig } from '../../src/index.ts'
import { migrate } from '../../src/postgres/migrate.ts'
import { roleSql } from '../../src/postgres/roles.ts'
import { query } from '../faults/parts.ts'
import { read, session, sourceOn, uniqueName } from '../postgres/outbox-fixture.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { HOSTILE, own } from './hostile.ts'

const id = pg.escapeIdentifier
let database: Database
beforeEach(async () => {
  database = await createDatabase()
  await database.query('create table canary ()')
})
afterEach(async () => {
  await expect(database.query('select from canary')).resolves.toBeDefined()
  await database.drop()
})

test('an outbox, its columns, its publication and what stands in its rows may be called so', async () => {
  await query(database.url, (client) => migrate(client))
  for (const name of HOSTILE) {
    const columns = { id: `${name}1`, aggregateType: `${name}2`, aggregateId: name, type: `t${name}`, payload: 'payload' }
    const schema = `s${name}`
    const table = `${id(schema)}.${id(name)}`
    const defined = Object.values(columns).map((column) => `${id(column)} text`)
    await database.query(`create schema ${id(schema)}; create table ${table} (${defined.join(', ')})`)
    const outbox = { table: `${schema}.${name}`, columns }
    const source = sourceOn(database.url, { publication: `p${name}`, outbox, acceptUnlimitedWal: true })
    await source.init()
    const from = await session(source)
    await database.query(`insert into ${table} values ('1', 'order', $1, $2, '{}')`, [name, name])
    const { changes } = await read(from, 1)
    expect(changes[0]).toMatchObject({ aggregateType: 'order', type: name, fault: null })
    expect(Buffer.from(changes[0]?.aggregateId as Uint8Array).toString()).toBe(name)
    await from.close()
    expect(await source.teardown({ slot: true, publication: true })).toHaveLength(2)
  }
}, 60_000)

test('roles, and what they may touch, may be called so, and have no right beside it', async () => {
  await query(database.url, (client) => migrate(client))
  await database.query('create table millrace.checkpoint (); create table millrace.deleted ()')
  for (const name of HOSTILE) {
    // Postgres keeps pg_… to itself
    const role = `r${name}${uniqueName()}`.slice(-60)
    const table = { schema: `s${name}`, name }
    await database.query(`create schema ${id(table.schema)}; create table ${id(table.schema)}.${id(name)} (x int)`)
    try {
      await database.query(roleSql('relay', { name: 'shop', role, outbox: table }))
      await database.query(roleSql('writer', { name: 'shop', role }))
      await database.query(roleSql('sink', { name: 'shop', role, tables: [table] }))
      const attributes = 'rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication'
      const { rows } = await database.query(`select ${attributes} from pg_roles where rolname = $1`, [role])
      expect(rows).toEqual([
        { rolsuper: false, rolcreaterole: false, rolcreatedb: false, rolbypassrls: false, rolreplication: true },
      ])
      const rights = await database.query(
        `select has_table_privilege($1, $2, 'select') as own, has_table_privilege($1, 'canary', 'select, insert, update, delete') as other`,
        [role, `${id(table.schema)}.${id(name)}`],
      )
      expect(rights.rows).toEqual([{ own: true, other: false }])
    } finally {
      await database.query(`drop owned by ${id(role)} cascade; drop role ${id(role)}`)
    }
  }
})

test('slots, pipelines, sinks, topics and sources may not be called so, and the setting is named', async () => {
  for (const name of HOSTILE) {
    const wrong: Readonly<Record<string, unknown>> = {
      ...(!/^[a-z][a-z0-9_]{0,39}$/.test(name) && {
        name: { name },
        'sinks.a.sources': { name: 'shop', sinks: { a: { kind: 'stdout', sources: [name] } } },
        sinks: { name: 'shop', sinks: own([name, { kind: 'stdout' }]) },
      }),
      ...(!/^[a-z0-9_]+$/.test(name) && { 'source.slot': { name: 'shop', source: { url: database.url, slot: plain(name) } } }),
      ...(!/^[A-Za-z0-9._-]+$/.test(name) && {
        'queue.topics.name': { name: 'shop', queue: { kind: 'local', topics: { name: plain(name) } } },
      }),
    }
    for (const [path, config] of Object.entries(wrong)) {
      const refused = await Promise.resolve()
        .then(() => createPipeline(config as MillraceConfig, { logLevel: 'silent' }).check())
        .catch((error: unknown) => error)
      expect(refused, `${path}: ${name}`).toMatchObject({
        code: 'MILLRACE_CONFIG_INVALID',
        message: expect.stringContaining(path),
      })
    }
  }
})

/** a config's own references are not meant */
const plain = (text: string): string => text.replaceAll('${', () => '$${')

test.each([
  ['', 'empty'],
  ['\0', 'null'],
  ['a\0b', 'null inside'],
  ['n'.repeat(64), 'too long'],
])('%j is refused wherever a name is told (%s)', async (name) => {
  for (const source of [
    { publication: name },
    { outbox: { table: `public.${name}`, columns: { id: name, aggregateType: 'b', aggregateId: 'c', type: 'd', payload: 'e' } } },
  ]) {
    const refused = await Promise.resolve()
      .then(() => sourceOn(database.url, { ...source, acceptUnlimitedWal: true }).init())
      .catch((error: unknown) => error)
    expect(refused, JSON.stringify(source)).toMatchObject({
      code: expect.stringMatching(/^MILLRACE_(CONFIG_INVALID|SCHEMA_OUTDATED|SOURCE_NOT_READY)$/),
    })
  }
  const table = { from: 'order', into: 'public.orders', key: 'id', on: { a: 'upsert' } }
  for (const wrong of [{ into: `public.${name}` }, { key: name }, { columns: own([name, 'x']) }])
    await expect(
      (async () =>
        createPipeline(
          {
            name: 'shop',
            queue: { kind: 'local', path: '/nowhere/q.db' },
            sinks: { a: { kind: 'postgres', url: database.url, tables: [{ ...table, ...wrong }] } },
          },
          { logLevel: 'silent' },
        )
          .check()
          .then((findings) =>
            findings.some(({ level }) => level === 'blocker') ? Promise.reject(new Error('refused')) : findings,
          ))(),
    ).rejects.toThrow()
})

test('tables, columns, keys, paths, event types, ids, ordering keys and headers of such names arrive as they were', async () => {
  const source = await createDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'millrace-hostile-'))
  const pipelineName = source.name.slice(0, 40)
  // this one alone is refused, for a column and a type as for a sink
  const names = HOSTILE.filter((name) => name !== '__proto__')
  const tables = names.map((name, index) => ({
    name,
    // aggregate types go into topics, which take few characters; these are worse than they look
    from: name === 'select' ? '__proto__' : /^[A-Za-z]+$/.test(name) ? name : `type.${index}`,
    into: plain(`public.${name}`),
    key: plain(name),
    guard: index % 2 === 0 ? ('column' as const) : ('table' as const),
    columns: own([`${name}2`, plain(`p${name}.inner${name}`)]),
    on: own([name, 'upsert' as const], [`${name}!`, 'delete' as const]),
  }))
  for (const { name, guard } of tables)
    await database.query(
      `create table ${id(name)} (${id(name)} text primary key, ${id(`${name}2`)} text${guard === 'column' ? ', _millrace_position text collate "C"' : ''})`,
    )
  const pipeline = createPipeline(
    {
      name: pipelineName,
      source: { url: source.url, acceptUnlimitedWal: true },
      queue: { kind: 'local', path: join(folder, 'queue.db'), topics: { partitions: 2 } },
      sinks: {
        warehouse: {
          kind: 'postgres',
          url: database.url,
          schema: HOSTILE[2],
          unknownFields: 'pass',
          tables: tables.map(({ name: _, ...table }) => table),
        },
      },
      http: false,
    } as MillraceConfig,
    { logLevel: 'silent' },
  )
  await pipeline.init()
  expect((await pipeline.check()).filter(({ level }) => level === 'blocker')).toEqual([])
  const running = await pipeline.run()
  try {
    for (const { name, from } of tables)
      for (const [type, payload] of [
        [
          name,
          own<unknown>(
            [`p${name}`, own([`inner${name}`, `value ${name}`])],
            ['__proto__', { polluted: true }],
            ['valueOf', { constructor: { prototype: { polluted: true } } }],
          ),
        ],
        [`${name}!`, {}],
      ] as const)
        for (const key of type === name ? [name, `${name} erased`] : [`${name} erased`])
          await source.query(
            `select millrace.emit(aggregate_type => $1, aggregate_id => $2, type => $3, payload => $4::json, headers => $5::json, ordering_key => $6)`,
            [
              from,
              key,
              type,
              JSON.stringify(payload),
              JSON.stringify(own([`h${name}`, name], ['__proto__', 'x'], ['constructor', 'y'])),
              name,
            ],
          )
    const status = async (): Promise<unknown> =>
      (await running.status()).sinks[0]?.partitions.flatMap(({ error }) => (error === null ? [] : [error.message]))
    for (const { name } of tables)
      await eventually(
        async () => {
          const { rows } = await database.query(`select ${id(name)} as key, ${id(`${name}2`)} as value from ${id(name)}`)
          if (rows.length !== 1) throw new Error(`${rows.length} rows: ${JSON.stringify(await status())}`)
          expect(rows).toEqual([{ key: name, value: `value ${name}` }])
          return true
        },
        { within: 20_000, what: `the row of ${JSON.stringify(name)}` },
      )
    expect(({} as { polluted?: true }).polluted).toBeUndefined()
    const parked = await database.query(`select count(*)::int as n from ${id(HOSTILE[2] as string)}.parked`)
    expect(parked.rows).toEqual([{ n: 0 }])
  } finally {
    await running.stop()
    await source.drop()
    await rm(folder, { recursive: true, force: true })
  }
}, 90_000)
