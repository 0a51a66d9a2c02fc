import { afterEach, beforeEach, expect, test } from 'vitest'
import { compareTables } from '../../../src/cli/demo/verdict.ts'
import { createDatabase, type Database } from '../../support/database.ts'

let source: Database
let replica: Database
beforeEach(async () => {
  source = await createDatabase()
  replica = await createDatabase()
  await source.query('create table orders (id bigint primary key, total numeric, note text, at timestamptz)')
  await replica.query(
    'create table orders (note text, id bigint primary key, at timestamptz, total numeric, _millrace_position text)',
  )
})
afterEach(() => Promise.all([source.drop(), replica.drop()]))

const compare = () =>
  compareTables({ source: source.url, replica: replica.url, table: 'orders', key: 'id', columns: ['id', 'total', 'note', 'at'] })

const fill = (database: Database) =>
  database.query(
    `insert into orders (id, total, note, at)
     select i, 1.10, case when i % 2 = 0 then null else 'a "note", ' || i end, 'infinity' from generate_series(-2, 12000) i`,
  )

test('two tables with the same rows are equal, whatever else the replica keeps', async () => {
  await fill(source)
  await fill(replica)
  await replica.query(`update orders set _millrace_position = 'p'`)
  await replica.query(`alter database ${replica.name} set timezone = 'Asia/Tokyo'`)
  expect(await compare()).toEqual({ rows: 12_003, equal: 12_003, different: 0, missing: 0, extra: 0, examples: [] })
})

test('every kind of damage is found, by the exact text of a value', async () => {
  await fill(source)
  await fill(replica)
  await source.query('delete from orders where id in (9, 10000)')
  await replica.query('delete from orders where id in (-2, 12000)')
  await replica.query('update orders set total = 1.1 where id = 100')
  await replica.query(`update orders set note = '' where id = 102`)
  const verdict = await compare()
  expect(verdict).toMatchObject({ rows: 12_003, equal: 11_997, different: 2, missing: 2, extra: 2 })
  expect(verdict.examples[0]).toBe('missing id=-2: (-2,1.10,,infinity)')
  expect(verdict.examples).toContain('different id=100: (100,1.10,,infinity) is (100,1.1,,infinity)')
})

test('an empty replica has everything missing', async () => {
  await fill(source)
  expect(await compare()).toMatchObject({ rows: 12_003, equal: 0, missing: 12_003, extra: 0 })
})
