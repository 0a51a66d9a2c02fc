import pg from 'pg'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { forgetMarkers } from '../../connectors/sinks/postgres/markers.ts'
import type { PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import type { Sink } from '../../src/core/sink.ts'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { at, ORDERS, openSink } from './postgres-fixture.ts'

let database: Database
let sinks: Sink[]

beforeEach(async () => {
  database = await createDatabase()
  sinks = []
})
afterEach(async () => {
  for (const sink of sinks) await sink.close()
  await database.drop()
})

async function open(options: Partial<PostgresSinkOptions> & Pick<PostgresSinkOptions, 'tables'>): Promise<Sink> {
  const sink = await openSink({ url: database.url, ...options })
  sinks.push(sink)
  await sink.init()
  return sink
}

const orders = async (): Promise<unknown[]> => (await database.query('select id, note from orders order by id')).rows
const changed = (key: string, note: string) => ({ type: 'Changed', key, payload: { id: key, total: 1, note } })
const erased = (key: string) => ({ type: 'Erased', key })

for (const guard of ['column', 'table'] as const)
  describe(`guard: ${guard}`, () => {
    const tables = [
      { from: 'order', into: 'orders', key: 'id', guard, on: { Changed: 'upsert', Paid: 'merge', Erased: 'delete' } },
    ] as const

    /** two lanes of one source whose events meet on the same keys: the second one's are all older */
    async function newerAndOlder() {
      await database.query(guard === 'column' ? ORDERS : ORDERS.replace(', _millrace_position text collate "C"', ''))
      const sink = await open({ tables })
      const lanes = [await sink.claim(at(0)), await sink.claim(at(1))] as const
      return { newer: lanes[0], older: lanes[1], later: eventStream({ firstCommit: 0x9000n }), earlier: eventStream() }
    }

    it('writes a row only from a position that is not older than the one it shows', async () => {
      const { newer, older, later, earlier } = await newerAndOlder()
      await newer.apply(batchOf([later.next(changed('a', 'new')), later.next(changed('b', 'new'))], 2n))
      await older.apply(
        batchOf(
          [
            earlier.next(changed('a', 'old')),
            earlier.next(erased('b')),
            earlier.next({ type: 'Paid', key: 'a', payload: { note: 'old' } }),
          ],
          3n,
        ),
      )
      expect(await orders()).toEqual([
        { id: 'a', note: 'new' },
        { id: 'b', note: 'new' },
      ])
    })

    it('does not bring back what a newer event deleted, and lets a newer one create it again', async () => {
      const { newer, older, later, earlier } = await newerAndOlder()
      await newer.apply(batchOf([later.next(erased('a')), later.next(erased('b'))], 2n))
      await older.apply(
        batchOf([earlier.next(changed('a', 'old')), earlier.next({ type: 'Paid', key: 'b', payload: { note: 'old' } })], 2n),
      )
      expect(await orders()).toEqual([])
      await newer.apply(batchOf([later.next(changed('a', 'created'))], 3n))
      await older.apply(batchOf([earlier.next(erased('a'))], 3n))
      expect(await orders()).toEqual([{ id: 'a', note: 'created' }])
    })

    it('repairs a row from the very position that it shows', async () => {
      const { newer, older, later } = await newerAndOlder()
      const event = later.next(changed('a', 'right'))
      await newer.apply(batchOf([event], 1n))
      await database.query(`update orders set note = 'damaged'`)
      await older.apply(batchOf([event], 1n))
      expect(await orders()).toEqual([{ id: 'a', note: 'right' }])
    })

    it('forgets old markers, and says below which position', async () => {
      const { newer, later } = await newerAndOlder()
      await newer.apply(
        batchOf(
          [later.next(changed('a', 'x')), later.next(erased('a')), later.next(erased('b')), later.next(changed('c', 'x'))],
          4n,
        ),
      )
      const below = (await database.query('select max(position) as p from millrace.deleted')).rows[0].p
      const pool = new pg.Pool({ connectionString: database.url, max: 1 })
      try {
        expect(await forgetMarkers(pool, 'millrace', 'replica', 60_000)).toBe(0)
        await database.query(`update millrace.deleted set deleted_at = deleted_at - interval '2 minutes'`)
        expect(await forgetMarkers(pool, 'millrace', 'another', 60_000)).toBe(0)
        expect(await forgetMarkers(pool, 'millrace', 'replica', 60_000)).toBe(2)
      } finally {
        await pool.end()
      }
      expect((await database.query('select key from millrace.deleted')).rows).toEqual([])
      expect((await database.query('select key from millrace.guard')).rows).toEqual(guard === 'table' ? [{ key: 'c' }] : [])
      expect((await database.query('select target, forgotten_below from millrace.target')).rows).toEqual([
        { target: 'public.orders', forgotten_below: below },
      ])
    })
  })

describe('lanes that meet in one table', () => {
  const LINES =
    'create table lines (owner text, line int, note text, _millrace_position text collate "C", primary key (owner, line))'
  const table = (from: string) =>
    ({ from, into: 'lines', key: ['owner', 'line'], on: { Set: 'upsert', Unset: 'delete' } }) as const
  const set = (type: string, key: string, line: number, note = '') => ({ type, key, payload: { owner: 'x', line, note } })

  it('do not deadlock, and end with the newest of each row', async () => {
    await database.query(LINES)
    const sink = await open({ tables: [table('order'), table('basket')] })
    const lanes = await Promise.all(
      ['order', 'basket'].map((from) => sink.claim({ topic: `outbox.event.${from}`, partition: 0 })),
    )
    const streams = [eventStream(), eventStream({ firstCommit: 0x1008n })]
    const newest = new Map<number, { position: string; note: string }>()
    await Promise.all(
      lanes.map(async (lane, side) => {
        for (let batch = 0; batch < 25; batch++) {
          const events = Array.from({ length: 40 }, (_, n) => {
            const line = side === 0 ? n : 39 - n
            const event = (streams[side] as (typeof streams)[number]).next(set('Set', `agg-${side}`, line, `${side}/${batch}`))
            const before = newest.get(line)
            if (before === undefined || before.position < event.position)
              newest.set(line, { position: event.position, note: `${side}/${batch}` })
            return event
          })
          await lane.apply(batchOf(events, BigInt((batch + 1) * 40)))
        }
      }),
    )
    const { rows } = await database.query('select line, note from lines order by line')
    expect(rows).toEqual([...newest].sort(([a], [b]) => a - b).map(([line, { note }]) => ({ line, note })))
    const { rows: stats } = await database.query('select deadlocks::int from pg_stat_database where datname = current_database()')
    expect(stats).toEqual([{ deadlocks: 0 }])
  })

  it('share a lock, so that an insert waits for a delete that saw no row', async () => {
    await database.query(LINES)
    const sink = await open({ tables: [table('order'), table('basket')], lockTimeout: 300 })
    const lane = await sink.claim({ topic: 'outbox.event.order', partition: 0 })
    const stream = eventStream()
    await lane.apply(batchOf([stream.next(set('Set', 'a', 1))], 1n))
    const other = new pg.Client({ connectionString: database.url })
    await other.connect()
    await other.query('begin')
    await other.query(`select from millrace.target where target = 'public.lines' for update`)
    const batch = batchOf([stream.next(set('Set', 'a', 2))], 2n)
    await expect(lane.apply(batch)).rejects.toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE', fields: { cause: '55P03' } })
    await other.query('commit')
    await other.end()
    await lane.apply(batch)
    expect((await database.query('select line from lines order by line')).rows).toEqual([{ line: 1 }, { line: 2 }])
  })
})
