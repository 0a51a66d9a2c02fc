import pg from 'pg'
import { expect, it } from 'vitest'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { createDatabase } from '../support/database.ts'
import { at, openSink } from './postgres-fixture.ts'

const NAMES = { schema: 'we"ird; --', table: 'ord"ers', key: `k"e'y`, note: 'no"te, "x' }

for (const guard of ['column', 'table'] as const)
  it(`hostile names of schema, table and column are names, and nothing else (guard: ${guard})`, async () => {
    const [schema, table, key, note] = Object.values(NAMES).map((name) => pg.escapeIdentifier(name))
    const database = await createDatabase()
    await database.query(`create schema ${schema}`)
    await database.query(
      `create table ${schema}.${table} (${key} text primary key, ${note} text${guard === 'column' ? ', _millrace_position text collate "C"' : ''})`,
    )
    const sink = await openSink({
      url: database.url,
      tables: [
        {
          from: 'order',
          into: `${NAMES.schema}.${NAMES.table}`,
          key: NAMES.key,
          guard,
          columns: { [NAMES.note]: 'note' },
          on: { Changed: 'upsert', Paid: 'merge', Erased: 'delete' },
        },
      ],
    })
    try {
      await sink.init()
      const lane = await sink.claim(at(0))
      const stream = eventStream()
      const events = [
        stream.next({ type: 'Changed', key: 'a', payload: { note: 'first' } }),
        stream.next({ type: 'Changed', key: 'b', payload: { note: `it's "gone"` } }),
        stream.next({ type: 'Erased', key: 'b' }),
      ]
      await lane.apply(batchOf(events, 3n))
      await lane.apply(batchOf([stream.next({ type: 'Paid', key: 'a', payload: { note: `it's "paid"` } })], 4n))
      expect((await database.query(`select * from ${schema}.${table}`)).rows).toMatchObject([
        { [NAMES.key]: 'a', [NAMES.note]: `it's "paid"` },
      ])
    } finally {
      await sink.close()
      await database.drop()
    }
  })
