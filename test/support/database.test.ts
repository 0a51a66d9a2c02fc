import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDatabase, type Database } from './database.ts'

let db: Database
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())
test('the run has a Postgres that decodes logically', async () => {
  expect((await db.query('show wal_level')).rows).toEqual([{ wal_level: 'logical' }])
})
