import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { millrace, type Program } from './cli/millrace.ts'
import { createDatabase, type Database } from './support/database.ts'
import { eventually } from './support/eventually.ts'

/** What the README tells a user to type is typed here, as it stands there. */

const root = join(import.meta.dirname, '..')
const readme = await readFile(join(root, 'README.md'), 'utf8')

const blocks = (language: string): readonly string[] =>
  [...readme.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
    .filter(([, named]) => named === language)
    .map(([, , text]) => text as string)

let source: Database
let warehouse: Database
let folder: string
let running: Program | undefined

beforeAll(async () => {
  source = await createDatabase('shop')
  warehouse = await createDatabase('warehouse')
  folder = await mkdtemp(join(tmpdir(), 'millrace-readme-'))
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
})

afterAll(async () => {
  running?.signal('SIGKILL')
  await running?.finished
  await source.drop()
  await warehouse.drop()
  await rm(folder, { recursive: true, force: true })
})

test('its two commands are what the package runs', async () => {
  const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
  const shell = blocks('sh').map((block) => block.trim())
  expect(shell).toContain('npm ci && npm run demo')
  expect(shell).toContain('npm ci && npm test')
  for (const [, name] of readme.matchAll(/npm run ([a-z]+)/g)) expect(scripts).toHaveProperty(name as string)
  expect(scripts.demo).toBe('node src/cli/main.ts demo')
})

test('its config, commands, SQL and TypeScript lead from an event to a row', async () => {
  const config = blocks('yaml')[0] as string
  // no broker of that name here: the embedded queue, which it names for such machines
  const embedded = config.replace(
    /queue:\n {2}kind: kafka\n {2}brokers: .*\n/,
    'queue: { kind: local, path: ./queue.db }\nhttp: false\n',
  )
  expect(embedded).not.toBe(config)
  expect(readme).toContain('queue: { kind: local, path: ./queue.db }')
  await writeFile(join(folder, 'millrace.yaml'), embedded)
  await source.query('create table orders (id bigint primary key, total numeric)')
  await warehouse.query(
    'create table orders (id bigint primary key, total numeric, paid_at text, _millrace_position text collate "C")',
  )
  const env = { DATABASE_URL: source.url, WAREHOUSE_URL: warehouse.url }

  const commands = [...readme.matchAll(/^npx millrace ([^#\n]+)/gm)].map(([, command]) => (command as string).trim())
  expect(commands).toEqual([
    ...['check', 'init', 'run', 'status', 'parked list warehouse'],
    ...['resume', 'drain'],
    ...['checkpoint save before-deploy', 'verify warehouse', 'replay warehouse --from before-deploy', 'rebuild warehouse'],
  ])
  const codes: Record<string, number | null> = {}
  const whileStopped = commands.splice(5)
  for (const command of commands) {
    const program = millrace(command.split(' '), { cwd: folder, env })
    if (command === 'run') {
      running = program
      await program.said(/relay session began/)
    } else codes[command] = (await program.finished).code
  }
  // before init a check finds what init makes
  expect(codes).toEqual({ check: 3, init: 0, status: 0, 'parked list warehouse': 0 })

  await source.query(blocks('sql')[0] as string)
  await eventually(
    async () => (await warehouse.query('select total::text from orders where id = 42')).rows[0]?.total === '10.00',
    {
      within: 20_000,
      what: 'the event written by SQL to be a row',
    },
  )

  const outbox = pathToFileURL(join(root, 'src/outbox/')).href
  const written = (blocks('ts')[0] as string)
    .replace("'millrace/outbox'", `'${outbox}index.ts'`)
    .replace("'millrace/events'", `'${outbox}events.ts'`)
  expect(written).toContain(outbox)
  await writeFile(
    join(folder, 'service.ts'),
    `import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { z } from 'zod'
const orderSchema = z.object({ id: z.number(), total: z.string(), paidAt: z.string().nullable() })
const paidSchema = z.object({ id: z.number(), paidAt: z.string() })
const db = new Kysely<{ orders: { id: number; total: string } }>({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: process.env.DATABASE_URL }) }) })
const row = { id: 43, total: '11.50' }
const order = { ...row, paidAt: null }
${written.replace('.values(order)', '.values(row)')}
await db.destroy()
`,
  )
  await promisify(execFile)(process.execPath, [join(folder, 'service.ts')], { env: { ...process.env, ...env } })
  await eventually(
    async () => (await warehouse.query('select total::text from orders where id = 43')).rows[0]?.total === '11.50',
    {
      within: 20_000,
      what: 'the event written by TypeScript to be a row',
    },
  )
  running?.signal('SIGTERM')
  expect((await running?.finished)?.code).toBe(0)
  for (const command of whileStopped)
    expect((await millrace(command.split(' '), { cwd: folder, env }).finished).code, command).toBe(0)
}, 180_000)
