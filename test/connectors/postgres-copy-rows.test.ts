import { expect, onTestFinished, test } from 'vitest'
import type { PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import type { Copy } from '../../src/core/copy.ts'
import { eachPostgres, withClient } from '../postgres/each-postgres.ts'
import { compareAll, follow, kinds, mendAll, WHOLE } from './postgres-copy-fixture.ts'
import { at } from './postgres-fixture.ts'

eachPostgres('the rows of a folded copy', (create) => {
  async function replica(ddl: string, tables: PostgresSinkOptions['tables'], options: Partial<PostgresSinkOptions> = {}) {
    const database = await create()
    onTestFinished(() => database.drop())
    const query = (text: string) => withClient(database.url, (client) => client.query(text))
    await query(ddl)
    const follower = await follow({ url: database.url, tables, ...options })
    const folded = async (from = 0): Promise<Copy> => {
      const copy = await follower.create()
      onTestFinished(() => copy.close())
      await follower.foldOn(copy, from)
      return copy
    }
    return { ...follower, query, folded }
  }
  const set = (type: string, key: string, payload: unknown) => ({ type, key, payload })

  test('are compared exactly, whatever their types: without an equality, equal in another text, or never equal to themselves', async () => {
    const columns = {
      j: 'json',
      jb: 'jsonb',
      x: 'xml',
      p: 'point',
      ci: 'text collate nocase',
      n: 'numeric',
      f: 'float8',
      ts: 'timestamptz',
      a: 'int[]',
      held: 'int[]',
      d: 'positive',
      c: 'char(4)',
      i: 'interval',
      b: 'bytea',
      r: 'int4range',
    }
    const { live, folded, query } = await replica(
      `create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
       create domain positive as int check (value > 0);
       create table things (id text primary key, ${Object.entries(columns)
         .map(([name, type]) => `${name} ${type}`)
         .join(', ')}, _millrace_position text collate "C")`,
      [{ from: 'order', into: 'things', key: 'id', on: { Set: 'upsert' } }],
    )
    const value = {
      j: { a: 1, b: [1] },
      jb: { a: 1 },
      x: '<a>1</a>',
      p: '(1,2)',
      ci: 'Word',
      n: '1.00',
      f: 'NaN',
      ts: '2026-11-21T10:00:00Z',
      a: [1, null, 3],
      held: [1, 2, 3],
      d: 7,
      c: 'ab',
      i: '1 day',
      b: '\\x0102',
      r: '[1,5)',
    }
    await live([
      set('Set', 'same', { id: 'same', ...value }),
      ...Object.keys(columns).map((id) => set('Set', id, { id, ...value })),
    ])
    const copy = await folded()
    expect(await kinds(copy)).toEqual({})
    const other: Record<keyof typeof columns, string> = {
      j: `'{"b":[1],"a":1}'`,
      jb: `'{"a":1.0}'`,
      x: `'<a>2</a>'`,
      p: `'(1,3)'`,
      ci: `'word'`,
      n: '1.0',
      f: '1',
      ts: `'2026-11-21T10:00:00.000001Z'`,
      a: `'{1,2,3}'`,
      held: `'{1,2}'`,
      d: '8',
      c: `'ac'`,
      i: `'24 hours'`,
      b: `'\\x0103'`,
      r: `'[1,6)'`,
    }
    for (const [column, text] of Object.entries(other))
      await query(`update things set ${column} = ${text} where id = '${column}'`)
    // an array that held a null keeps room for it: the same value in another image is no difference
    await query(`update things set held[2] = null where id = 'same'; update things set held[2] = 2 where id = 'same'`)
    expect(Object.keys(await kinds(copy)).sort()).toEqual(Object.keys(columns).sort())
    expect(await mendAll(copy)).toMatchObject({ written: Object.keys(columns).length, after: {} })
    const { rows } = await query(`select n::text, ci, i::text, j::text from things where id in ('n', 'same')`)
    expect(rows[0]).toEqual(rows[1])
  })

  test('are brought back without what is left to the database: generated, identity and unmapped columns', async () => {
    const { live, folded, query } = await replica(
      `create table things (id text primary key, no int generated always as identity, note text, twice text generated always as (note || note) stored,
         seen int default 42, mine text, _millrace_position text collate "C")`,
      [{ from: 'order', into: 'things', key: 'id', columns: { seen: false, mine: false }, on: { Set: 'upsert' } }],
    )
    await live(['a', 'b'].map((id) => set('Set', id, { id, note: id })))
    await query(`update things set mine = 'kept', seen = 7`)
    const copy = await folded()
    expect(await kinds(copy)).toEqual({})
    await query(`update things set note = 'damaged' where id = 'a'; delete from things where id = 'b'`)
    expect(await mendAll(copy)).toMatchObject({ written: 2, after: {} })
    expect((await query('select id, note, twice, seen, mine from things order by id')).rows).toEqual([
      { id: 'a', note: 'a', twice: 'aa', seen: 7, mine: 'kept' },
      { id: 'b', note: 'b', twice: 'bb', seen: 42, mine: null },
    ])
  })

  test('that were merged are compared by what events wrote, and made anew of that', async () => {
    const { live, folded, query } = await replica(
      `create table orders (id text primary key, note text not null default 'none', total numeric, _millrace_position text collate "C")`,
      [{ from: 'order', into: 'orders', key: 'id', on: { Placed: 'upsert', Paid: 'merge', Erased: 'delete' } }],
    )
    await live([
      set('Placed', 'a', { id: 'a', note: 'placed', total: 1 }),
      set('Paid', 'a', { total: 2 }),
      set('Paid', 'b', { total: 3 }),
      set('Placed', 'c', { id: 'c', note: 'placed', total: 1 }),
      set('Erased', 'c', null),
      set('Paid', 'c', { total: 4 }),
      set('Paid', 'd', { total: 5 }),
      set('Paid', 'd', { note: 'both' }),
    ])
    const copy = await folded()
    expect(await kinds(copy)).toEqual({})
    // nobody wrote the note of b and c: it is what the table makes of it
    await query(`update orders set note = 'changed' where id in ('b', 'c'); update orders set total = 0 where id in ('a', 'b')`)
    expect(await kinds(copy)).toEqual({ a: 'different', b: 'different' })
    await query(`delete from orders where id in ('c', 'd')`)
    expect(await mendAll(copy)).toMatchObject({ written: 4, after: {} })
    expect((await query('select id, note, total::text from orders order by id')).rows).toEqual([
      { id: 'a', note: 'placed', total: '2' },
      { id: 'b', note: 'changed', total: '3' },
      { id: 'c', note: 'none', total: '4' },
      { id: 'd', note: 'both', total: '5' },
    ])
  })

  test('that were merged, and begin before the fold does, are told and left alone', async () => {
    const { live, folded, query } = await replica(
      `create table orders (id text primary key, note text default 'none', total numeric, _millrace_position text collate "C")`,
      [{ from: 'order', into: 'orders', key: 'id', on: { Placed: 'upsert', Paid: 'merge', Erased: 'delete' } }],
    )
    await live([
      set('Placed', 'a', { id: 'a', note: 'placed', total: 1 }),
      set('Placed', 'b', { id: 'b', note: 'placed', total: 1 }),
    ])
    await live([
      set('Paid', 'a', { total: 2 }),
      set('Erased', 'b', null),
      set('Paid', 'b', { total: 3 }),
      set('Placed', 'c', { id: 'c', note: 'placed', total: 1 }),
      set('Paid', 'c', { total: 4 }),
    ])
    const copy = await folded(2)
    await query(`update orders set total = 0`)
    expect(await kinds(copy, null)).toEqual({ a: 'partial', b: 'different', c: 'different' })
    expect(await mendAll(copy, { reach: null })).toMatchObject({ written: 2, left: 1, after: { a: 'partial' } })
  })

  test('that were appended show no position: one more is told only when nothing is left to be folded', async () => {
    const { live, folded, foldOn, query } = await replica('create table history (event uuid primary key, note text)', [
      { from: 'order', into: 'history', key: 'event', on: { Noted: 'append' } },
    ])
    const events = await live([
      set('Noted', 'a', { note: '1' }),
      set('Noted', 'a', { note: '2' }),
      set('Noted', 'b', { note: '3' }),
    ])
    const [first, second, third] = events.map(({ id }) => id) as [string, string, string]
    const copy = await folded()
    expect(await kinds(copy)).toEqual({})
    const extra = '00000000-0000-4000-8000-000000000000'
    await query(
      `delete from history where event = '${first}'; update history set note = 'x' where event = '${second}'; insert into history values ('${extra}', '')`,
    )
    expect(await kinds(copy, null)).toEqual({ [first]: 'missing', [second]: 'different' })
    const [fourth] = await live([set('Noted', 'a', { note: '4' })])
    const { differences } = await compareAll(copy)
    expect(Object.fromEntries(differences.map(({ key, kind }) => [key, kind]))).toEqual({
      [first]: 'missing',
      [second]: 'different',
      [extra]: 'newer',
      [fourth?.id as string]: 'newer',
    })
    await foldOn(copy)
    expect(await mendAll(copy)).toMatchObject({ written: 2, removed: 1, after: {} })
    expect((await query('select event, note from history order by note')).rows).toEqual([
      { event: first, note: '1' },
      { event: second, note: '2' },
      { event: third, note: '3' },
      { event: fourth?.id, note: '4' },
    ])
  })

  test('of composite keys from payloads, written by several feeds from several topics', async () => {
    const key = ['owner', 'line', 'day'] as const
    const { live, folded, query } = await replica(
      `create table lines (line numeric, owner text, day date, b text, _millrace_position text collate "C", primary key (owner, line, day))`,
      [
        { from: 'order', into: 'lines', key, on: { Set: 'upsert', Unset: 'delete' } },
        { from: 'basket', into: 'lines', key, on: { Set: 'upsert' } },
      ],
    )
    const row = (owner: string, line: number | string, more: object = {}) => ({ owner, line, day: '2026-11-21', ...more })
    const basket = { topic: 'outbox.event.basket', partition: 0 }
    await live([
      set('Set', 'x', row('o"\\[ne', 1, { b: 'a' })),
      set('Set', 'y', row('two', '1.50', { b: 'a' })),
      set('Set', 'y', row('three', 3, { b: 'a' })),
    ])
    await live([set('Set', 'z', row('two', 1.5, { b: 'b' })), set('Set', 'z', row('four', 4, { b: 'b' }))], basket)
    await live([set('Unset', 'y', row('three', 3))])
    const copy = await folded()
    for (const limit of [1, 2, 100]) expect((await compareAll(copy, WHOLE, limit)).differences).toEqual([])
    await query(`update lines set b = 'damaged' where owner = 'two'`)
    await query(
      `delete from lines where owner = 'four'; insert into lines values (3, 'three', '2026-11-21'), (3, 'three', '2026-11-22')`,
    )
    const { differences } = await compareAll(copy, WHOLE, 1)
    // in the order of the table's columns, as guards and markers write it
    expect(Object.fromEntries(differences.map(({ key, kind }) => [key, kind]))).toEqual({
      '["1.50", "two", "2026-11-21"]': 'different',
      '["4", "four", "2026-11-21"]': 'missing',
      '["3", "three", "2026-11-21"]': 'extra',
      '["3", "three", "2026-11-22"]': 'extra',
    })
    expect(await copy.mend(differences, { extras: true })).toMatchObject({ written: 2, removed: 2 })
    expect(await kinds(copy)).toEqual({})
    expect((await query('select owner, b from lines order by owner collate "C"')).rows).toEqual([
      { owner: 'four', b: 'b' },
      { owner: 'o"\\[ne', b: 'a' },
      { owner: 'two', b: 'a' },
    ])
  })

  test('are found by their key where case does not tell keys apart', async () => {
    const { live, folded, query } = await replica(
      `create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
       create table orders (id text collate nocase primary key, note text, _millrace_position text collate "C")`,
      [{ from: 'order', into: 'orders', key: 'id', on: { Set: 'upsert' } }],
    )
    await live(['b', 'A', 'c'].map((id) => set('Set', id, { id, note: '1' })))
    await live(['B', 'a'].map((id) => set('Set', id, { id, note: '2' })))
    // of the later writes only: the copy knows the rows by other texts than the replica
    const copy = await folded(3)
    for (const limit of [1, 2, 10]) expect((await compareAll(copy, null, limit)).differences).toEqual([])
    await query(`update orders set note = 'damaged' where id = 'a'; delete from orders where id = 'B'`)
    expect(await mendAll(copy, { reach: null })).toMatchObject({ written: 2, after: {} })
    expect((await query('select note from orders order by id')).rows.map(({ note }) => note)).toEqual(['2', '2', '1'])
  })

  test('are made in the order of foreign keys, and one row whose key is null in part is refused by name', async () => {
    const { live, folded, query } = await replica(
      `create table parents (id text primary key, _millrace_position text collate "C");
       create table children (id text, line int, parent text references parents, _millrace_position text collate "C", unique (id, line))`,
      [
        { from: 'order', into: 'children', key: ['id', 'line'], on: { Set: 'upsert', Made: 'ignore' } },
        { from: 'order', into: 'parents', key: 'id', on: { Made: 'upsert', Set: 'ignore' } },
      ],
    )
    await live([set('Made', 'p', { id: 'p' }), set('Set', 'p', { id: 'c', line: 1, parent: 'p' })])
    const copy = await folded()
    expect(copy.targets).toEqual(['public.parents', 'public.children'])
    await query('delete from children; delete from parents')
    expect(await mendAll(copy)).toMatchObject({ written: 2, refused: [], after: {} })
    await query('insert into children (id) values (null)')
    await expect(compareAll(copy)).rejects.toMatchObject({
      code: 'MILLRACE_REPLAY_REFUSED',
      message:
        'public.children has rows whose key (id, line) is null in part: no event reaches them again, and they cannot be compared',
    })
  })

  test('whose values the sink refuses no more are folded: unknown fields passed when they were applied', async () => {
    const { live, folded, query } = await replica(
      'create table orders (id text primary key, _millrace_position text collate "C")',
      [{ from: 'order', into: 'orders', key: 'id', on: { Set: 'upsert' } }],
    )
    await live([set('Set', 'a', { id: 'a', more: 1 })])
    const copy = await folded()
    await query('delete from orders')
    expect(await mendAll(copy)).toMatchObject({ written: 1, after: {} })
    expect(await copy.fold(at(0))).toMatchObject({ checkpoint: { offset: 1n } })
  })
})
