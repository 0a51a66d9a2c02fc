import pg from 'pg'
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import type { SourceSession } from '../../src/core/source.ts'
import { type HousekeepingOptions, startHousekeeping, sweep } from '../../src/postgres/housekeeping.ts'
import { migrate } from '../../src/postgres/migrate.ts'
import { eachPostgres, type TestDatabase } from './each-postgres.ts'
import { collectLog, connect, type LoggedLine, ROOM, session, sourceOn, uniqueName, until } from './outbox-fixture.ts'

const HOUR = 3_600_000
/** rows that say to be of long ago, with ids of that time */
const written = (hoursAgo: number, count: number): string => `
  insert into millrace.outbox (id, aggregate_type, aggregate_id, type, payload, created_at)
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(gen_random_uuid()::text, 16))::uuid,
    'order', '${hoursAgo} h', 'OrderPlaced', '{}', at
  from generate_series(1, ${count}) i, lateral (select now() - ${hoursAgo} * interval '1 hour' + i * interval '1 us' as at offset 0) t`

eachPostgres('housekeeping', (create) => {
  let database: TestDatabase
  let client: pg.Client
  let name: string
  let options: Omit<HousekeepingOptions, 'log'>
  beforeEach(async () => {
    database = await create()
    client = new pg.Client({ connectionString: database.url })
    await client.connect()
    await migrate(client)
    name = uniqueName()
    options = {
      connect: () => connected(database.url),
      table: { schema: 'millrace', name: 'outbox' },
      slot: `millrace_${name}`,
      retentionMs: HOUR,
      now: () => performance.now(),
      confirmWithinMs: 20_000,
    }
  })
  afterEach(async () => {
    await client.end()
    await database.drop()
  })

  /** What the relay does, as far as Postgres sees it: it reads, and confirms while it is let. */
  async function relay(): Promise<{ confirming: boolean; close(): Promise<void> }> {
    const source = sourceOn(database.url, { name })
    await source.init()
    const opened: SourceSession = await session(source)
    let last = 0n
    const self = {
      confirming: true,
      async close() {
        await opened.close()
        await reading
      },
    }
    const reading = (async () => {
      for (let batch = await opened.next(ROOM); batch !== null; batch = await opened.next(ROOM)) {
        last = batch.end ?? last
        if (self.confirming) opened.confirm(last)
      }
    })().catch(() => {})
    return self
  }
  const left = async (): Promise<Record<string, number>> => {
    const { rows } = await client.query('select aggregate_id, count(*)::int as count from millrace.outbox group by 1 order by 1')
    return Object.fromEntries(rows.map(({ aggregate_id, count }) => [aggregate_id, count]))
  }

  test('takes what was relayed and is past its retention, and nothing else', async () => {
    await relay()
    await client.query(written(2, 3))
    await client.query(written(0, 2))
    expect(await sweep({ ...options, full: false })).toEqual({ deleted: 3, outcome: 'done' })
    expect(await left()).toEqual({ '0 h': 2 })
    expect(await sweep({ ...options, full: true })).toEqual({ deleted: 0, outcome: 'done' })
  })

  test('a row of a transaction that stayed open past the retention waits for its own confirmation', async () => {
    const running = await relay()
    const late = await connect(database.url)
    await late.query('begin')
    await late.query(written(48, 1))
    await client.query(written(2, 1))
    expect(await sweep({ ...options, full: true })).toMatchObject({ deleted: 1 })

    running.confirming = false
    await late.query('commit')
    await client.query(written(2, 1))
    expect(await sweep({ ...options, full: true, confirmWithinMs: 1_000 })).toEqual({ deleted: 0, outcome: 'unconfirmed' })
    expect(await left()).toEqual({ '2 h': 1, '48 h': 1 })

    running.confirming = true
    await client.query(written(0, 1))
    expect(await sweep({ ...options, full: true })).toEqual({ deleted: 2, outcome: 'done' })
    expect(await left()).toEqual({ '0 h': 1 })
  })

  test('nothing goes while no relay holds the slot, whatever the slot says', async () => {
    await client.query(written(2, 1))
    const soon = { ...options, full: true, confirmWithinMs: 300 }
    expect(await sweep(soon)).toEqual({ deleted: 0, outcome: 'unconfirmed' })
    await (await relay()).close()
    // somebody made the slot anew, or moved it on: it is confirmed beyond a row that was never relayed
    await client.query('select pg_replication_slot_advance($1, pg_current_wal_lsn())', [options.slot])
    expect(await sweep(soon)).toEqual({ deleted: 0, outcome: 'unconfirmed' })
    expect(await left()).toEqual({ '2 h': 1 })
  })

  test('a fast pass ends where nothing is expired, a full one finds what lies behind', async () => {
    await relay()
    await client.query(written(0, 10_001))
    await client.query(
      `insert into millrace.outbox (id, aggregate_type, aggregate_id, type, created_at)
       values ('ffffffff-ffff-4fff-bfff-ffffffffffff', 'order', 'v4', 'X', now() - interval '2 h')`,
    )
    expect(await sweep({ ...options, full: false })).toEqual({ deleted: 0, outcome: 'done' })
    expect(await sweep({ ...options, full: true })).toEqual({ deleted: 1, outcome: 'done' })
    expect(await left()).toEqual({ '0 h': 10_001 })
  })

  test('one process at a time keeps the house', async () => {
    await relay()
    const other = await connect(database.url)
    await other.query("select pg_advisory_lock(hashtextextended('millrace.housekeeping.' || $1, 0))", [options.slot])
    await client.query(written(2, 1))
    expect(await sweep({ ...options, full: true })).toEqual({ deleted: 0, outcome: 'busy' })
    await other.end()
    await until(async () => (await sweep({ ...options, full: true })).deleted === 1, 'the lock went with its session')
  })

  test('an outbox of other names and types is kept as well', async () => {
    await client.query(`create table "Out Box" ("Key" bigint primary key, "At ""x" timestamptz);
      insert into "Out Box" select i, now() - interval '2 h' from generate_series(8, 12) i; insert into "Out Box" values (13, now())`)
    await relay()
    const other = { ...options, table: { schema: 'public', name: 'Out Box' }, columns: { id: 'Key', createdAt: 'At "x' } }
    expect(await sweep({ ...other, full: true })).toEqual({ deleted: 5, outcome: 'done' })
    await expect(sweep({ ...other, table: { schema: 'public', name: 'gone' }, full: true })).rejects.toMatchObject({
      code: 'MILLRACE_SCHEMA_OUTDATED',
    })
  })

  test('no writer waits more than a moment', async () => {
    await relay()
    await client.query(written(2, 12_000))
    // one that is in the middle of something, all the time
    const slow = await connect(database.url)
    await slow.query('begin')
    await slow.query(written(0, 1))
    const writer = await connect(database.url)
    let sweeping = true
    let longest = 0
    const swept = sweep({ ...options, full: false }).finally(() => {
      sweeping = false
    })
    while (sweeping) {
      const startedAt = performance.now()
      await writer.query("select millrace.tombstone('order', 'new', 'X')")
      longest = Math.max(longest, performance.now() - startedAt)
    }
    expect(await swept).toEqual({ deleted: 12_000, outcome: 'done' })
    expect(longest).toBeLessThan(1_000)
    await slow.query('commit')
  })

  test('what is deleted can be taken away by vacuum at once: nothing holds a snapshot, not while it waits either', async () => {
    const running = await relay()
    await client.query(written(2, 12_000))
    running.confirming = false
    const swept = sweep({ ...options, full: false })
    const waiting = async () =>
      (
        await client.query(`select count(*)::int as count from pg_stat_activity where application_name = 'millrace_housekeeping'
          and datname = current_database() and state = 'idle' and backend_xmin is null and query like '%confirmed_flush_lsn%'`)
      ).rows[0].count === 1
    await until(waiting, 'it waits for a confirmation')
    running.confirming = true
    await client.query(written(0, 1))
    expect(await swept).toMatchObject({ deleted: 12_000 })

    const notices: string[] = []
    client.on('notice', ({ message }) => notices.push(message ?? ''))
    await client.query('vacuum (verbose) millrace.outbox')
    expect(notices.join('\n')).toMatch(/tuples: \d+ removed, 1 remain, 0 are dead but not yet removable/)
  })

  test('a lock on the whole table is given up on within a second, so that nobody queues behind housekeeping', async () => {
    await relay()
    await client.query(written(2, 1))
    const ddl = await connect(database.url)
    await ddl.query('begin; lock table millrace.outbox in access exclusive mode')
    const startedAt = performance.now()
    await expect(sweep({ ...options, full: true })).rejects.toMatchObject({ code: '55P03' })
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    await ddl.query('rollback')
    expect(await sweep({ ...options, full: true })).toMatchObject({ deleted: 1 })
  })

  test('goes on after trouble until it is told to stop', async () => {
    await relay()
    await client.query(written(2, 1))
    const lines: LoggedLine[] = []
    const stop = new AbortController()
    onTestFinished(() => stop.abort())
    let attempts = 0
    const running = startHousekeeping({
      ...options,
      log: collectLog(lines),
      signal: stop.signal,
      random: () => 0,
      connect: () => (++attempts === 1 ? Promise.reject(new Error('no route')) : connected(database.url)),
    })
    await until(async () => Object.keys(await left()).length === 0, 'the row is gone')
    stop.abort()
    await running
    expect(lines).toContainEqual({ level: 'warn', message: 'housekeeping of the outbox failed and will be tried again' })
    expect(attempts).toBe(2)
  })
})

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  return client
}
