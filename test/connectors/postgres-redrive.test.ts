import pg from 'pg'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { forgetMarkers } from '../../connectors/sinks/postgres/markers.ts'
import { orderOf } from '../../src/core/event.ts'
import type { Parking, Sink } from '../../src/core/sink.ts'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { at, ORDERS, openSink } from './postgres-fixture.ts'

const BY = { actor: 'ada', note: null }
const REASON = { code: 'MILLRACE_EVENT_REJECTED', message: 'as it was' }

let database: Database
let sink: Sink

beforeEach(async () => {
  database = await createDatabase()
  await database.query(ORDERS)
  const on = { Changed: 'upsert', Erased: 'delete' } as const
  sink = await openSink({ url: database.url, tables: [{ from: 'order', into: 'orders', key: 'id', on }] })
  await sink.init()
})
afterEach(async () => {
  await sink.close()
  await database.drop()
})

const changed = (key: string, note: string) => ({ type: 'Changed', key, payload: { id: key, total: 1, note } })

it('a redrive waits for what the owner of the partition has under way, or both would write one row unseen by each other', async () => {
  const lane = await sink.claim(at(0))
  const stream = eventStream()
  // two keys of the queue that make one row: the later one is not parked behind the earlier
  const parked = { ...stream.next(changed('a', 'late')), orderingKey: 'tenant' }
  await lane.apply(batchOf([], 1n, [{ event: parked, offset: 0n, reason: REASON }]))
  const other = new pg.Client({ connectionString: database.url })
  await other.connect()
  try {
    // holds the owner's transaction open after it has looked for the row that it deletes
    await other.query('begin')
    await other.query(`insert into orders (id) values ('held')`)
    const applied = lane.apply(batchOf([stream.next({ type: 'Erased', key: 'a' }), stream.next(changed('held', 'too'))], 3n))
    await waiting(1)
    const redriven = (sink.parking as Parking).redrive({ ...at(0), order: orderOf(parked) }, BY)
    await waiting(2)
    await other.query('rollback')
    await applied
    expect(await redriven).toMatchObject({ applied: 1, remaining: 0 })
  } finally {
    await other.end()
  }
  expect((await database.query('select id from orders')).rows).toEqual([{ id: 'held' }])
})

/** so many of the sink's transactions wait for a lock */
const waiting = (count: number) =>
  eventually(
    async () => {
      const { rows } = await database.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      )
      return rows.length === count
    },
    { what: `${count} transactions wait for a lock` },
  )

it('a redrive finds the markers that were made since its event was parked, however old', async () => {
  const lane = await sink.claim(at(0))
  const stream = eventStream()
  // two keys of the queue that make one row: the later one is not parked behind the earlier
  const parked = { ...stream.next(changed('a', 'late')), orderingKey: 'tenant' }
  await lane.apply(batchOf([], 1n, [{ event: parked, offset: 0n, reason: REASON }]))
  await lane.apply(batchOf([stream.next({ type: 'Erased', key: 'a' })], 2n))
  await database.query(`update millrace.deleted set deleted_at = deleted_at - interval '1 year'`)
  const pool = new pg.Pool({ connectionString: database.url, max: 1 })
  try {
    await forgetMarkers(pool, 'millrace', 'replica', 60_000)
  } finally {
    await pool.end()
  }
  await (sink.parking as Parking).redrive({ ...at(0), order: orderOf(parked) }, BY)
  expect((await database.query('select id from orders')).rows).toEqual([])
})
