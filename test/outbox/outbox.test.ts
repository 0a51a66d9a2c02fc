import { Kysely, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { createOutbox, defineEvents, tombstone } from '../../src/outbox/index.ts'
import { migrate } from '../../src/postgres/migrate.ts'
import { createDatabase, type Database } from '../support/database.ts'

const shop = defineEvents({
  order: {
    id: (order) => order.id,
    types: {
      OrderPlaced: z.object({ id: z.number(), total: z.string(), items: z.array(z.object({ sku: z.string() })).default([]) }),
      OrderPaid: z.object({ id: z.number(), paidAt: z.string() }),
      OrderErased: tombstone,
    },
  },
  account: {
    id: (account) => account.number,
    types: { AccountOpened: z.object({ number: z.string().refine(async (number) => number !== 'taken', 'is taken') }) },
  },
})
const outbox = createOutbox({ events: shop })
const free = createOutbox()

let database: Database
let pool: pg.Pool
let db: Kysely<Record<string, never>>
beforeAll(async () => {
  database = await createDatabase()
  pool = new pg.Pool({ connectionString: database.url, max: 4 })
  db = new Kysely({ dialect: new PostgresDialect({ pool }) })
  const client = await pool.connect()
  await migrate(client)
  client.release()
})
afterAll(async () => {
  await db?.destroy()
  await database?.drop()
})
beforeEach(() => database.query('truncate millrace.outbox'))

interface Row {
  readonly id: string
  readonly aggregate_type: string
  readonly aggregate_id: string
  readonly type: string
  readonly payload: string | null
  readonly headers: Readonly<Record<string, string>> | null
  readonly ordering_key: string | null
  readonly version: number
}
/** in the order in which they were written */
const rows = async (): Promise<Row[]> =>
  (await database.query('select *, payload::text as payload from millrace.outbox order by ctid')).rows

/** what the client does between begin and rollback */
async function inTransaction<Result>(work: (client: pg.PoolClient) => Promise<Result>): Promise<Result> {
  const client = await pool.connect()
  try {
    await client.query('begin')
    return await work(client)
  } finally {
    await client.query('rollback')
    client.release()
  }
}
const order = { type: 'OrderPlaced', payload: { id: 42, total: '10.00' } } as const
/** an event that is refused before it comes to the database */
const refuse = (event: object): Promise<unknown> =>
  free.emit({ executeSql: () => Promise.reject(new Error('was sent')) }, {
    aggregateType: 'order',
    aggregateId: '1',
    type: 'X',
    payload: {},
    ...event,
  } as never)

describe('an event', () => {
  test('commits and rolls back with the transaction of Kysely', async () => {
    const { id } = await db.transaction().execute((tx) => outbox.emit(tx, order))
    await expect(
      db.transaction().execute(async (tx) => {
        await outbox.emit(tx, order)
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    expect(await rows()).toMatchObject([
      {
        id,
        aggregate_type: 'order',
        aggregate_id: '42',
        type: 'OrderPlaced',
        payload: '{"id":42,"total":"10.00","items":[]}',
        version: 1,
      },
    ])
  })

  test('follows the savepoints of a controlled transaction', async () => {
    const tx = await db.startTransaction().execute()
    const kept = await outbox.emit(tx, order)
    const inside = await tx.savepoint('point').execute()
    await outbox.emit(inside, order)
    await inside.rollbackToSavepoint('point').execute()
    await tx.commit().execute()
    expect((await rows()).map(({ id }) => id)).toEqual([kept.id])
  })

  test('commits and rolls back with the transaction of a pg client', async () => {
    const client = await pool.connect()
    await client.query('begin')
    const { id } = await outbox.emit(client, order)
    await client.query('commit')
    client.release()
    await inTransaction((each) => outbox.emit(each, order))
    expect((await rows()).map((row) => row.id)).toEqual([id])
  })

  test('is handed over before emit returns: what ends the transaction comes after it', async () => {
    const client = new pg.Client({ connectionString: database.url, pipeline: true })
    await client.connect()
    await client.query('begin')
    const emitted = outbox.emit(client, order)
    await client.query('rollback')
    await emitted
    await client.end()
    expect(await rows()).toEqual([])
  })

  test('goes through any function that runs a statement', async () => {
    const sent: { text: string; values: unknown[] }[] = []
    const { id } = await outbox.emit({ executeSql: async (text, values) => sent.push({ text, values }) }, order)
    expect(sent).toMatchObject([
      { values: [id, 'order', '42', 'OrderPlaced', '{"id":42,"total":"10.00","items":[]}', null, null, 1] },
    ])
    expect(sent[0]?.text).toBe(outbox.statement(order).text)
    await inTransaction(async (client) => client.query(sent[0] as never))
  })

  test('carries all that may be said of it', async () => {
    const id = '018f4e7e-0000-7000-8000-000000000001'
    await db.transaction().execute((tx) =>
      free.emit(tx, {
        id,
        aggregateType: 'order',
        aggregateId: 9_007_199_254_740_993n,
        type: 'X',
        payloadText: '{"n":  1.10, "big":9007199254740993}',
        headers: { traceparent: '00-aa-bb-01' },
        orderingKey: 7,
        version: 3,
      }),
    )
    expect(await rows()).toMatchObject([
      {
        id,
        aggregate_id: '9007199254740993',
        payload: '{"n":  1.10, "big":9007199254740993}',
        headers: { traceparent: '00-aa-bb-01' },
        ordering_key: '7',
        version: 3,
      },
    ])
  })

  test('of JSON null is an event, and a tombstone is none', async () => {
    await db.transaction().execute(async (tx) => {
      await free.emit(tx, { aggregateType: 'order', aggregateId: '1', type: 'X', payload: null })
      await outbox.tombstone(tx, { type: 'OrderErased', aggregateId: 42 })
      await free.tombstone(tx, { aggregateType: 'order', aggregateId: '1', type: 'X', headers: { a: 'b' } })
    })
    expect((await rows()).map(({ payload, aggregate_id }) => [aggregate_id, payload])).toEqual([
      ['1', 'null'],
      ['42', null],
      ['1', null],
    ])
  })
})

describe('many events', () => {
  test('go in one statement, in their order, with their ids', async () => {
    const client = await pool.connect()
    await client.query('begin')
    const { ids } = await free.emitAll(
      client,
      Array.from({ length: 9_000 }, (_, n) => ({
        aggregateType: 'order',
        aggregateId: n,
        type: 'X',
        payload: { n, text: 'a "quoted" \\ näin' },
      })),
    )
    await client.query('commit')
    client.release()
    const found = await rows()
    expect(found.map(({ id }) => id)).toEqual(ids)
    expect(ids).toEqual([...ids].sort())
    expect(found[8_999]).toMatchObject({
      aggregate_id: '8999',
      payload: '{"n":8999,"text":"a \\"quoted\\" \\\\ näin"}',
      headers: null,
    })
    expect(
      (await database.query('select count(distinct xmin::text || cmin::text)::int as statements from millrace.outbox')).rows,
    ).toEqual([{ statements: 1 }])
  })

  test('of which one is refused send nothing', async () => {
    const sent: string[] = []
    const tx = { executeSql: async (text: string) => sent.push(text) }
    await expect(outbox.emitAll(tx, [order, { type: 'OrderPaid', payload: { id: 1 } as never }])).rejects.toThrow(
      'payload.paidAt',
    )
    expect([await outbox.emitAll(tx, []), sent]).toEqual([{ ids: [] }, []])
  })

  test('cannot smuggle a row in as payload text', async () => {
    await expect(refuse({ payload: undefined, payloadText: '1},{"id":"x"' })).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_INVALID',
    })
  })
})

describe('what would commit by itself is refused', () => {
  const refused = { code: 'MILLRACE_NOT_A_TRANSACTION' }
  test('a pool', async () => {
    await expect(outbox.emit(pool as never, order)).rejects.toMatchObject(refused)
    await expect(outbox.emitAll(pool as never, [])).rejects.toMatchObject(refused)
    await expect(outbox.tombstone(pool as never, { type: 'OrderErased', aggregateId: 1 })).rejects.toMatchObject(refused)
  })

  test('a Kysely that is not a transaction, and one whose transaction is over', async () => {
    await expect(outbox.emit(db as never, order)).rejects.toMatchObject(refused)
    await db.connection().execute((one) => expect(outbox.emit(one as never, order)).rejects.toMatchObject(refused))
    const tx = await db.startTransaction().execute()
    await tx.commit().execute()
    await expect(outbox.emit(tx, order)).rejects.toThrow('already committed')
    expect(await rows()).toEqual([])
  })

  /** given back whatever comes of the test */
  async function taken(): Promise<pg.PoolClient> {
    const client = await pool.connect()
    onTestFinished(() => client.release(true))
    return client
  }

  test('a pg client on which no transaction is open', async () => {
    const client = await taken()
    await expect(outbox.emit(client, order)).rejects.toMatchObject(refused)
    await client.query('begin')
    await client.query('commit')
    await expect(outbox.emit(client, order)).rejects.toMatchObject(refused)
    expect(await rows()).toEqual([])
  })

  test('an older pg client, which cannot tell: the server is asked', async () => {
    const client = await taken()
    const older = { query: (text: string, values?: unknown[]) => client.query(text, values) }
    await expect(outbox.emit(older, order)).rejects.toMatchObject(refused)
    await client.query('begin')
    await outbox.emit(older, order)
    await client.query('commit')
    expect(await rows()).toHaveLength(1)
  })

  test.each([[null], [undefined], ['db'], [{}], [() => {}]])('%s', async (tx) => {
    await expect(outbox.emit(tx as never, order)).rejects.toMatchObject(refused)
  })

  test('before the event is looked at', async () => {
    await expect(outbox.emit(pool as never, { type: 'Unheard' } as never)).rejects.toMatchObject(refused)
  })

  test('a failed transaction stays what it is: the server says so', async () => {
    await inTransaction(async (client) => {
      await client.query('select 1 / 0').catch(() => {})
      await expect(outbox.emit(client, order)).rejects.toMatchObject({ code: '25P02' })
    })
  })
})

describe('a registry', () => {
  const nowhere = { executeSql: async () => {} }
  test('names the types it knows', async () => {
    await expect(outbox.emit(nowhere, { type: 'Unheard', payload: {} } as never)).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_UNKNOWN',
      message: '"Unheard" is not a type of the registry',
      remedy: 'known are: AccountOpened, OrderErased, OrderPaid, OrderPlaced',
    })
  })

  test('validates before anything is sent, and names the path', async () => {
    const event = { type: 'OrderPlaced', payload: { id: 42, total: '1', items: [{ sku: 'a' }, { sku: 7 }] } }
    await expect(outbox.emit({ executeSql: () => Promise.reject(new Error('was sent')) }, event as never)).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_INVALID',
      message: expect.stringContaining('event OrderPlaced: payload.items[1].sku: '),
    })
  })

  test('waits for a schema that validates asynchronously, where it can', async () => {
    const open = (number: string) => ({ type: 'AccountOpened', payload: { number } }) as const
    await db.transaction().execute((tx) => outbox.emitAll(tx, [open('1'), order, open('2')]))
    expect((await rows()).map(({ aggregate_id }) => aggregate_id)).toEqual(['1', '42', '2'])
    await expect(outbox.emit(nowhere, open('taken'))).rejects.toThrow('payload.number: is taken')
    expect(() => outbox.statement(open('taken'))).toThrow('asynchronously')
  })

  test('validates a payload text and writes it as it stands', async () => {
    await db
      .transaction()
      .execute((tx) => outbox.emit(tx, { type: 'OrderPlaced', payloadText: '{"total":"1", "id":42, "more":1.10}' }))
    expect(await rows()).toMatchObject([{ aggregate_id: '42', payload: '{"total":"1", "id":42, "more":1.10}' }])
    await expect(outbox.emit(nowhere, { type: 'OrderPlaced', payloadText: '{"id":"x"}' })).rejects.toThrow('payload.id')
  })

  test('lets an event name its aggregate itself', () => {
    expect(outbox.statement({ ...order, aggregateId: 'other' }).values[2]).toBe('other')
  })

  test('keeps events and tombstones apart', async () => {
    await expect(outbox.emit(nowhere, { type: 'OrderErased', payload: {} } as never)).rejects.toThrow('tombstone()')
    await expect(outbox.tombstone(nowhere, { type: 'OrderPaid', aggregateId: 1 } as never)).rejects.toThrow('emit()')
  })

  test('refuses what could not be told apart or relayed', () => {
    const aggregate = { id: () => '1', types: { Same: tombstone } }
    expect(() => defineEvents({ a: aggregate, b: aggregate })).toThrow('belongs to the aggregates a and b')
    expect(() => defineEvents({ 'a b': aggregate })).toThrow('does not match')
  })
})

describe('an event that could never be relayed is refused with its path', () => {
  const circle: Record<string, unknown> = {}
  circle['self'] = { circle }
  test.each([
    ['payload.total is a bigint', { payload: { total: 10n } }],
    ['payload.a[1]["b c"] is NaN', { payload: { a: [0, { 'b c': Number.NaN }] } }],
    ['payload[0] is undefined', { payload: [undefined] }],
    ['payload.f is a function', { payload: { f: () => {} } }],
    ['payload.at is an invalid Date', { payload: { at: new Date('x') } }],
    ['payload.items is a Map', { payload: { items: new Map() } }],
    ['payload.later is a Promise', { payload: { later: Promise.resolve() } }],
    ['payload.bytes is a Uint8Array', { payload: { bytes: new Uint8Array(2) } }],
    ['holds itself', { payload: circle }],
    ['payload.text holds half of a surrogate pair', { payload: { text: '😀'.slice(0, 1) } }],
    ['payload.text holds the character U+0000', { payload: { text: 'a\0' } }],
    ['payload is missing', { payload: undefined }],
    ['payload and payloadText are both given', { payloadText: '1' }],
    ['payloadText is not JSON', { payload: undefined, payloadText: '{"secret":' }],
    ['aggregateType must match', { aggregateType: 'a b' }],
    ['aggregateId must be a safe integer', { aggregateId: 2 ** 53 }],
    ['aggregateId must be a safe integer', { aggregateId: 1.5 }],
    ['aggregateId must be 1 to 512 bytes, is 0', { aggregateId: '' }],
    ['aggregateId must be 1 to 512 bytes, is 514', { aggregateId: 'ä'.repeat(257) }],
    ['aggregateId must be a string', { aggregateId: undefined }],
    ['orderingKey must be 1 to 512 bytes', { orderingKey: '' }],
    ['type must be 1 to 512 bytes', { type: '' }],
    ['version must be', { version: 0 }],
    ['id must be a UUID', { id: '42' }],
    ['headers.id is a name that Millrace keeps', { headers: { id: 'x' } }],
    ['headers["millrace-prev"] is a name that Millrace keeps', { headers: { 'millrace-prev': 'x' } }],
    ['headers.n must be a string', { headers: { n: 1 } }],
  ])('%s', async (message, event) => {
    const error = await refuse(event).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'MILLRACE_EVENT_INVALID', message: expect.stringContaining(message) })
    expect(String(error)).not.toContain('secret')
  })

  test('what JSON says well passes: absent properties, dates, bigints that were taught', async () => {
    const payload = { absent: undefined, at: new Date(0), n: { toJSON: () => '10' }, deep: [[{}]], text: '😀 "\\' }
    expect(free.statement({ aggregateType: 'a', aggregateId: -1, type: 'X', payload }).values[4]).toBe(
      '{"at":"1970-01-01T00:00:00.000Z","n":"10","deep":[[{}]],"text":"😀 \\"\\\\"}',
    )
  })
})

test('an event over the size limit is refused by the database, by the name of the rule', async () => {
  await expect(
    db
      .transaction()
      .execute((tx) => free.emit(tx, { aggregateType: 'a', aggregateId: '1', type: 'X', payload: 'x'.repeat(1_000_000) })),
  ).rejects.toMatchObject({ constraint: 'outbox_event_size' })
  expect((await sql`select 1 from millrace.outbox`.execute(db)).rows).toEqual([])
})
