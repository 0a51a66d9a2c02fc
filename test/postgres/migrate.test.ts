import pg from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  eventLimit,
  migrate,
  migrationSql,
  pendingMigrations,
  readMigrations,
  schemaVersion,
} from '../../src/postgres/migrate.ts'
import { describeSchema } from './describe-schema.ts'
import { eachPostgres, type TestDatabase, withClient } from './each-postgres.ts'

eachPostgres('the schema', (create, version) => {
  let database: TestDatabase
  let client: pg.Client
  beforeEach(async () => {
    database = await create()
    client = new pg.Client({ connectionString: database.url })
    await client.connect()
  })
  afterEach(async () => {
    await client.end()
    await database.drop()
  })
  const one = async (text: string, values?: unknown[]): Promise<unknown> =>
    Object.values((await client.query(text, values)).rows[0])[0]

  describe('migrations', () => {
    test('make the schema that is committed as golden', async () => {
      await migrate(client)
      await expect(await describeSchema(client, 'millrace')).toMatchFileSnapshot(`golden/schema.pg${version}.txt`)
    })

    test('are applied once, by whichever of many comes first', async () => {
      const newest = (await readMigrations()).at(-1)?.version
      expect([await schemaVersion(client), (await pendingMigrations(client)).length]).toEqual([0, newest])
      const applied = await Promise.all([1, 2, 3].map(() => withClient(database.url, (each) => migrate(each))))
      expect(applied.map((migrations) => migrations.length).sort()).toEqual([0, 0, newest])
      expect([await schemaVersion(client), await pendingMigrations(client)]).toEqual([newest, []])
    })

    test('leave nothing behind where one of them fails', async () => {
      await client.query('create schema millrace; create table millrace.relay_state ()')
      await expect(migrate(client)).rejects.toThrow('already exists')
      expect(await schemaVersion(client)).toBe(0)
      expect(client.getTransactionStatus()).toBe('I')
    })

    test('refuse a database that is newer than this package', async () => {
      await migrate(client)
      await client.query("insert into millrace.migrations (version, name) values (9999, 'of tomorrow')")
      await expect(migrate(client)).rejects.toMatchObject({ code: 'MILLRACE_SCHEMA_OUTDATED' })
    })

    test('print as SQL that any tool can run, with the limit in it', async () => {
      await client.query(`begin; ${await migrationSql({ maxEventBytes: 2_000 })} commit`)
      expect([await pendingMigrations(client), await eventLimit(client)]).toEqual([[], 2_000])
      expect(await migrationSql({ after: await schemaVersion(client) })).toBe('\n')
    })

    test('do with a schema that somebody else made for a role that may make none', async () => {
      const owner = `owner_${Math.random().toString(36).slice(2)}`
      await client.query(`create role ${owner}; create schema millrace authorization ${owner}`)
      await client.query(`set role ${owner}`)
      await migrate(client)
      expect(await one("select relowner::regrole::text from pg_class where oid = 'millrace.outbox'::regclass")).toBe(owner)
      await client.query(`reset role; drop schema millrace cascade; drop role ${owner}`)
    })
  })

  test('the size limit is set again without a look at the rows that are there', async () => {
    await migrate(client)
    expect(await eventLimit(client)).toBe(1_000_000)
    const emit = (bytes: number) =>
      client.query("select millrace.emit('order', '1', 'Placed', to_json(repeat('x', $1 - 2)), headers => $2::json)", [
        bytes - 12,
        '{"name":"v"}',
      ])
    await emit(2_048)
    await migrate(client, { maxEventBytes: 1_024 })
    await emit(1_024)
    await expect(emit(1_025)).rejects.toMatchObject({ code: '23514', constraint: 'outbox_event_size' })
    await expect(migrate(client, { maxEventBytes: 10 })).rejects.toMatchObject({ code: 'MILLRACE_CONFIG_INVALID' })
    await migrate(client)
    expect(await eventLimit(client)).toBe(1_024)
  })

  describe('the outbox', () => {
    beforeEach(() => migrate(client))
    const insert = (columns: Record<string, unknown>) => {
      const row = { aggregate_type: 'order', aggregate_id: '1', type: 'Placed', payload: '{}', ...columns }
      const names = Object.keys(row)
      return client.query(
        `insert into millrace.outbox (${names.join(', ')}) values (${names.map((_, index) => `$${index + 1}`).join(', ')})`,
        Object.values(row),
      )
    }

    test.each([
      [
        'outbox_aggregate_type',
        'aggregate_type',
        ['', 'a b', 'ä', 'a/b', 'x'.repeat(121), 'a\n'],
        ['a', 'A.b_c-9', 'x'.repeat(120)],
      ],
      ['outbox_aggregate_id', 'aggregate_id', ['', 'x'.repeat(513), 'ä'.repeat(257)], ['x', 'ä'.repeat(256), ' ']],
      ['outbox_type', 'type', ['', 'x'.repeat(513)], ['x', 'Something happened, ä']],
      ['outbox_ordering_key', 'ordering_key', ['', 'x'.repeat(513)], [null, 'x']],
      ['outbox_version', 'version', [0, -1], [1, 2_147_483_647]],
      [
        'outbox_headers',
        'headers',
        [
          '[]',
          '"text"',
          'null',
          '1',
          '{"a":1}',
          '{"a":{}}',
          '{"a":null}',
          '{"":"x"}',
          '{"id":"x"}',
          '{"ok":"x","type":"x"}',
          '{"schema-version":"1"}',
          '{"millrace-":"x"}',
          '{"millrace-source":"x"}',
        ],
        [null, '{}', '{"traceparent":"00-a-b-01","Id":"x","types":"x","x-millrace-source":"x"}'],
      ],
      [
        'outbox_event_size',
        'payload',
        [JSON.stringify('x'.repeat(999_999))],
        [JSON.stringify('x'.repeat(999_998)), null, 'null'],
      ],
    ])('%s refuses at the writer what could never be relayed', async (constraint, column, refused, taken) => {
      for (const value of refused)
        await expect(insert({ [column]: value }), JSON.stringify(value).slice(0, 40)).rejects.toMatchObject({
          code: '23514',
          table: 'outbox',
          constraint,
        })
      for (const value of taken) await insert({ [column]: value })
    })

    test('says of a refused event what was expected, and nothing of what was in it', async () => {
      const refusal = await insert({ payload: '{"card":"4111"}', headers: '{"id":"secret"}' }).catch((error: unknown) => error)
      expect(refusal).toMatchObject({ message: expect.stringContaining('headers must be'), detail: undefined })
      expect(JSON.stringify(refusal)).not.toMatch(/4111|secret/)
    })

    test('its ids are of version 7 and sort by time', async () => {
      const ids = (
        await client.query(
          'select millrace.new_id()::text as id, extract(epoch from clock_timestamp()) * 1000 as ms, pg_sleep(0.002) from generate_series(1, 20)',
        )
      ).rows
      expect(ids.map(({ id }) => id)).toEqual(ids.map(({ id }) => id).sort())
      for (const { id, ms } of ids) {
        expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
        expect(Math.abs(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) - Number(ms))).toBeLessThan(20)
      }
    })

    test('emit writes the text as it is given and returns the id', async () => {
      const id = await one(
        `select millrace.emit(aggregate_type => 'order', aggregate_id => '42', type => 'OrderPlaced', payload => '{"total": 10.00,  "n":9007199254740993}')`,
      )
      const { rows } = await client.query('select *, payload::text as payload from millrace.outbox where id = $1', [id])
      expect(rows).toMatchObject([
        {
          aggregate_type: 'order',
          aggregate_id: '42',
          type: 'OrderPlaced',
          payload: '{"total": 10.00,  "n":9007199254740993}',
          headers: null,
          ordering_key: null,
          version: 1,
        },
      ])
      const own = '018f4e7e-0000-7000-8000-000000000001'
      expect(await one(`select millrace.emit('order', '42', 'X', 'null', '{"a":"b"}', 'key', 3, $1)`, [own])).toBe(own)
      expect(
        (await client.query('select payload::text, headers, ordering_key, version from millrace.outbox where id = $1', [own]))
          .rows,
      ).toEqual([{ payload: 'null', headers: { a: 'b' }, ordering_key: 'key', version: 3 }])
    })

    test('a null payload is a tombstone, and only tombstone makes one', async () => {
      await expect(client.query(`select millrace.emit('order', '42', 'X', null)`)).rejects.toMatchObject({
        code: '22004',
        hint: expect.stringContaining('tombstone'),
      })
      const id = await one(
        `select millrace.tombstone(aggregate_type => 'order', aggregate_id => '42', type => 'OrderErased', headers => '{"a":"b"}')`,
      )
      expect((await client.query('select payload, headers from millrace.outbox where id = $1', [id])).rows).toEqual([
        { payload: null, headers: { a: 'b' } },
      ])
    })

    test('a hostile search_path changes nothing', async () => {
      await client.query(`
        create schema hostile;
        create function hostile.never(text, text) returns boolean language sql as 'select false';
        create operator hostile.!~ (leftarg = text, rightarg = text, function = hostile.never);
        create operator hostile.~ (leftarg = text, rightarg = text, function = hostile.never);
        create function hostile.octet_length(text) returns int language sql as 'select 0';
        set search_path = hostile, pg_catalog`)
      await client.query(`select millrace.emit('order', '42', 'X', '{}')`)
      await expect(insert({ aggregate_type: 'a b' })).rejects.toMatchObject({ constraint: 'outbox_aggregate_type' })
    })
  })
})
