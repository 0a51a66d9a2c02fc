import { afterEach, beforeEach, expect, test } from 'vitest'
import type { PostgresSourceOptions } from '../../src/postgres/options.ts'
import type { RefillRow, RefillRows } from '../../src/postgres/refill-rows.ts'
import { openSlotRenewal, type SlotRenewal } from '../../src/postgres/refill-slot.ts'
import { eachPostgres, type TestDatabase, withClient } from './each-postgres.ts'

/** A slot made anew, and the outbox as it was at the slot's start: hostile names, any types that a mapping takes. */

eachPostgres('the renewal of a slot', (create, version) => {
  let database: TestDatabase
  let renewal: SlotRenewal
  let number = 0
  let options: PostgresSourceOptions

  beforeEach(async () => {
    database = await create()
    options = {
      name: 'refill',
      url: database.url,
      slot: `refill_${version}_${process.pid}_${++number}`,
      publication: 'it\'s "mine"',
      acceptUnlimitedWal: true,
      outbox: {
        table: 'my "schema.out\'box',
        columns: {
          id: 'the "id',
          aggregateType: 'kind',
          aggregateId: 'of',
          type: 'what',
          payload: 'bytes',
          headers: 'headers',
          orderingKey: 'by',
        },
      },
    }
    renewal = openSlotRenewal(options)
    await withClient(database.url, async (client) => {
      await client.query('create schema "my ""schema"')
      await client.query(
        `create table "my ""schema"."out'box" ("the ""id" bigint primary key, kind text, "of" int, what text, bytes bytea, headers jsonb, by uuid, "at ""time" timestamptz)`,
      )
    })
  })
  afterEach(async () => {
    await renewal.dropSlot().catch(() => {})
    await renewal.close()
    await database.drop()
  })

  const insert = (id: number, at: string, bytes: string | null = '\\x00ff', what: string | null = 'Happened') =>
    withClient(database.url, (client) =>
      client.query(`insert into "my ""schema"."out'box" values ($1, 'thing', 7, $2, $3, '{"a": "b"}', null, $4)`, [
        id,
        what,
        bytes,
        at,
      ]),
    )
  const all = async (rows: RefillRows): Promise<readonly RefillRow[]> => {
    const found: RefillRow[] = []
    for await (const batch of rows.left()) found.push(...batch)
    return found
  }

  test('shows what was there at its start, in order of creation, less what is known', async () => {
    expect(await renewal.makePublication()).toBe(true)
    expect(await renewal.makePublication()).toBe(false)
    await insert(1, '2026-01-01T00:00:02Z')
    await insert(3, '2026-01-01T00:00:01Z', null)
    await insert(2, '2026-01-01T00:00:01Z')
    await insert(4, '2026-01-01T00:00:00Z')
    const slot = await renewal.makeSlot()
    await insert(5, '2026-01-01T00:00:00Z')
    const rows = await slot.rows('at "time')
    await insert(6, '2026-01-01T00:00:00Z')
    await slot.release()
    await rows.known(['4', 'not an id of this table', ''])
    const found = await all(rows)
    expect(found.map(({ id }) => id)).toEqual(['2', '3', '1'])
    expect(found[0]).toMatchObject({
      aggregateType: 'thing',
      aggregateId: Buffer.from('7'),
      type: 'Happened',
      payload: Buffer.from([0, 255]),
      headers: '{"a": "b"}',
      orderingKey: null,
      version: '1',
      committedAt: Date.parse('2026-01-01T00:00:01Z'),
      fault: null,
    })
    expect(found[1]?.payload).toBeNull()
    await rows.close()
    // and the slot sends what came after: its start lies between
    const { rows: sent } = await withClient(database.url, (client) =>
      client.query(
        `select encode(data, 'escape') as data from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', $2)`,
        [options.slot, '"it\'s ""mine"""'],
      ),
    )
    expect(sent.filter(({ data }) => data.startsWith('I'))).toHaveLength(2)
  })

  test('a row that cannot be an event, but has its place, is one with a fault', async () => {
    await renewal.makePublication()
    await insert(1, '2026-01-01T00:00:02Z', '\\x00', null)
    const slot = await renewal.makeSlot()
    const rows = await slot.rows('at "time')
    expect(await all(rows)).toMatchObject([{ id: '1', type: '', fault: { code: 'MILLRACE_OUTBOX_ROW_INVALID' } }])
    await rows.close()
    await slot.release()
  })

  test('more rows than one fetch come all, each once', async () => {
    await withClient(database.url, (client) =>
      client.query(
        `insert into "my ""schema"."out'box" select g, 'thing', 7, 'Happened', '\\x00', null, null, '2026-01-01'::timestamptz + g * interval '1 ms' from generate_series(1, 5000) g`,
      ),
    )
    await renewal.makePublication()
    const slot = await renewal.makeSlot()
    const rows = await slot.rows('at "time')
    await rows.known(Array.from({ length: 1_000 }, (_, i) => String(i * 5 + 1)))
    const ids = (await all(rows)).map(({ id }) => Number(id))
    expect(ids).toEqual(Array.from({ length: 5_000 }, (_, i) => i + 1).filter((id) => id % 5 !== 1))
    await rows.close()
    await slot.release()
  })

  test('a slot of another kind is not ours to drop', async () => {
    await withClient(database.url, (client) => client.query('select pg_create_physical_replication_slot($1)', [options.slot]))
    await expect(renewal.look()).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_CHANGED' })
    expect(await renewal.dropSlot()).toBe(true)
  })
})
