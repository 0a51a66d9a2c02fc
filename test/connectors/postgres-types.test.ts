import { existsSync } from 'node:fs'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { createDatabase } from '../support/database.ts'
import { at, openSink } from './postgres-fixture.ts'

/** type, the value as its JSON text, and the literal it must equal; the comparison is Postgres' own, on texts */
const VALUES = [
  ['bigint', '9007199254740993', '9007199254740993'],
  ['bigint', '"-9223372036854775808"', '-9223372036854775808'],
  ['numeric', '1.10', '1.10'],
  [
    'numeric',
    '123456789012345678901234567890.123456789012345678901234567890',
    '123456789012345678901234567890.123456789012345678901234567890',
  ],
  ['numeric', '"NaN"', 'NaN'],
  ['numeric', '1e400', `1${'0'.repeat(400)}`],
  ['numeric(10,2)', '1.1', '1.10'],
  ['float8', '0.1', '0.1'],
  ['float8', '"-Infinity"', '-Infinity'],
  ['float8', '1.7976931348623157e308', '1.7976931348623157e+308'],
  ['real', '16777217', '1.6777216e+07'],
  ['timestamptz', '"2026-11-21T10:00:00.123456Z"', '2026-11-21 10:00:00.123456+00'],
  ['timestamptz', '"2026-11-21T10:00:00.123456+05:30"', '2026-11-21 04:30:00.123456+00'],
  ['timestamptz', '"infinity"', 'infinity'],
  ['timestamp', '"0044-03-15 12:00:00 BC"', '0044-03-15 12:00:00 BC'],
  ['date', '"2026-03-29"', '2026-03-29'],
  ['date', '"-infinity"', '-infinity'],
  ['time', '"24:00:00"', '24:00:00'],
  ['interval', '"1 mon 2 days 03:04:05.000006"', '1 mon 2 days 03:04:05.000006'],
  ['bytea', '"\\\\x00ff10"', '\\x00ff10'],
  ['text', '"\\u0041\\u00e9\\ud83d\\ude00 \\"q\\" \\\\ \\n\\u0001"', 'Aé😀 "q" \\ \n\u0001'],
  ['text', '9007199254740993.10', '9007199254740993.10'],
  ['text', '{ "a" : [1.0,  9007199254740993] }', '{ "a" : [1.0,  9007199254740993] }'],
  ['varchar(3)', '"äöü"', 'äöü'],
  ['json', '{ "b" : 9007199254740993, "a":1.10, "b":2 }', '{ "b" : 9007199254740993, "a":1.10, "b":2 }'],
  ['json', '[ 1e400 ]', '[ 1e400 ]'],
  ['json', '"text"', '"text"'],
  ['jsonb', '{"big":9007199254740993,"exact":1.10}', '{"big": 9007199254740993, "exact": 1.10}'],
  ['jsonb', 'false', 'false'],
  ['jsonb', 'null', null],
  ['int[]', '[1,null,3]', '{1,NULL,3}'],
  ['bigint[]', '"{9007199254740993}"', '{9007199254740993}'],
  ['int[]', '[[1,2],[3,4]]', '{{1,2},{3,4}}'],
  ['text[]', '["a,b","\\"",""," "]', '{"a,b","\\"",""," "}'],
  ['jsonb[]', '[{"a":1.10},[2]]', '{"{\\"a\\": 1.10}",[2]}'],
  ['uuid', '"0197AAAA-0000-7000-8000-000000000001"', '0197aaaa-0000-7000-8000-000000000001'],
  ['boolean', 'true', 'true'],
  ['boolean', '"f"', 'false'],
  ['mood', '"sad"', 'sad'],
  ['positive', '"7"', '7'],
  ['pair', '{"x":9007199254740993,"y":"a"}', '(9007199254740993,a)'],
  ['inet', '"10.0.0.1/8"', '10.0.0.1/8'],
  ['int4range', '"[1,5)"', '[1,5)'],
  ['tsvector', '"a:1 b:2"', `'a':1 'b':2`],
  ['text', 'null', null],
] as const

/** type, a value that it does not take, its SQLSTATE */
const MISFITS = [
  ['int', '2147483648', '22003'],
  ['int', '1.5', '22P02'],
  ['int', '"secret"', '22P02'],
  ['float8', '1e400', '22003'],
  ['date', '"2026-02-30"', '22008'],
  ['text', '"\\u0000"', '22P05'],
  ['text', '"\\ud800"', '22P02'],
  ['varchar(3)', '"secret"', '22001'],
  ['int[]', '{"a":1}', '22P02'],
  ['uuid', 'true', '22P02'],
  ['mood', '"secret"', '22P02'],
  ['positive', '-1', '23514'],
  ['text not null', 'null', '23502'],
  ['jsonb', '"\\u0000"', '22P05'],
] as const

const DEBIAN_15 = '/usr/lib/postgresql/15/bin'

const servers: readonly (readonly [string, () => Promise<{ url: string; drop(): Promise<void> }>])[] = [
  ['the newest Postgres', () => createDatabase()],
  ...(existsSync(DEBIAN_15)
    ? [
        [
          'Postgres 15',
          async () => {
            const server = await startPostgresServer({ bin: DEBIAN_15, settings: { fsync: 'off' } })
            return { url: server.url(), drop: () => server.remove() }
          },
        ] as const,
      ]
    : []),
]

for (const [server, start] of servers)
  describe(`values in ${server}`, () => {
    let database: Awaited<ReturnType<typeof start>>
    let client: pg.Client
    let tables = 0

    beforeAll(async () => {
      database = await start()
      client = new pg.Client({ connectionString: database.url, options: '-c timezone=UTC' })
      await client.connect()
      await client.query(
        `create type mood as enum ('ok', 'sad'); create domain positive as int check (value > 0); create type pair as (x bigint, y text)`,
      )
    })
    afterAll(async () => {
      await client?.end()
      await database?.drop()
    })

    async function write(type: string, json: string): Promise<string> {
      const table = `t${tables++}`
      await client.query(`create table ${table} (id int primary key, v ${type}, _millrace_position text collate "C")`)
      const sink = await openSink(
        { url: database.url, tables: [{ from: 'order', into: table, key: 'id', on: { Changed: 'upsert' } }] },
        { sink: table },
      )
      try {
        await sink.init()
        const lane = await sink.claim(at(0))
        const stream = eventStream()
        const before = type.endsWith('not null') ? [] : [stream.next({ type: 'Changed', key: '1', payload: '{"id":1,"v":null}' })]
        const event = stream.next({ type: 'Changed', key: '2', payload: `{"id":2,"v":${json}}` })
        await lane.apply(batchOf([...before, event], 2n))
      } finally {
        await sink.close()
      }
      return table
    }

    it.each(VALUES)('%s takes %s as %s', async (type, json, expected) => {
      const table = await write(type, json)
      const { rows } = await client.query(`select v::text as v from ${table} where id = 2`)
      expect(rows).toEqual([{ v: expected }])
    })

    it.each(MISFITS)('%s refuses %s, by column and SQLSTATE, without the value', async (type, json, cause) => {
      const error: unknown = await write(type, json).catch((caught: unknown) => caught)
      expect(error).toMatchObject({ code: 'MILLRACE_EVENT_REJECTED', fields: { cause, column: 'v', type: 'Changed' } })
      expect(JSON.stringify(error) + String(error)).not.toContain('secret')
    })
  })
