import { expect, onTestFinished, test } from 'vitest'
import type { PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import { eachPostgres, withClient } from '../postgres/each-postgres.ts'
import { createDatabase } from '../support/database.ts'
import { compareAll, type Follower, follow, kinds, mendAll } from './postgres-copy-fixture.ts'
import { at, ORDERS, openSink } from './postgres-fixture.ts'

const changed = (key: string, note: string) => ({ type: 'Changed', key, payload: { id: key, total: 1, note } })
const erased = (key: string) => ({ type: 'Erased', key })
const on = { Changed: 'upsert', Paid: 'merge', Erased: 'delete' } as const

/** the same sink by another mapping, over the same logs */
async function remapped(follower: Follower, url: string, tables: PostgresSinkOptions['tables']): Promise<Follower> {
  const sink = await openSink({ url, tables })
  onTestFinished(() => sink.close())
  const copies = sink.copies as NonNullable<typeof sink.copies>
  return { ...follower, sink, copies, create: (shape = 'rows') => copies.create('job', shape, true) }
}

test('by another mapping nothing is replayed unasked; a rebuild halts the sink, and it follows by the new one from then on', async () => {
  const database = await createDatabase()
  onTestFinished(() => database.drop())
  await database.query(`${ORDERS}; create table more (id text primary key, note text, _millrace_position text collate "C")`)
  const before = [{ from: 'order', into: 'orders', key: 'id', on }] as const
  const follower = await follow({ url: database.url, tables: before })
  await follower.live([changed('a', 'A'), changed('b', 'B'), changed('c', 'C'), erased('c')])
  const renamed = { from: 'order', into: 'orders', key: 'id', columns: { note: 'id' }, on } as const
  const next = await remapped(follower, database.url, [
    renamed,
    { from: 'order', into: 'more', key: 'id', columns: { note: 'note' }, on },
  ])
  await expect(next.copies.create('job', 'rows')).rejects.toMatchObject({ code: 'MILLRACE_MAPPING_CHANGED' })
  expect(await next.copies.find()).toBe(null)

  const copy = await next.create()
  expect(copy.remapped).toBe(true)
  await copy.halt()
  for (const sink of [follower.sink, next.sink])
    await expect(sink.claim(at(0))).rejects.toMatchObject({
      code: 'MILLRACE_MAPPING_CHANGED',
      message: expect.stringContaining('is being rebuilt'),
    })
  await expect(follower.live([changed('d', 'D')])).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
  await next.foldOn(copy)
  expect(await mendAll(copy)).toMatchObject({ written: 4, after: {} })

  // whoever takes it in between finds it halted, also when the copy is given up
  await copy.drop()
  await expect(next.sink.claim(at(0))).rejects.toMatchObject({ code: 'MILLRACE_MAPPING_CHANGED' })
  const again = await next.create()
  await again.halt()
  await next.foldOn(again)
  expect(await kinds(again)).toEqual({})
  await again.adopt()
  expect(again.remapped).toBe(false)
  await again.drop()

  await expect(follower.sink.claim(at(0))).rejects.toMatchObject({ code: 'MILLRACE_MAPPING_CHANGED' })
  expect((await next.sink.claim(at(0))).checkpoint.offset).toBe(4n)
  expect((await database.query('select id, note from orders order by id')).rows).toEqual([
    { id: 'a', note: 'a' },
    { id: 'b', note: 'b' },
  ])
  expect((await database.query('select id, note from more order by id')).rows).toEqual([
    { id: 'a', note: 'A' },
    { id: 'b', note: 'B' },
  ])
  // what was deleted before the table was fed stays deleted
  expect((await database.query(`select target, key from millrace.deleted order by 1`)).rows).toEqual([
    { target: 'public.more', key: 'c' },
    { target: 'public.orders', key: 'c' },
  ])
})

for (const guard of ['column', 'table'] as const)
  eachPostgres(`a swap, guard: ${guard}`, (create) => {
    async function orders(columns: Readonly<Record<string, false>> = {}) {
      const database = await create()
      onTestFinished(() => database.drop())
      const query = (text: string) => withClient(database.url, (client) => client.query(text))
      const position = guard === 'column' ? ', _millrace_position text collate "C"' : ''
      await query(
        `create table orders (id text primary key, total numeric not null default 0 check (total >= 0), note text${position});
         create index "by Note" on orders (note); create unique index orders_note on orders (lower(id), note);
         comment on table orders is 'it''s ours'; alter table orders set (fillfactor = 70);
         do $$ begin if not exists (select from pg_roles where rolname = 'reader "x"') then create role "reader ""x"""; end if; end $$;
         grant select on orders to "reader ""x""" with grant option; grant select on orders to public`,
      )
      const follower = await follow({
        url: database.url,
        tables: [{ from: 'order', into: 'orders', key: 'id', guard, columns, on }],
      })
      const rows = async () => (await query('select id, total::text, note from orders order by id')).rows
      return { ...follower, query, rows, url: database.url }
    }

    test('puts the copy in the place of the table, with all that people know of it, while the sink goes on', async () => {
      const follower = await orders()
      await follower.live([
        changed('a', '1'),
        changed('b', '1'),
        erased('b'),
        { type: 'Paid', key: 'm', payload: { note: 'paid' } },
      ])
      const described = () =>
        follower.query(
          `select c.relname, c.reloptions, c.relacl::text, obj_description(c.oid) as comment, (select json_agg(pg_get_indexdef(indexrelid) order by 1) from (select indexrelid from pg_index where indrelid = c.oid order by indexrelid::regclass::text) i) as indexes,
             (select json_agg(format('%s %s', conname, pg_get_constraintdef(oid)) order by conname) from pg_constraint where conrelid = c.oid) as constraints,
             (select json_agg(format('%s %s %s', attname, format_type(atttypid, atttypmod), attnotnull) order by attname) from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) as columns
           from pg_class c where c.oid = 'orders'::regclass`,
        )
      const before = (await described()).rows
      const guards = 'select key, position from millrace.guard order by key'
      const guarded = (await follower.query(guards)).rows
      const copy = await follower.create('table')
      expect(await copy.obstacles()).toEqual([])
      await follower.foldOn(copy)
      await follower.query(`update orders set note = 'damaged'`)
      expect(await kinds(copy)).toEqual({ a: 'different', m: 'different' })
      await follower.live([changed('c', '1')])
      await expect(copy.swap(async () => {})).rejects.toMatchObject({ code: 'MILLRACE_COPY_BEHIND' })
      expect((await follower.rows()).map(({ note }) => note)).toEqual(['damaged', '1', 'damaged'])
      await copy.swap(() => follower.foldOn(copy))
      await copy.close()
      expect(await follower.copies.find()).toBe(null)
      expect((await described()).rows).toEqual(before)
      if (guard === 'table')
        expect((await follower.query(guards)).rows.filter(({ key }) => key !== 'c')).toEqual(
          guarded.filter(({ key }) => key !== 'b'),
        )
      // the lane that was there goes on in the new table
      await follower.live([
        changed('a', '2'),
        { type: 'Paid', key: 'm', payload: { total: 5 } },
        { type: 'Paid', key: 'b', payload: { note: 'anew' } },
      ])
      expect(await follower.rows()).toEqual([
        { id: 'a', total: '1', note: '2' },
        { id: 'b', total: '0', note: 'anew' },
        { id: 'c', total: '1', note: '1' },
        { id: 'm', total: '5', note: 'paid' },
      ])
      const aside = await follower.copies.aside()
      expect(aside).toHaveLength(1)
      expect((await follower.query(`select note from ${aside[0]} order by id`)).rows.map(({ note }) => note)).toEqual([
        'damaged',
        '1',
        'damaged',
      ])
      const another = await follower.create('table')
      expect(await another.obstacles()).toEqual(['public.orders has a table of a former rebuild put aside still'])
      await another.drop()
      expect(await follower.copies.dropAside()).toEqual(aside)
      expect(await follower.copies.aside()).toEqual([])
      const verifying = await follower.create()
      await follower.foldOn(verifying)
      expect(await kinds(verifying)).toEqual({})
      await verifying.drop()
    })

    test('takes rows over that are to stay as they are', async () => {
      const follower = await orders()
      await follower.live([changed('old', '1'), changed('a', '1'), changed('p', '1')])
      await follower.park([changed('p', '2')])
      const copy = await follower.create('table')
      await follower.foldOn(copy, 1)
      const { differences } = await compareAll(copy, { whole: false, since: new Map() })
      expect(differences.map(({ key, kind }) => [key, kind])).toEqual([
        ['old', 'unverifiable'],
        ['p', 'parked'],
      ])
      const before = (
        await follower.query(
          guard === 'column'
            ? 'select * from orders order by id'
            : 'select o.*, g.position from orders o join millrace.guard g on g.key = o.id order by id',
        )
      ).rows
      await copy.swap(async () => {
        expect(await copy.carry(differences)).toBe(2)
      })
      await copy.close()
      expect(
        (
          await follower.query(
            guard === 'column'
              ? 'select * from orders order by id'
              : 'select o.*, g.position from orders o join millrace.guard g on g.key = o.id order by id',
          )
        ).rows,
      ).toEqual(before)
    })

    test('names what would stay with the old table, without a word', async () => {
      const follower = await orders({ no: false })
      await follower.query(
        `create view seen as select * from orders; create function counted(orders) returns text language sql as 'select $1.note';
         alter table orders add column parent text references orders, add column no serial; create table others (id text references orders, o orders);
         create function nothing() returns trigger language plpgsql as 'begin return new; end'; create trigger t before insert on orders for each row execute function nothing();
         create policy p on orders; create publication pub for table orders; grant select (note) on orders to public; create table heirs () inherits (orders); alter table orders replica identity full`,
      )
      const copy = await follower.create('table')
      onTestFinished(() => copy.close())
      expect(await copy.obstacles()).toEqual(
        [
          'is inherited from',
          'is used by the view or rule of seen',
          'is used by the function counted(orders)',
          'has its row type used by others',
          'has the foreign key "orders_parent_fkey"',
          'is referred to by the foreign key others_id_fkey of others',
          'has the trigger t',
          'has the policy p',
          'is in the publication pub',
          'has a replica identity of its own',
          'has grants on its column note',
          'has the sequence orders_no_seq',
          'has the column no, which is left to the database: its values would be lost',
        ].map((obstacle) => `public.orders ${obstacle.replace('"orders_parent_fkey"', 'orders_parent_fkey')}`),
      )
    })
  })
