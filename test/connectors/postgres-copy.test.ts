import { expect, onTestFinished, test } from 'vitest'
import type { PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import type { Copy, Reach } from '../../src/core/copy.ts'
import { orderOf } from '../../src/core/event.ts'
import type { Parking } from '../../src/core/sink.ts'
import { eachPostgres, withClient } from '../postgres/each-postgres.ts'
import { compareAll, type Follower, follow, kinds, mendAll, WHOLE } from './postgres-copy-fixture.ts'
import { at, ORDERS } from './postgres-fixture.ts'

const BY = { actor: 'ada', note: null }
const changed = (key: string, note: string) => ({ type: 'Changed', key, payload: { id: key, total: 1, note } })
const erased = (key: string) => ({ type: 'Erased', key })
const HIGH = 'ffffffff-ffffffffffffffff-00000001'

for (const guard of ['column', 'table'] as const)
  eachPostgres(`a folded copy, guard: ${guard}`, (create) => {
    const tables = [{ from: 'order', into: 'orders', key: 'id', guard, on: { Changed: 'upsert', Erased: 'delete' } }] as const

    async function orders(options: Partial<PostgresSinkOptions> = {}) {
      const database = await create()
      onTestFinished(() => database.drop())
      const query = (text: string) => withClient(database.url, (client) => client.query(text))
      await query(guard === 'column' ? ORDERS : ORDERS.replace(', _millrace_position text collate "C"', ''))
      const follower = await follow({ url: database.url, tables, ...options })
      const rows = async () =>
        Object.fromEntries((await query('select id, note from orders order by id')).rows.map(({ id, note }) => [id, note]))
      const setGuard = (key: string, position: string | null) =>
        guard === 'column'
          ? query(`update orders set _millrace_position = ${position === null ? 'null' : `'${position}'`} where id = '${key}'`)
          : position === null
            ? query(`delete from millrace.guard where key = '${key}'`)
            : query(`update millrace.guard set position = '${position}' where key = '${key}'`)
      const guards = async () =>
        Object.fromEntries(
          (
            await query(
              guard === 'column'
                ? 'select id as key, _millrace_position as position from orders'
                : 'select key, position from millrace.guard order by key',
            )
          ).rows.map(({ key, position }) => [key, position]),
        )
      return { ...follower, query, rows, setGuard, guards }
    }

    async function folded(follower: Follower): Promise<Copy> {
      const copy = await follower.create()
      onTestFinished(() => copy.close())
      await follower.foldOn(copy)
      return copy
    }

    test('is equal to rows that were made by the same events, whatever the size of a comparison', async () => {
      const follower = await orders()
      await follower.live([...'abcdefg'].map((key) => changed(key, '1')))
      await follower.live([changed('b', '2'), erased('c'), erased('nobody'), changed('d', '3'), erased('d'), changed('d', '4')])
      const copy = await folded(follower)
      for (const limit of [1, 2, 3, 6, 100]) {
        expect(await compareAll(copy, WHOLE, limit)).toEqual({ keys: 6, differences: [] })
        // without a reach its own keys are looked at: the rows, and what it has deleted
        expect((await compareAll(copy, null, limit)).differences).toEqual([])
      }
      expect(copy.targets).toEqual(['public.orders'])
    })

    test('tells rows that were changed, removed and made behind our back, and brings them to their folded state', async () => {
      const follower = await orders()
      await follower.live([...'abcdefg'].map((key) => changed(key, key)))
      await follower.live([erased('f'), erased('g')])
      const before = await follower.guards()
      const copy = await folded(follower)
      await follower.query(`update orders set note = 'damaged' where id in ('a', 'b')`)
      await follower.query(`update orders set note = null where id = 'c'`)
      await follower.query(`delete from orders where id = 'd'`)
      await follower.query(`insert into orders (id, note) values ('f', 'back'), ('h', 'new')`)
      await follower.query(`delete from millrace.deleted where key = 'f'`)
      const found = { a: 'different', b: 'different', c: 'different', d: 'missing', f: 'extra', h: 'extra' }
      expect(await kinds(copy)).toEqual(found)
      expect(await mendAll(copy)).toEqual({ written: 4, removed: 2, left: 0, refused: [], after: {} })
      expect(await follower.rows()).toEqual({ a: 'a', b: 'b', c: 'c', d: 'd', e: 'e' })
      expect(await follower.guards()).toEqual(guard === 'column' ? before : { ...before, f: undefined })
      expect((await follower.query('select key from millrace.deleted order by key')).rows).toEqual([{ key: 'f' }, { key: 'g' }])
      // the lane goes on as if nothing had been
      await follower.live([changed('f', 'again'), changed('a', 'on')])
      expect(await follower.rows()).toMatchObject({ a: 'on', f: 'again' })
    })

    test('of rows that are not in the stream, removes those it may only, and those that were deleted always', async () => {
      const follower = await orders()
      await follower.live([changed('a', '1'), changed('b', '1'), erased('b')])
      const copy = await folded(follower)
      await follower.query(`insert into orders (id) values ('b'), ('x')`)
      expect(await kinds(copy, null)).toEqual({ b: 'extra' })
      expect(await mendAll(copy, { extras: false })).toMatchObject({ removed: 1, left: 1, after: { x: 'extra' } })
    })

    test('believes a guard only if it can be true', async () => {
      const follower = await orders()
      const [first] = await follower.live([
        changed('a', '1'),
        changed('b', '1'),
        changed('c', '1'),
        changed('d', '1'),
        changed('e', '1'),
      ])
      const last = await follower.live([changed('z', '1')])
      const copy = await folded(follower)
      const before = await follower.guards()
      await follower.setGuard('a', HIGH)
      // not beyond the checkpoint, and yet nothing was there that is not folded
      await follower.setGuard('b', last[0]?.position as string)
      await follower.setGuard('c', first?.position as string)
      await follower.setGuard('d', null)
      expect(await kinds(copy)).toEqual({ a: 'different', b: 'different', c: 'different', d: 'different' })
      expect(await mendAll(copy)).toMatchObject({ written: 4, after: {} })
      expect(await follower.guards()).toEqual(before)
    })

    test('believes a delete marker only if it can be true, and a row that is made again is not held by a false one', async () => {
      const follower = await orders()
      await follower.live([changed('a', '1'), changed('b', '1'), erased('b')])
      const copy = await folded(follower)
      await follower.query(`delete from orders; update millrace.deleted set key = 'a', position = '${HIGH}'`)
      expect(await kinds(copy)).toEqual({ a: 'missing' })
      expect(await mendAll(copy)).toMatchObject({ written: 1, after: {} })
      await follower.live([changed('a', '2')])
      expect(await follower.rows()).toEqual({ a: '2' })
    })

    test('leaves a row alone that has gone on beyond the fold', async () => {
      const follower = await orders()
      await follower.live([changed('a', '1'), changed('b', '1'), changed('c', '1'), changed('q', '1')])
      await follower.live([changed('p', '1')], at(1))
      const copy = await folded(follower)
      await follower.live([changed('a', '2'), erased('b'), changed('n', '1')])
      await follower.query(`update orders set note = 'damaged' where id = 'c'`)
      // beyond every checkpoint is damage, live traffic or not
      await follower.setGuard('q', HIGH)
      const found = await compareAll(copy)
      expect(Object.fromEntries(found.differences.map(({ key, kind }) => [key, kind]))).toEqual({
        a: 'newer',
        b: 'newer',
        c: 'different',
        n: 'newer',
        q: 'different',
      })
      expect(await copy.mend(found.differences, { extras: true })).toMatchObject({ written: 2, removed: 0, left: 3 })
      expect(await follower.rows()).toEqual({ a: '2', c: '1', n: '1', p: '1', q: '1' })
      await follower.foldOn(copy)
      expect(await copy.recheck(found.differences, { limit: 10, reach: WHOLE })).toEqual([])
      expect(await kinds(copy)).toEqual({})
    })

    test('does not take for missing what was deleted beyond the fold and is forgotten already', async () => {
      const follower = await orders()
      await follower.live([changed('a', '1'), changed('b', '1')])
      const copy = await folded(follower)
      const [, deleted] = await follower.live([changed('c', '1'), erased('a')])
      await follower.query(`delete from millrace.deleted; delete from millrace.guard where key = 'a'`)
      await follower.query(`update millrace.target set forgotten_below = '${deleted?.position}'`)
      const { differences } = await compareAll(copy, null)
      expect(differences.map(({ key, kind }) => [key, kind])).toEqual([['a', 'missing']])
      await expect(copy.mend(differences, { extras: false })).rejects.toMatchObject({ code: 'MILLRACE_COPY_BEHIND' })
      await follower.foldOn(copy)
      expect(await copy.mend(differences, { extras: false })).toMatchObject({ written: 0, left: 1 })
      expect(await follower.rows()).toEqual({ b: '1', c: '1' })
      // and what is folded past all that is forgotten is written
      await follower.query(`delete from orders where id = 'b'`)
      expect(await mendAll(copy)).toMatchObject({ written: 1, after: {} })
    })

    test('knows a row that is older than the queue reaches for unverifiable', async () => {
      const follower = await orders()
      await follower.live([changed('old', '1'), changed('gone', '1')])
      const [since] = await follower.live([changed('a', '1'), changed('b', '1'), erased('b')])
      const copy = await follower.create()
      await follower.foldOn(copy, 2)
      await follower.query(`insert into orders (id) values ('x')`)
      await follower.query(
        guard === 'column'
          ? `insert into orders values ('y', 1, '', '${since?.position}'), ('w', 1, '', '${HIGH}')`
          : `insert into orders (id) values ('y'), ('w'); insert into millrace.guard values ('replica', 'public.orders', 'y', '${since?.position}'), ('replica', 'public.orders', 'w', '${HIGH}')`,
      )
      const reach: Reach = { whole: false, since: new Map([['shop', since?.position as NonNullable<typeof since>['position']]]) }
      const found = { gone: 'unverifiable', old: 'unverifiable', w: 'unverifiable', x: 'unverifiable', y: 'extra' }
      expect(await kinds(copy, reach)).toEqual(found)
      expect(await mendAll(copy, { reach })).toMatchObject({ removed: 1, written: 0, left: 4 })
      expect(Object.keys(await follower.rows())).toEqual(['a', 'gone', 'old', 'w', 'x'])
    })

    test('leaves the rows of parked keys alone, also when they were redriven since', async () => {
      const follower = await orders()
      await follower.live([changed('a', '1'), changed('b', '1'), changed('c', '1')])
      const [parked] = await follower.park([changed('a', '2'), changed('new', '1'), changed('b', '2')])
      const copy = await folded(follower)
      await follower.query(`update orders set note = 'damaged' where id in ('a', 'c')`)
      expect(await kinds(copy)).toEqual({ a: 'parked', b: 'parked', new: 'parked', c: 'different' })
      expect(await kinds(copy, null)).toEqual({ a: 'parked', b: 'parked', new: 'parked', c: 'different' })
      expect(await compareAll(copy, null)).toMatchObject({ keys: 4 })
      const { keys, differences } = await compareAll(copy)
      expect(keys).toBe(4)
      await (follower.sink.parking as Parking).redrive({ ...at(0), order: orderOf(parked as NonNullable<typeof parked>) }, BY)
      expect(await copy.mend(differences, { extras: true })).toMatchObject({ written: 1, left: 3 })
      expect(await follower.rows()).toEqual({ a: '2', b: '1', c: '1' })
      await copy.restart()
      await follower.foldOn(copy)
      expect(await kinds(copy)).toEqual({ b: 'parked', new: 'parked' })
    })

    test('compares and mends what was selected, however far it is folded on', async () => {
      const follower = await orders()
      await follower.live([changed('a', '1'), changed('b', '1'), erased('b'), changed('c', '1')])
      const copy = await follower.create()
      await follower.foldOn(copy, 1)
      expect(await copy.select()).toBe(2)
      await copy.restart()
      await follower.live([changed('c', '2'), changed('d', '1')])
      await follower.foldOn(copy)
      await follower.query(`update orders set note = 'damaged'; insert into orders (id) values ('b')`)
      expect(await kinds(copy, null)).toEqual({ b: 'extra', c: 'different' })
      expect(await mendAll(copy, { reach: null })).toMatchObject({ written: 1, removed: 1, after: {} })
      expect(await follower.rows()).toEqual({ a: 'damaged', c: '2', d: 'damaged' })
      // another selection takes its place
      expect(await copy.select()).toBe(4)
    })

    test('writes what a table takes, and says of the rest why not', async () => {
      const follower = await orders()
      await follower.live([...'abcdefgh'].map((key) => changed(key, key)))
      const copy = await folded(follower)
      await follower.query(`update orders set note = 'damaged' || id`)
      await follower.query(`alter table orders add constraint fit check (note not in ('c', 'f')) not valid`)
      await follower.query(`create unique index on orders (note)`)
      await follower.query(`update orders set note = 'b' where id = 'a'; update orders set note = 'a' where id = 'h'`)
      const { differences } = await compareAll(copy)
      const { refused, ...counts } = await copy.mend(differences, { extras: true })
      // a's value is b's until b has its own, and h has a's
      expect(counts).toEqual({ written: 6, removed: 0, left: 2 })
      expect(refused.map(({ key }) => key.key).sort()).toEqual(['c', 'f'])
      expect(refused[0]?.reason).toEqual({
        code: 'MILLRACE_EVENT_REJECTED',
        message: 'orders does not take the row as it is folded: a check constraint refuses the row (constraint fit, 23514)',
      })
    })
  })
