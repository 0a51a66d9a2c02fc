// Over 400 lines, because it is the whole of parking in Postgres beyond the contract, over one fixture.
import fc from 'fast-check'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import { codeOf } from '../../src/core/errors.ts'
import { type Event, orderOf } from '../../src/core/event.ts'
import type { Lane, ParkedEvent, Parking, Sink } from '../../src/core/sink.ts'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
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

const tables: PostgresSinkOptions['tables'] = [
  { from: 'order', into: 'orders', key: 'id', on: { Changed: 'upsert', Erased: 'delete' } },
]
const BY = { actor: 'ada', note: null }
const REASON = { code: 'MILLRACE_EVENT_REJECTED', message: 'it does not fit' }
const FIT = ORDERS.replace('note text', `note text constraint fit check (note <> 'unfit')`)

async function open(options: Partial<PostgresSinkOptions> = {}): Promise<Sink & { readonly parking: Parking }> {
  const sink = await openSink({ url: database.url, tables, ...options })
  sinks.push(sink)
  await sink.init()
  return sink as Sink & { readonly parking: Parking }
}

const changed = (key: string, note: string | null = null) => ({ type: 'Changed', key, payload: { id: key, total: 1, note } })
const waiting = (events: readonly Event[], offset = 0n): ParkedEvent[] => {
  const keys = new Set<string>()
  return events.map((event, index) => {
    const order = orderOf(event)
    const reason = keys.has(order) ? null : REASON
    keys.add(order)
    return { event, offset: offset + BigInt(index), reason }
  })
}
const rows = async (): Promise<Record<string, string>> =>
  Object.fromEntries((await database.query('select id, note from orders')).rows.map(({ id, note }) => [id, note]))

/** so many of the sink's transactions wait for a lock */
const lockedOut = (count: number) =>
  eventually(
    async () => {
      const { rows } = await database.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      )
      return rows.length === count
    },
    { what: `${count} transactions wait for a lock` },
  )

describe('the limit', () => {
  it('of keys halts the partition, says what fills it and by which failure most, and nothing was done', async () => {
    await database.query(FIT)
    const sink = await open({ parking: { maxKeys: 2 } })
    const [lane, other] = [await sink.claim(at(0)), await sink.claim(at(1))]
    const [stream, second] = [eventStream(), eventStream({ firstCommit: 0x9000n })]
    const first = [stream.next(changed('a')), stream.next(changed('b'))]
    const hole = { code: 'MILLRACE_EVENT_TOO_LARGE', message: 'it could not be published whole' }
    await lane.apply(
      batchOf(
        [],
        2n,
        waiting(first).map((one, index) => (index === 0 ? { ...one, reason: hole } : one)),
      ),
    )
    const event = second.next(changed('c', 'secret'))
    const error: unknown = await other
      .apply(batchOf([second.next(changed('d'))], 2n, waiting([event])))
      .catch((caught: unknown) => caught)
    expect(error).toMatchObject({
      code: 'MILLRACE_PARKING_FULL',
      message: expect.stringContaining('2 of the 3 keys wait for MILLRACE_EVENT_REJECTED, the latest because it does not fit'),
      remedy: expect.stringContaining('millrace parked redrive replica --all'),
      fields: {
        sink: 'replica',
        topic: 'outbox.event.order',
        partition: 1,
        keys: 2,
        events: 2,
        code: 'MILLRACE_EVENT_REJECTED',
        keysOfCode: 2,
      },
    })
    expect(String(error)).not.toContain('secret')
    expect(await other.reread()).toMatchObject({ offset: null, parked: new Set() })
    expect(await rows()).toEqual({})
    // what follows of a key that is parked is no key more
    await lane.apply(batchOf([], 3n, [{ event: stream.next(changed('a')), offset: 2n, reason: null }]))
    expect(await sink.parking.totals()).toMatchObject({ keys: 2, events: 3 })
    await sink.parking.redrive({ ...at(0), order: 'shop/a' }, BY)
    await other.apply(batchOf([], 1n, waiting([event])))
  })

  it('of bytes counts all that is parked, and what is applied goes off it', async () => {
    await database.query(ORDERS)
    const sink = await open({ parking: { maxBytes: 5_000 } })
    const lane = await sink.claim(at(0))
    const stream = eventStream()
    const [first, next] = [stream.next(changed('a', 'x'.repeat(3_000))), stream.next(changed('a', 'y'.repeat(3_000)))]
    await lane.apply(batchOf([], 1n, waiting([first])))
    const behind = batchOf([], 2n, [{ event: next, offset: 1n, reason: null }])
    await expect(lane.apply(behind)).rejects.toMatchObject({ code: 'MILLRACE_PARKING_FULL' })
    expect(await sink.parking.totals()).toMatchObject({ keys: 1, events: 1 })
    await sink.parking.redrive({ ...at(0), order: 'shop/a' }, BY)
    expect(await sink.parking.totals()).toEqual({ keys: 0, events: 0, bytes: 0 })
    await lane.reread()
    await lane.apply(batchOf([], 2n, waiting([next], 1n)))
  })

  it('is none with parking: false, and what is parked from before is not overtaken', async () => {
    await database.query(ORDERS)
    const sink = await open()
    const stream = eventStream()
    const event = stream.next(changed('a'))
    await (await sink.claim(at(0))).apply(batchOf([], 1n, waiting([event])))
    const without = await open({ parking: false })
    expect(without.parking).toBeNull()
    await expect(without.claim(at(0))).rejects.toMatchObject({
      code: 'MILLRACE_SINK_NOT_READY',
      remedy: expect.stringContaining('millrace parked redrive replica --all'),
    })
    await without.claim(at(1))
    await sink.parking.redrive({ ...at(0), order: 'shop/a' }, BY)
    await (await without.claim(at(0))).apply(batchOf([stream.next(changed('a', 'flows'))], 2n))
    expect(await rows()).toEqual({ a: 'flows' })
  })
})

it('a database that cannot write down an event parks it whole', async () => {
  await database.query(`create database ${database.name}_latin encoding 'LATIN1' locale 'C' template template0`)
  const url = new URL(database.url)
  url.pathname += '_latin'
  const latin = new pg.Client(url.href)
  await latin.connect()
  try {
    await latin.query(ORDERS)
    const sink = await open({ url: url.href })
    const lane = await sink.claim(at(0))
    const stream = eventStream()
    const event: Event = {
      ...stream.next({ ...changed('a', '渠'), headers: [['水車', Buffer.from('渠')]] }),
      orderingKey: '渠\u0000',
      version: '版',
    }
    await expect(lane.apply(batchOf([event], 1n))).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_REJECTED',
      fields: { position: event.position },
    })
    await lane.apply(batchOf([], 1n, [{ event, offset: 0n, reason: { ...REASON, message: '渠' } }]))
    const key = { ...at(0), order: orderOf(event) }
    expect((await sink.parking.events(key, 1))[0]).toMatchObject({ event, reason: { message: '渠' } })
    expect(await sink.parking.redrive(key, { actor: '渠', note: '渠' })).toMatchObject({ applied: 0, remaining: 1 })
    expect(await sink.parking.skip(key, event.position, BY)).toMatchObject({ remaining: 0 })
    expect((await sink.parking.audit(2))[1]).toMatchObject({ actor: '渠', note: '渠', order: key.order })
  } finally {
    await latin.end()
    for (const sink of sinks.splice(0)) await sink.close()
    await database.query(`drop database ${database.name}_latin`)
  }
})

it('a delete is not forgotten while something older is parked that would bring its row back', async () => {
  await database.query(ORDERS)
  const sink = await open({ markerRetention: 1 })
  const lane = await sink.claim(at(0))
  const stream = eventStream()
  const event = (key: string): Event => ({ ...stream.next(changed(key, 'old')), orderingKey: 'tenant' })
  const before = stream.next({ type: 'Erased', key: 'before' })
  const parked = [event('a'), event('b')]
  await lane.apply(
    batchOf([before, stream.next({ type: 'Erased', key: 'a' }), stream.next(changed('c', '1'))], 5n, waiting(parked)),
  )
  // each claim begins with markers that nobody has looked at
  const forgetting = async (): Promise<void> => {
    const other = await open({ markerRetention: 1 })
    await (await other.claim(at(1))).apply({ ...batchOf([], 1n) })
    await other.close()
    sinks.pop()
  }
  await forgetting()
  const markers = async () => (await database.query('select key from millrace.deleted order by key')).rows.map(({ key }) => key)
  expect(await markers()).toEqual(['a'])
  await sink.parking.redrive({ ...at(0), order: 'shop/tenant' }, BY)
  expect(await rows()).toEqual({ b: 'old', c: '1' })
  await forgetting()
  expect(await markers()).toEqual([])
})

it('a constraint that is deferred to the commit keeps a key parked all the same', async () => {
  await database.query(
    `create table parents (name text primary key); ${ORDERS.replace('note text', 'note text references parents deferrable initially deferred')}`,
  )
  const sink = await open()
  const lane = await sink.claim(at(0))
  const stream = eventStream()
  await lane.apply(batchOf([], 1n, waiting([stream.next(changed('a', 'nobody'))])))
  const key = { ...at(0), order: 'shop/a' }
  expect(await sink.parking.redrive(key, BY)).toMatchObject({ remaining: 1, reason: { code: 'MILLRACE_EVENT_CONFLICT' } })
  await database.query(`insert into parents values ('nobody')`)
  expect(await sink.parking.redrive(key, BY)).toMatchObject({ applied: 1, remaining: 0 })
})

it('a redrive into a table that several partitions write waits for whoever writes it', async () => {
  await database.query(ORDERS)
  const shared: PostgresSinkOptions['tables'] = [
    { from: 'order', into: 'orders', key: 'id', keyFrom: 'payload', on: { Changed: 'upsert' } },
  ]
  const sink = await open({ tables: shared })
  const lane = await sink.claim(at(0))
  const stream = eventStream()
  const before = stream.next(changed('b', 'x'))
  await lane.apply(batchOf([before], 2n, waiting([stream.next(changed('a', 'x'))], 1n)))
  const other = new pg.Client(database.url)
  await other.connect()
  try {
    // as a lane of another partition does, before it writes
    await other.query(`begin; select from millrace.target where target = 'public.orders' for update`)
    const redriven = sink.parking.redrive({ ...at(0), order: 'shop/a' }, BY)
    await lockedOut(1)
    expect(await rows()).toEqual({ b: 'x' })
    await other.query('rollback')
    expect(await redriven).toMatchObject({ applied: 1, remaining: 0 })
  } finally {
    await other.end()
  }
})

it('two who redrive one key apply each event once, though both had read it before either began', async () => {
  await database.query(FIT)
  const sink = await open()
  const lane = await sink.claim(at(0))
  const stream = eventStream()
  const events = ['x', 'x', 'unfit', 'x'].map(
    (note, index): Event => ({ ...stream.next(changed(`${index}`, note)), orderingKey: 'tenant' }),
  )
  await lane.apply(batchOf([], 4n, waiting(events)))
  const key = { ...at(0), order: 'shop/tenant' }
  const other = new pg.Client(database.url)
  await other.connect()
  try {
    await other.query('begin; select from millrace.checkpoint for update')
    const redriven = [sink.parking.redrive(key, BY), sink.parking.redrive(key, BY)]
    await lockedOut(2)
    await other.query('rollback')
    const ends = await Promise.all(redriven)
    expect(ends.map(({ applied, remaining }) => ({ applied, remaining })).sort((a, b) => a.applied - b.applied)).toEqual([
      { applied: 0, remaining: 2 },
      { applied: 2, remaining: 2 },
    ])
  } finally {
    await other.end()
  }
  expect(await sink.parking.totals()).toMatchObject({ keys: 1, events: 2 })
  expect(await sink.parking.events(key, 9)).toHaveLength(2)
})

it('a redrive needs one connection, and names the column whose value does not fit', async () => {
  await database.query(ORDERS)
  const sink = await open({ poolSize: 1 })
  const lane = await sink.claim(at(0))
  const bad = eventStream().next({ type: 'Changed', key: 'a', payload: { id: 'a', total: 'much', note: 'x' } })
  await lane.apply(batchOf([], 1n, waiting([bad])))
  const { reason } = await sink.parking.redrive({ ...at(0), order: 'shop/a' }, BY)
  expect(reason?.message).toContain('column total, table public.orders, 22P02')
})

it('a table whose column is gone parks nothing more and loses nothing: a redrive fails, and says what to do', async () => {
  await database.query(ORDERS)
  const sink = await open()
  const lane = await sink.claim(at(0))
  await lane.apply(batchOf([], 1n, waiting([eventStream().next(changed('a'))])))
  await database.query('drop table orders')
  await expect(sink.parking.redrive({ ...at(0), order: 'shop/a' }, BY)).rejects.toMatchObject({ code: 'MILLRACE_SINK_NOT_READY' })
  expect(await sink.parking.totals()).toMatchObject({ keys: 1, events: 1 })
  expect(await sink.parking.audit(1)).toEqual([])
})

it('a key of many events is redriven in portions, in one record', async () => {
  await database.query(FIT)
  const sink = await open()
  const lane = await sink.claim(at(0))
  const stream = eventStream()
  const events = Array.from(
    { length: 1_300 },
    (_, index): Event => ({ ...stream.next(changed(`${index}`, index === 1_205 ? 'unfit' : 'x')), orderingKey: 'tenant' }),
  )
  await lane.apply(batchOf([], 1_300n, waiting(events)))
  const key = { ...at(0), order: 'shop/tenant' }
  expect(await sink.parking.redrive(key, BY)).toMatchObject({
    applied: 1_205,
    remaining: 95,
    reason: { code: 'MILLRACE_EVENT_REJECTED' },
  })
  expect(await sink.parking.keys(9)).toMatchObject([{ position: events[1_205]?.position, events: 95 }])
  const { rows: left } = await database.query(
    'select count(*)::int as events, sum(bytes)::int as bytes from millrace.parked_event',
  )
  expect(await sink.parking.totals()).toEqual({ keys: 1, ...left[0] })
  expect(await sink.parking.audit(9)).toMatchObject([{ applied: 1_205, remaining: 95 }])
  await database.query('alter table orders drop constraint fit')
  expect(await sink.parking.redrive(key, BY)).toMatchObject({ applied: 95, remaining: 0 })
  expect(Object.keys(await rows())).toHaveLength(1_300)
})

describe('a connection that breaks at any byte', () => {
  it('leaves a batch that parks, and a redrive, done or not done', async () => {
    await database.query(ORDERS)
    const url = new URL(database.url)
    const proxy = await startTcpProxy({ port: Number(url.port) })
    url.port = String(proxy.port)
    try {
      const sink = await open({ url: url.href, statementTimeout: '5s' })
      const direct = await open()
      let partition = 0
      await fc.assert(
        fc.asyncProperty(fc.nat(3_000), fc.nat(120), fc.boolean(), async (toServer, toClient, sending) => {
          const place = at(partition++)
          const key = (name: string): string => `p${place.partition}-${name}`
          const lane = await sink.claim(place)
          const stream = eventStream()
          const parked = [
            stream.next(changed(key('a'), '1')),
            stream.next(changed(key('a'), '2')),
            stream.next(changed(key('b'), '1')),
          ]
          const batch = batchOf([stream.next(changed(key('c'), '1'))], 4n, waiting(parked))
          const cut = (): void =>
            void (sending ? proxy.cutAfter(toServer + 1, 'to-server') : proxy.cutAfter(toClient + 1, 'to-client'))
          cut()
          const failed = await lane.apply(batch).then(() => null, codeOf)
          proxy.restore()
          const orders = new Set([`shop/${key('a')}`, `shop/${key('b')}`])
          const checkpoint = await eventually(() => lane.reread(), { what: 'the checkpoint can be read again' })
          if (failed === null || checkpoint.offset === 4n) expect(checkpoint).toMatchObject({ offset: 4n, parked: orders })
          else {
            expect(checkpoint).toMatchObject({ offset: null, parked: new Set() })
            await lane.apply(batch)
          }
          cut()
          await sink.parking.redrive({ ...place, order: `shop/${key('a')}` }, BY).catch(() => {})
          proxy.restore()
          const { parked: left } = await eventually(() => lane.reread(), { what: 'the checkpoint can be read again' })
          const stored = await direct.parking.events({ ...place, order: `shop/${key('a')}` }, 9)
          const shown = (await rows())[key('a')]
          expect({ stored: stored.length, shown, parked: left.size }).toEqual(
            left.size === 2 ? { stored: 2, shown: undefined, parked: 2 } : { stored: 0, shown: '2', parked: 1 },
          )
          if (left.size === 2) await direct.parking.redrive({ ...place, order: `shop/${key('a')}` }, BY)
          expect((await direct.parking.audit(1_000)).filter((one) => one.partition === place.partition)).toHaveLength(1)
        }),
        { numRuns: 40, endOnFailure: true },
      )
    } finally {
      for (const sink of sinks.splice(0)) await sink.close()
      await proxy.remove()
    }
  }, 120_000)
})

it('a replica equals its history while people redrive what its owner parks', async () => {
  await database.query(FIT)
  await database.query('create table customers (name text primary key, note text, _millrace_position text collate "C")')
  const shared: PostgresSinkOptions['tables'] = [
    ...tables,
    // several keys of several partitions write one row: their transactions share its lock
    {
      from: 'order',
      into: 'customers',
      key: 'name',
      keyFrom: 'payload',
      columns: { name: 'total' },
      on: { Changed: 'upsert', Erased: 'ignore' },
    },
  ]
  const sink = await open({ tables: shared })
  const people = await Promise.all([open({ tables: shared }), open({ tables: shared })])
  let done = false
  const redriving = people.map(async ({ parking }) => {
    while (!done)
      for (const key of await parking.keys(10))
        await parking.redrive(key, BY).catch((error: unknown) => expect(codeOf(error)).toBe('MILLRACE_NOT_PARKED'))
  })
  const expected: Record<string, string> = {}
  const owner = async (partition: number): Promise<void> => {
    let lane: Lane = await sink.claim(at(partition))
    let { parked } = lane.checkpoint
    const stream = eventStream({ source: 'shop' })
    for (let offset = 1n; offset <= 120n; offset++) {
      const key = `p${partition}-${Number(offset) % 3}`
      const event = stream.next(changed(key, `${offset}`))
      expected[key] = `${offset}`
      for (;;) {
        const waits = parked.has(orderOf(event))
        const parks = waits || offset % 5n === 0n
        try {
          await lane.apply(
            parks
              ? batchOf([], offset, [{ event, offset: offset - 1n, reason: waits ? null : REASON }])
              : batchOf([event], offset),
          )
          if (parks) parked = new Set([...parked, orderOf(event)])
          break
        } catch (error) {
          expect(codeOf(error)).toBe('MILLRACE_PARKED_CHANGED')
          // now and then another owner takes it over instead
          const checkpoint = offset % 7n === 0n ? (lane = await sink.claim(at(partition))).checkpoint : await lane.reread()
          parked = checkpoint.parked
        }
      }
    }
  }
  await Promise.all([owner(0), owner(1)]).finally(() => {
    done = true
  })
  await Promise.all(redriving)
  for (const key of await sink.parking.keys(10)) expect(await sink.parking.redrive(key, BY)).toMatchObject({ remaining: 0 })
  expect(await rows()).toEqual(expected)
  expect(await sink.parking.totals()).toEqual({ keys: 0, events: 0, bytes: 0 })
  expect((await database.query('select from millrace.parked_event')).rows).toEqual([])
}, 120_000)
