import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { parsePosition } from '../../src/core/position.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { POSTGRES_15 } from '../support/machine.ts'
import { requires } from '../support/requires.ts'
import {
  connect,
  insert,
  insertMany,
  type LoggedLine,
  lastEnd,
  queryOnce,
  ROOM,
  read,
  SCHEMA,
  session,
  sourceOn,
  textOf,
  uniqueName,
  until,
  within,
} from './outbox-fixture.ts'

/** What a session promises, on a real server. */
function promises(server: () => Promise<{ readonly url: string; readonly done: () => Promise<void> }>): void {
  let url: string
  let done: () => Promise<void>
  beforeAll(async () => {
    ;({ url, done } = await server())
    await queryOnce(url, SCHEMA)
  })
  afterAll(() => done())

  let db: Awaited<ReturnType<typeof connect>>
  beforeEach(async () => {
    db = await connect(url)
  })

  async function started(options: Parameters<typeof sourceOn>[1] = {}, lines: LoggedLine[] = []) {
    const source = sourceOn(url, options, lines)
    await source.init()
    return source
  }

  test('a row arrives with its exact text, its place in commit order and its commit time', async () => {
    const source = await started()
    const opened = await session(source, 7)
    const before = Date.now()
    const payload = '{"total": 1.10,   "n": 9007199254740993, "z": "\\u0000ä"}'
    await db.query(
      `insert into millrace.outbox (id, aggregate_type, aggregate_id, type, payload, headers, ordering_key, version)
       values ('B6C5E0A2-0000-4000-8000-00000000000F', 'order', 'ä 42', 'OrderPlaced', $1, '{"a":"b"}', 'customer-1', 3)`,
      [payload],
    )
    const got = await read(opened, 1)
    const [change] = got.changes
    expect(change).toMatchObject({
      id: 'b6c5e0a2-0000-4000-8000-00000000000f',
      aggregateType: 'order',
      type: 'OrderPlaced',
      headers: '{"a":"b"}',
      version: '3',
    })
    expect(textOf(change?.payload ?? null)).toBe(payload)
    expect(textOf(change?.aggregateId ?? null)).toBe('ä 42')
    expect(textOf(change?.orderingKey ?? null)).toBe('customer-1')
    expect(change?.committedAt).toBeGreaterThanOrEqual(before - 50)
    expect(change?.committedAt).toBeLessThanOrEqual(Date.now() + 50)
    const { epoch, commitLsn, index } = parsePosition(change?.position ?? '')
    expect([epoch, index]).toEqual([7, 1])
    expect(commitLsn).toBeLessThan(lastEnd(got))
    expect(opened.walEnd).toBeGreaterThanOrEqual(lastEnd(got))
  })

  test('after a clean close the slot stands at exactly the end LSN, and is free', async () => {
    const source = await started()
    const opened = await session(source)
    await db.query(insert('1'))
    const got = await read(opened, 1)
    opened.confirm(lastEnd(got))
    await opened.close()
    expect(await source.slotStatus()).toMatchObject({ confirmed: lastEnd(got), activePid: null })
    expect(await opened.next(ROOM)).toBeNull()
  })

  test('confirming the first of two adjacent commits brings the second one again', async () => {
    const source = await started()
    const other = await connect(url)
    // the end of the first is the beginning of the second, unless something else wrote between them
    for (let attempt = 0; attempt < 50; attempt++) {
      const opened = await session(source)
      await db.query('begin')
      await other.query('begin')
      await db.query(insert('first'))
      await other.query(insert('second'))
      await db.query('commit')
      const first = await read(opened, 1)
      await other.query('commit')
      const second = await read(opened, 1)
      const position = second.changes[0]?.position as string
      const adjacent = lastEnd(first) === parsePosition(position).commitLsn
      opened.confirm(adjacent ? lastEnd(first) : lastEnd(second))
      await opened.close()
      if (!adjacent) continue
      const again = await read(await session(source), 1)
      expect(again.changes.map((change) => change.position)).toEqual([position])
      return
    }
    throw new Error('no two adjacent commits in 50 attempts')
  })

  test('nothing is confirmed that was only received', async () => {
    const source = await started({ statusIntervalMs: 20 })
    const before = (await source.slotStatus())?.confirmed
    const opened = await session(source)
    await db.query(insert('1'))
    await db.query(insert('2'))
    const got = await read(opened, 2)
    const sent = await replied(db, source)
    await until(async () => (await replied(db, source)) > sent, 'status updates go out')
    expect((await source.slotStatus())?.confirmed).toBe(before)
    await opened.close()
    expect((await source.slotStatus())?.confirmed).toBe(before)
    const again = await read(await session(source), 2)
    expect(again.changes.map(({ position }) => position)).toEqual(got.changes.map(({ position }) => position))
  })

  test('a transaction that was cut comes again, whole, at the same positions', async () => {
    const source = await started()
    const opened = await session(source)
    await db.query(insert('before'))
    const before = await read(opened, 1)
    await db.query(insertMany(10))
    const cut = await read(opened, 4, { untilEnd: false, limit: { maxChanges: 4, maxBytes: 1e6 } })
    expect(cut.changes).toHaveLength(4)
    expect(cut.batches.every(({ end }) => end === null || end <= parsePosition(cut.changes[0]?.position ?? '').commitLsn)).toBe(
      true,
    )
    opened.confirm(lastEnd(before))
    await opened.close()
    const again = await read(await session(source), 10)
    expect(again.changes).toHaveLength(10)
    expect(again.changes.slice(0, 4).map(({ position }) => position)).toEqual(cut.changes.map(({ position }) => position))
    expect(again.changes.map(({ position }) => parsePosition(position).index)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  })

  test('interleaved transactions arrive in commit order, at growing positions', async () => {
    const source = await started()
    const opened = await session(source)
    const writers = await Promise.all([connect(url), connect(url), connect(url), connect(url)])
    await Promise.all(
      writers.map(async (writer, w) => {
        for (let t = 0; t < 25; t++) {
          await writer.query('begin')
          for (let i = 0; i < 3; i++) await writer.query(insert(`${w}-${t}-${i}`))
          await writer.query(t % 5 === 4 ? 'rollback' : 'commit')
        }
      }),
    )
    const { changes } = await read(opened, 4 * 20 * 3)
    const positions = changes.map(({ position }) => position)
    expect(positions).toEqual([...positions].sort())
    expect(new Set(positions).size).toBe(240)
    for (let w = 0; w < 4; w++) {
      const own = changes.map(({ aggregateId }) => textOf(aggregateId) as string).filter((id) => id.startsWith(`${w}-`))
      expect(own).toEqual(
        Array.from({ length: 25 }, (_, t) => t)
          .filter((t) => t % 5 !== 4)
          .flatMap((t) => [0, 1, 2].map((i) => `${w}-${t}-${i}`)),
      )
    }
  })

  test('keepalives advance the slot of a database that only writes elsewhere', async () => {
    const source = await started()
    const opened = await session(source)
    const before = (await source.slotStatus())?.confirmed as bigint
    await db.query('create table if not exists elsewhere (x int)')
    await db.query('insert into elsewhere select generate_series(1, 20000)')
    let end = 0n
    while (end < before + 1_000_000n) {
      const batch = await within(20_000, opened.next(ROOM), 'an end behind the unpublished writes')
      expect(batch?.changes).toEqual([])
      end = batch?.end as bigint
    }
    opened.confirm(end)
    await until(
      async () => (await source.slotStatus())?.confirmed === end,
      'the slot stands at the end of the unpublished writes',
    )
  })

  test('a table that changes its shape among the rows is read by its newest shape', async () => {
    const table = uniqueName()
    const outbox = {
      table,
      columns: { id: 'id', aggregateType: 'aggregatetype', aggregateId: 'aggregateid', type: 'type', payload: 'payload' },
    }
    await db.query(`create table ${table} (id uuid, aggregatetype text, aggregateid text, type text, payload json)`)
    const write = (id: string): Promise<unknown> =>
      db.query(
        `insert into ${table} (id, aggregatetype, aggregateid, type, payload) values (gen_random_uuid(), 'order', '${id}', 'T', '"${id}"')`,
      )
    const source = await started({ outbox })
    const opened = await session(source)
    await db.query('begin')
    await write('1')
    await db.query(`alter table ${table} add column note text default 'x'`)
    await write('2')
    await db.query(`alter table ${table} drop column note`)
    await db.query(`alter table ${table} alter column aggregateid type varchar(100)`)
    await write('3')
    await db.query('commit')
    await db.query(`truncate ${table}`)
    await write('4')
    const { changes } = await read(opened, 4)
    expect(changes.map(({ payload }) => textOf(payload))).toEqual(['"1"', '"2"', '"3"', '"4"'])

    await db.query(`alter table ${table} rename column type to kind`)
    await db.query(`insert into ${table} (id, aggregatetype, aggregateid, kind) values (gen_random_uuid(), 'order', '5', 'T')`)
    await expect(read(opened, 1)).rejects.toMatchObject({
      code: 'MILLRACE_OUTBOX_ROW_INVALID',
      message: expect.stringContaining('column type of public.'),
    })
  })

  test.each([
    ['jsonb', `'{"b": 1, "a": 1.10}'`, '{"a": 1.10, "b": 1}'],
    ['text', `'not json at all'`, 'not json at all'],
    ['bytea', `'\\x00ff80'::bytea`, null],
  ])("Debezium's outbox with a payload of type %s is read where the columns are mapped", async (type, written, expected) => {
    const table = uniqueName()
    await db.query(
      `create table ${table} (id uuid primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null, type varchar(255) not null, payload ${type})`,
    )
    const source = await started({
      outbox: {
        table: `public.${table}`,
        columns: {
          id: 'id',
          aggregateType: 'aggregatetype',
          aggregateId: 'aggregateid',
          type: 'type',
          payload: 'payload',
          headers: null,
        },
      },
    })
    // a role's own output settings must not change what is captured
    await db.query(`alter role postgres set bytea_output = 'escape'`)
    try {
      const opened = await session(source)
      await db.query(
        `insert into ${table} values (gen_random_uuid(), 'order', '1', 'T', ${written}), (gen_random_uuid(), 'order', '2', 'T', null)`,
      )
      const { changes } = await read(opened, 2)
      if (expected === null) expect(changes[0]?.payload).toEqual(Buffer.from([0, 0xff, 0x80]))
      else expect(textOf(changes[0]?.payload ?? null)).toBe(expected)
      expect(changes[1]).toMatchObject({ payload: null, headers: null, orderingKey: null, version: '1' })
    } finally {
      await db.query('alter role postgres reset bytea_output')
    }
  })

  test('one session holds the slot; the next one gets it when it is given back', async () => {
    const source = await started()
    const first = await session(source)
    await expect(session(source)).rejects.toMatchObject({ code: 'MILLRACE_SLOT_IN_USE' })
    await first.close()
    await session(source)
  })

  test('a publication that sends more than inserts of the outbox: the rest is passed over and told, and nothing more may be confirmed', async () => {
    const table = uniqueName()
    await db.query(`create table ${table} (like millrace.outbox)`)
    await db.query(`alter table ${table} replica identity full`)
    const outbox = {
      table,
      columns: { id: 'id', aggregateType: 'aggregate_type', aggregateId: 'aggregate_id', type: 'type', payload: 'payload' },
    }
    const publication = `"${table} 'quoted'"`
    const lines: LoggedLine[] = []
    const source = await started({ outbox, publication: `${table} 'quoted'` }, lines)
    const opened = await session(source)
    await opened.intact()
    await db.query(`alter publication ${publication} set (publish = 'insert, truncate')`)
    await db.query(`truncate ${table}`)
    await db.query(
      `insert into ${table} (id, aggregate_type, aggregate_id, type, version, created_at) values (gen_random_uuid(), 'order', 'after', 'T', 1, now())`,
    )
    const { changes } = await read(opened, 1)
    expect(changes.map(({ aggregateId }) => textOf(aggregateId))).toEqual(['after'])
    expect(lines).toContainEqual({ level: 'warn', message: expect.stringMatching(/sends truncates .* passed over/) })
    await expect(opened.intact()).rejects.toMatchObject({ code: 'MILLRACE_STREAM_BROKEN' })
  })

  test('a transaction of 60,000 rows streams through bounded memory, also when its reader takes its time', async () => {
    const source = await started({ bufferBytes: 2 << 20 })
    const opened = await session(source)
    await db.query(insertMany(60_000, 400))
    await read(opened, 1, { untilEnd: false, limit: { maxChanges: 1, maxBytes: 1 } })
    const before = process.memoryUsage().arrayBuffers
    await stillness(() => process.memoryUsage().arrayBuffers)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 << 20)
    let index = 1
    while (index < 60_000) {
      const batch = await within(20_000, opened.next({ maxChanges: 1_000, maxBytes: 1 << 20 }), `row ${index}`)
      const indexes = batch?.changes.map(({ position }) => parsePosition(position).index) ?? []
      expect(indexes).toEqual(indexes.map(() => ++index))
    }
  })
}

describe('a session on Postgres 18', () =>
  promises(async () => {
    const database: Database = await createDatabase()
    return { url: database.url, done: () => database.drop() }
  }))

requires('postgres15')('a session on Postgres 15', () =>
  promises(async () => {
    const server: PostgresServer = await startPostgresServer({ bin: POSTGRES_15, settings: { fsync: 'off' } })
    return { url: server.url(), done: () => server.remove() }
  }),
)

/** when the walsender last heard a status update, as the server says (ms) */
async function replied(db: Awaited<ReturnType<typeof connect>>, source: Awaited<ReturnType<typeof sourceOn>>): Promise<number> {
  const { rows } = await db.query('select reply_time from pg_stat_replication where application_name = $1', [
    `millrace_${source.name}`,
  ])
  return Number(rows[0]?.reply_time ?? 0)
}

/** Resolves when a value has stopped growing. */
async function stillness(value: () => number): Promise<void> {
  let last = value()
  let same = 0
  await until(() => {
    const now = value()
    same = now <= last ? same + 1 : 0
    last = Math.max(last, now)
    return same >= 20
  }, 'a value that has stopped growing')
}
