import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { migrate } from '../../src/postgres/migrate.ts'
import { loadBackfill } from '../../src/runtime/backfill.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { millrace } from './millrace.ts'

let cwd: string
let database: Database
const OUTBOX = pathToFileURL(join(import.meta.dirname, '../../src/outbox/index.ts')).href
const run = (...args: readonly string[]) => millrace(['backfill', ...args], { cwd })
const module = (name: string, text: string) => writeFile(join(cwd, name), `import { defineBackfill } from '${OUTBOX}'\n${text}`)
const emitted = async (): Promise<number> =>
  (await database.query('select count(*)::int as count from millrace.outbox')).rows[0].count

beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'millrace-backfill-'))
  database = await createDatabase()
  const client = new pg.Client(database.url)
  await client.connect()
  await migrate(client)
  await client.end()
  await database.query(
    'create table orders (id int primary key, note text); insert into orders select n from generate_series(1, 500) n',
  )
  // neither the queue nor a sink is asked: their secrets are not even there
  await writeFile(
    join(cwd, 'millrace.yaml'),
    `
name: shop
source: { url: "${database.url}" }
queue: { kind: kafka, brokers: ["\${env:NOT_SET}"] }
sinks: { warehouse: { kind: postgres, url: "\${env:NOT_SET}", tables: [] } }
`,
  )
  await module(
    'orders.ts',
    `interface Order { readonly id: number }
export default defineBackfill({
  name: 'orders',
  select: { table: 'orders' },
  toEvent: (row: Order) => ({ aggregateType: 'order', aggregateId: row.id, type: 'OrderChanged', payload: row }),
})`,
  )
})
beforeEach(() => database.query('truncate millrace.outbox, millrace.backfill'))
afterAll(async () => {
  await database.drop()
  await rm(cwd, { recursive: true, force: true })
})

test('a module becomes events, and Ctrl-C loses nothing', async () => {
  const first = run('orders.ts', '--rate', '60', '--chunk', '10', '--json')
  await first.said(/"progress":\{"name":"orders"/)
  first.signal('SIGINT')
  const { code, stdout } = await first.finished
  expect(code).toBe(4)
  const { backfill } = JSON.parse(stdout) as { backfill: { rows: number; done: boolean } }
  expect(backfill).toMatchObject({ done: false })
  expect(await emitted()).toBe(backfill.rows)
  expect(backfill.rows).toBeLessThan(500)

  expect(await run('orders.ts').finished).toMatchObject({ code: 0, stdout: 'orders: 500 rows read, 500 events, done\n' })
  expect(await emitted()).toBe(500)
})

test('what is no backfill is told', async () => {
  await writeFile(join(cwd, 'empty.ts'), 'export default {}')
  await expect(loadBackfill(join(cwd, 'nowhere.ts'))).rejects.toMatchObject({
    code: 'MILLRACE_USAGE',
    message: expect.stringContaining('nowhere.ts cannot be loaded') as string,
  })
  await expect(loadBackfill(join(cwd, 'empty.ts'))).rejects.toMatchObject({
    code: 'MILLRACE_USAGE',
    message: expect.stringContaining('exports no backfill') as string,
  })
})
