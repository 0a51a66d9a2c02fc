import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import type { Lane, Sink } from '../../src/core/sink.ts'
import { batchOf, type EventSpec, eventStream } from '../../src/testing/events.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { at, issuesOf, ORDERS, openSink } from './postgres-fixture.ts'

let database: Database
let sinks: Sink[]
let stream: ReturnType<typeof eventStream>
let offset: bigint

beforeEach(async () => {
  database = await createDatabase()
  sinks = []
  stream = eventStream()
  offset = 0n
})
afterEach(async () => {
  for (const sink of sinks) await sink.close()
  await database.drop()
})

type Tables = PostgresSinkOptions['tables']

async function open(tables: Tables, options: Partial<PostgresSinkOptions> = {}): Promise<Sink> {
  const sink = await openSink({ url: database.url, tables, ...options })
  sinks.push(sink)
  await sink.init()
  return sink
}

const apply = (lane: Lane, ...specs: EventSpec[]): Promise<void> =>
  lane.apply(
    batchOf(
      specs.map((spec) => stream.next(spec)),
      (offset += BigInt(specs.length)),
    ),
  )

const rows = async (query: string): Promise<unknown[]> => (await database.query(query)).rows
const orders = (): Promise<unknown[]> => rows('select id, total::text, note from orders order by id')

describe('upsert', () => {
  const tables: Tables = [
    { from: 'order', into: 'orders', key: 'id', on: { Changed: 'upsert', Erased: 'delete', Viewed: 'ignore' } },
  ]

  it('refuses an absent field by the names of column and path, and takes JSON null as a value', async () => {
    await database.query(ORDERS)
    const lane = await (await open(tables)).claim(at(0))
    await apply(lane, { type: 'Changed', key: 'a', payload: '{"id":"a","total":null,"note":"x"}' })
    expect(await orders()).toEqual([{ id: 'a', total: null, note: 'x' }])
    await expect(apply(lane, { type: 'Changed', key: 'a', payload: '{"id":"a","note":"secret"}' })).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_REJECTED',
      message: expect.stringMatching(/has no total, which the column total of public\.orders takes/),
      fields: { column: 'total', path: 'total', position: stream.at, type: 'Changed' },
    })
  })

  it('takes the key from the aggregate id, and refuses a payload that says another one', async () => {
    await database.query(ORDERS.replace('id text', 'id bigint'))
    const lane = await (await open(tables)).claim(at(0))
    await apply(lane, { type: 'Changed', key: '9007199254740993', payload: '{"total":1,"note":"from the event"}' })
    await apply(lane, { type: 'Changed', key: '7', payload: '{"id":"7","total":1,"note":"as text"}' })
    expect(await orders()).toMatchObject([{ id: '7' }, { id: '9007199254740993' }])
    await expect(apply(lane, { type: 'Changed', key: '7', payload: '{"id":8,"total":1,"note":""}' })).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_REJECTED',
      message: expect.stringContaining('the key in the payload is not the aggregate id'),
    })
  })

  it('refuses an aggregate id that is longer than the key, instead of cutting it', async () => {
    await database.query(ORDERS.replace('id text', 'id varchar(3)'))
    const lane = await (await open(tables)).claim(at(0))
    await expect(apply(lane, { type: 'Changed', key: 'abcd', payload: { total: 1, note: '' } })).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_REJECTED',
      fields: { cause: '22001', column: 'id' },
    })
  })

  it('halts on a type that is not mapped, by its name, after what stands before it', async () => {
    await database.query(ORDERS)
    const lane = await (await open(tables)).claim(at(0))
    await expect(
      apply(
        lane,
        { type: 'Viewed', key: 'a' },
        { type: 'Changed', key: 'a', payload: { total: 1, note: '' } },
        { type: 'Shipped', key: 'a' },
      ),
    ).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_UNMAPPED',
      fields: { type: 'Shipped', aggregate: 'order', position: stream.at, table: 'public.orders' },
    })
    expect(await orders()).toEqual([])
  })

  it('names the first of several unfit events', async () => {
    await database.query(ORDERS)
    const lane = await (await open(tables)).claim(at(0))
    const unfit = stream.next({ type: 'Changed', key: 'a', payload: '{"total":1}' })
    const unmapped = stream.next({ type: 'Shipped', key: 'a' })
    await expect(lane.apply(batchOf([unfit, unmapped], 2n))).rejects.toMatchObject({ fields: { position: unfit.position } })
  })

  it('refuses a tombstone for a whole row, and a payload that is no JSON object', async () => {
    await database.query(ORDERS)
    const lane = await (await open(tables)).claim(at(0))
    for (const [payload, message] of [
      [null, /it is a tombstone/],
      ['[1]', /expected a JSON object at byte 0/],
      ['{"total":1,"note":"x"},{"total":2', /expected nothing more at byte/],
      ['{"total":1,"note":"\ud800', /cannot be read/],
    ] as const)
      await expect(
        lane.apply({ ...batchOf([stream.next({ type: 'Changed', key: 'a', payload })], 1n), moves: [] }),
      ).rejects.toThrow(message)
  })

  it('says once which fields nothing takes, or halts by their names', async () => {
    await database.query(ORDERS)
    const said: unknown[] = []
    const log = { debug() {}, info: (fields: object) => said.push(fields), warn() {}, error() {}, child: () => log }
    const sink = await openSink({ url: database.url, tables }, { log })
    sinks.push(sink)
    await sink.init()
    const lane = await sink.claim(at(0))
    for (const note of ['x', 'y'])
      await apply(lane, { type: 'Changed', key: 'a', payload: { total: 1, note, extra: { deep: 1 } } })
    expect(said).toEqual([{ aggregate: 'order', type: 'Changed', fields: ['extra'] }])
    const strict = await (await open(tables, { unknownFields: 'halt' })).claim(at(1))
    stream = eventStream()
    await expect(apply(strict, { type: 'Changed', key: 'b', payload: { total: 1, note: '', extra: 1 } })).rejects.toThrow(
      /nothing takes: extra/,
    )
  })

  it('follows naming, takes nested paths and the event’s own values, and leaves columns to the database', async () => {
    await database.query(`create table people (person_no int primary key, full_name text, city text, address json, made text default 'by us',
      seen_at timestamptz, event uuid, upper text generated always as (upper(full_name)) stored, _millrace_position text collate "C")`)
    const lane = await (
      await open([
        {
          from: 'order',
          into: 'people',
          key: 'person_no',
          naming: 'snake_case',
          columns: { city: 'address.city', made: false, seen_at: '$committed_at', event: '$id' },
          on: { Changed: 'upsert' },
        },
      ])
    ).claim(at(0))
    const id = '0197aaaa-0000-7000-8000-000000000001'
    await apply(lane, {
      type: 'Changed',
      key: '1',
      id,
      payload: '{"personNo":1,"fullName":"Åsa","address":{ "city" : "Umeå", "no":1.0 }}',
    })
    expect(
      await rows('select person_no, full_name, city, address::text, made, seen_at is not null as seen, event, upper from people'),
    ).toEqual([
      {
        person_no: 1,
        full_name: 'Åsa',
        city: 'Umeå',
        address: '{ "city" : "Umeå", "no":1.0 }',
        made: 'by us',
        seen: true,
        event: id,
        upper: 'ÅSA',
      },
    ])
  })

  it('gives one event to several tables, keyed by several columns of the payload where they say so', async () => {
    await database.query(ORDERS)
    await database.query(
      'create table lines (order_id text, line int, product text, _millrace_position text collate "C", primary key (order_id, line))',
    )
    const lane = await (
      await open([
        { from: 'order', into: 'orders', key: 'id', on: { LineAdded: 'ignore', LineRemoved: 'ignore', Changed: 'upsert' } },
        {
          from: 'order',
          into: 'lines',
          key: ['order_id', 'line'],
          naming: 'snake_case',
          on: { LineAdded: 'upsert', LineRemoved: 'delete', Changed: 'ignore' },
        },
      ])
    ).claim(at(0))
    const line = (n: number) => ({ orderId: 'a', line: n, product: `p${n}` })
    await apply(
      lane,
      { type: 'Changed', key: 'a', payload: { id: 'a', total: 1, note: '' } },
      { type: 'LineAdded', key: 'a', payload: line(1) },
      { type: 'LineAdded', key: 'a', payload: line(2) },
      { type: 'LineRemoved', key: 'a', payload: { orderId: 'a', line: 1 } },
    )
    expect(await rows('select order_id, line, product from lines')).toEqual([{ order_id: 'a', line: 2, product: 'p2' }])
    expect(await orders()).toHaveLength(1)
    await expect(apply(lane, { type: 'LineRemoved', key: 'a' })).rejects.toThrow(/it is a tombstone/)
  })
})

describe('merge', () => {
  const tables: Tables = [
    { from: 'order', into: 'orders', key: 'id', on: { Changed: 'upsert', Paid: 'merge', Erased: 'delete' } },
  ]

  for (const together of [true, false])
    it(`writes the columns that are present and leaves the others, ${together ? 'in one batch' : 'event by event'}`, async () => {
      await database.query(
        `create table orders (id text primary key, total numeric not null default 5, note text default 'new', _millrace_position text collate "C")`,
      )
      const lane = await (await open(tables)).claim(at(0))
      const history: EventSpec[] = [
        { type: 'Changed', key: 'a', payload: '{"total":1.10,"note":"one"}' },
        { type: 'Paid', key: 'a', payload: '{"total":2.20}' },
        { type: 'Paid', key: 'b', payload: '{"note":null}' },
        { type: 'Paid', key: 'b', payload: '{"total":7}' },
        { type: 'Changed', key: 'c', payload: { total: 1, note: 'gone' } },
        { type: 'Erased', key: 'c' },
        { type: 'Paid', key: 'c', payload: { total: 3 } },
        { type: 'Paid', key: 'd', payload: { total: 3 } },
        { type: 'Erased', key: 'd' },
        { type: 'Paid', key: 'e', payload: { total: 3 } },
        { type: 'Changed', key: 'e', payload: { total: 4, note: 'whole' } },
      ]
      if (together) await apply(lane, ...history)
      else for (const spec of history) await apply(lane, spec)
      expect(await orders()).toEqual([
        { id: 'a', total: '2.20', note: 'one' },
        { id: 'b', total: '7', note: null },
        { id: 'c', total: '3', note: 'new' },
        { id: 'e', total: '4', note: 'whole' },
      ])
    })

  it('updates a row without its not-null columns, and inserts none without them', async () => {
    await database.query(
      `create table orders (id text primary key, total numeric not null, note text, _millrace_position text collate "C")`,
    )
    const lane = await (await open(tables)).claim(at(0))
    await apply(lane, { type: 'Changed', key: 'a', payload: { total: 1, note: 'x' } })
    await apply(lane, { type: 'Paid', key: 'a', payload: { note: 'y' } })
    expect(await orders()).toEqual([{ id: 'a', total: '1', note: 'y' }])
    await expect(apply(lane, { type: 'Paid', key: 'b', payload: { note: 'y' } })).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_REJECTED',
      fields: { cause: '23502', column: 'total' },
    })
  })

  it('is refused where one guard per row cannot order partial writes', async () => {
    const url = 'postgres://127.0.0.1/x'
    const merging = { from: 'order', into: 'orders', key: 'id', on: { Paid: 'merge' } }
    expect(await issuesOf({ url, tables: [{ ...merging, key: ['id', 'line'] }] })).toEqual([
      expect.stringContaining('tables.0.key: merge needs'),
    ])
    expect(await issuesOf({ url, tables: [{ ...merging, keyFrom: 'payload' }] })).toEqual([
      expect.stringContaining('tables.0.key: merge needs'),
    ])
    expect(await issuesOf({ url, tables: [merging, { ...merging, from: 'other', on: { X: 'upsert' } }] })).toEqual([
      expect.stringContaining('tables.0.on: public.orders is fed from several aggregate types'),
    ])
  })
})

describe('append', () => {
  it('writes one row an event, once, whatever its aggregate', async () => {
    await database.query('create table log (event uuid primary key, "order" text, what text, total numeric)')
    const lane = await (
      await open([
        {
          from: 'order',
          into: 'log',
          key: 'event',
          columns: { order: '$key', what: '$type' },
          on: { Changed: 'append', Paid: 'append' },
        },
      ])
    ).claim(at(0))
    const id = '0197aaaa-0000-7000-8000-000000000001'
    await apply(
      lane,
      { type: 'Changed', key: 'a', payload: { total: 1 }, id },
      { type: 'Paid', key: 'a', payload: '{"total":1.50}' },
      { type: 'Changed', key: 'a', payload: { total: 1 }, id },
    )
    await apply(lane, { type: 'Changed', key: 'a', payload: { total: 2 }, id })
    expect(await rows('select "order", what, total::text from log order by total')).toEqual([
      { order: 'a', what: 'Changed', total: '1' },
      { order: 'a', what: 'Paid', total: '1.50' },
    ])
  })

  it('does not go with writes of aggregates', async () => {
    const table = { from: 'order', into: 'log', key: 'event', on: { Changed: 'append', Paid: 'upsert' } }
    expect(await issuesOf({ url: 'postgres://127.0.0.1/x', tables: [table] })).toEqual([
      expect.stringContaining('append does not go with'),
    ])
  })
})

describe('the mapping', () => {
  const table = { from: 'order', into: 'orders', key: 'id', on: { Changed: 'upsert' } } as const

  it('halts at a claim when it is not the one the rows were written by, and says what changed', async () => {
    await database.query(ORDERS)
    await (await open([table])).claim(at(0))
    const claim = async (changed: object) => (await open([{ ...table, ...changed }])).claim(at(0))
    const refused = (message: RegExp) => ({
      code: 'MILLRACE_MAPPING_CHANGED',
      message: expect.stringMatching(message),
      remedy: expect.stringContaining('millrace rebuild replica'),
    })
    await expect(claim({ columns: { note: 'remark' } })).rejects.toMatchObject(refused(/public\.orders\.note was mapped to note/))
    await expect(claim({ columns: { note: false } })).rejects.toMatchObject(refused(/public\.orders\.note was mapped/))
    await expect(claim({ on: { Changed: 'merge' } })).rejects.toMatchObject(refused(/Changed was upsert on public\.orders/))
    await expect(claim({ from: 'other' })).rejects.toMatchObject(
      refused(/public\.orders was fed from order; public\.orders was not fed from other/),
    )
    await expect(claim({ guard: 'table' })).rejects.toMatchObject(refused(/the guard of public\.orders was column/))
    await database.query('alter table orders add column later text')
    await expect(claim({})).rejects.toMatchObject(refused(/public\.orders\.later was not mapped/))
    await claim({ columns: { later: false } })
  })

  it('may learn a type that it halted on, and forgets none', async () => {
    await database.query(ORDERS)
    await (await open([table])).claim(at(0))
    await (await open([{ ...table, on: { Changed: 'upsert', Paid: 'ignore' } }])).claim(at(0))
    await (await open([table])).claim(at(0))
    await expect((await open([{ ...table, on: { Changed: 'upsert', Paid: 'merge' } }])).claim(at(0))).rejects.toThrow(
      /Paid was ignore/,
    )
  })

  it('halts when a table is added to a sink that has applied events', async () => {
    await database.query(ORDERS)
    await database.query(ORDERS.replace('orders', 'copies'))
    await apply(await (await open([table])).claim(at(0)), { type: 'Changed', key: 'a', payload: { total: 1, note: '' } })
    await expect((await open([table, { ...table, into: 'copies' }])).claim(at(0))).rejects.toThrow(/public\.copies was not fed/)
  })

  it('refuses a second source', async () => {
    await database.query(ORDERS)
    const lane = await (await open([table])).claim(at(0))
    await apply(lane, { type: 'Changed', key: 'a', payload: { total: 1, note: '' } })
    const other = eventStream({ source: 'elsewhere' })
    const event = other.next({ type: 'Changed', key: 'a', payload: { total: 2, note: '' } })
    await expect(lane.apply(batchOf([event], 2n))).rejects.toMatchObject({
      code: 'MILLRACE_SOURCE_REFUSED',
      fields: { source: 'elsewhere', position: event.position, table: 'public.orders' },
    })
    const again = await (await open([table])).claim(at(0))
    await expect(again.apply(batchOf([event], 2n))).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_REFUSED' })
    expect(await orders()).toMatchObject([{ total: '1' }])
  })
})
