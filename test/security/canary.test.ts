import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPipeline } from '../../src/index.ts'
import type { MillraceConfig } from '../../src/runtime/config.ts'
import { type Finished, millrace, type Program } from '../cli/millrace.ts'
import { createAuthority } from '../support/certificates.ts'
import { eventually } from '../support/eventually.ts'
import { canary, Ears } from './canary.ts'
import { type SecurePostgres, startSecurePostgres } from './secure-postgres.ts'

/**
 * Every secret of a pipeline is a word that stands nowhere else. After a run with whatever may go wrong, none of them is in
 * anything that left the process. What an event holds may stand where events stand, and nowhere else.
 */
const SECRET = {
  source: canary('source'),
  sink: canary('sink'),
  wrong: canary('wrong'),
  typed: canary('typed'),
  given: canary('given'),
  thrown: canary('thrown'),
  own: canary('own'),
  payload: canary('payload'),
  header: canary('header'),
}
const ears = new Ears()
const started: Program[] = []
let postgres: SecurePostgres
let cwd: string
let key: string
const env: Record<string, string> = {}

const urlOf = (role: string, password: string, database: string): string =>
  `postgres://${role}:${encodeURIComponent(password)}@127.0.0.1:${postgres.server.port}/${database}`

beforeAll(async () => {
  const authority = await createAuthority()
  const client = await authority.issue('relay')
  key = client.key
  postgres = await startSecurePostgres(authority.certificate)
  cwd = await mkdtemp(join(tmpdir(), 'millrace-canary-'))
  for (const database of ['shop', 'warehouse']) await postgres.query(`create database ${database}`)
  for (const role of ['source', 'sink'] as const)
    await postgres.query(`create role ${role} superuser login password ${pg.escapeLiteral(SECRET[role])}`)
  await postgres.admit(['host all all 127.0.0.1/32 scram-sha-256', 'host replication all 127.0.0.1/32 scram-sha-256'])
  Object.assign(env, {
    SOURCE_URL: urlOf('source', SECRET.source, 'shop'),
    WRONG_URL: urlOf('source', SECRET.wrong, 'shop'),
    OWN_CREDENTIAL: SECRET.own,
    NO_COLOR: '1',
  })
  await write('sink-password', `${SECRET.sink}\n`)
  await write('client.pem', client.certificate)
  await write('client.key', client.key)
  await write('millrace.yaml', yaml())
})
afterAll(async () => {
  for (const program of started) program.signal('SIGKILL')
  await postgres?.remove()
  await rm(cwd, { recursive: true, force: true })
})

const write = (name: string, text: string): Promise<void> => writeFile(join(cwd, name), text)

function yaml({ source = `url: "\${env:SOURCE_URL}"`, sink = '', more = '' } = {}): string {
  return `name: canary
source: { ${source}, acceptUnlimitedWal: true }
queue: { kind: local, path: ./queue.db, topics: { partitions: 1 } }
sinks:
  warehouse:
    kind: postgres
    url: postgres://sink@127.0.0.1:${postgres.server.port}/warehouse
    password: "\${file:sink-password}"
    tables: [{ from: order, into: public.orders, key: id, on: { OrderPlaced: upsert } }]
    ${sink}
http: { port: 0 }
${more}`
}

function start(...args: readonly string[]): Program {
  const program = millrace(args, { cwd, env })
  started.push(program)
  return program
}

async function said(...args: readonly string[]): Promise<Finished> {
  const finished = await start(...args).finished
  ears.hear(`millrace ${args.join(' ')}: standard output`, finished.stdout)
  ears.hear(`millrace ${args.join(' ')}: standard error`, finished.stderr)
  return finished
}

const noLeak = (): void => expect(ears.leaks({ ...SECRET, key: key.split('\n')[2] as string })).toEqual([])

async function asking<T extends object>(database: string, text: string, values: unknown[] = []): Promise<T[]> {
  const role = database === 'shop' ? 'source' : 'sink'
  const client = new pg.Client({ connectionString: urlOf(role, SECRET[role], database) })
  await client.connect()
  try {
    return (await client.query<T>(text, values)).rows
  } finally {
    await client.end()
  }
}

test('what works, and what is parked', async () => {
  await asking(
    'warehouse',
    `create table orders (id bigint primary key, total numeric check (total <> 666), note text unique, _millrace_position text collate "C")`,
  )
  await said('check')
  expect((await said('init')).code).toBe(0)
  expect((await said('config')).code).toBe(0)
  const running = start('run', '--log-level', 'debug')
  const { url } = JSON.parse(await running.said(/"url":/)) as { url: string }
  const emit = (id: number, payload: object): Promise<unknown> =>
    asking(
      'shop',
      `select millrace.emit(aggregate_type => 'order', aggregate_id => $1, type => 'OrderPlaced', payload => $2, headers => $3)`,
      [String(id), JSON.stringify({ id, ...payload }), JSON.stringify({ traceparent: SECRET.header })],
    )
  await emit(1, { total: '1.50', note: SECRET.payload })
  await emit(2, { total: SECRET.payload, note: 'not a number' })
  await emit(3, { total: 666, note: `${SECRET.payload} checked` })
  await emit(4, { total: 4, note: SECRET.payload })
  await emit(5, { note: 'nothing', [SECRET.payload]: 1 })
  await emit(6, { total: 6, note: `\u0000${SECRET.payload}` })
  await emit(7, { total: 7, note: 'last' })
  await eventually(async () => (await asking('warehouse', 'select 1 from orders where id = 7')).length === 1, {
    within: 60_000,
    what: 'the last event to be a row',
  })
  for (const path of ['/livez', '/readyz', '/metrics', '/status', '/nothing'])
    ears.hear(path, await (await fetch(url + path)).text())
  for (const args of [
    ['status'],
    ['status', '--json'],
    ['parked', 'list', 'warehouse'],
    ['parked', 'list', 'warehouse', '--json'],
  ])
    expect((await said(...args)).code).toBe(0)
  const shown = await said('parked', 'show', 'warehouse', '2')
  expect(shown.code).toBe(0)
  await said('parked', 'redrive', 'warehouse', '2')
  running.signal('SIGTERM')
  const { stdout, stderr } = await running.finished
  ears.hear('millrace run: standard output', stdout)
  ears.hear('millrace run: standard error', stderr)
  for (const table of ['parked', 'parked_event', 'parked_audit'])
    for (const { text } of await asking<{ text: string }>(
      'warehouse',
      `select (to_jsonb(t) - 'event' - 'value')::text as text from millrace.${table} t`,
    ))
      ears.hear(`millrace.${table}`, text)
  expect(await asking('warehouse', 'select 1 from millrace.parked')).not.toEqual([])
  for (const { text } of await asking<{ text: string }>('shop', 'select t::text as text from millrace.relay_state t'))
    ears.hear('millrace.relay_state', text)
  expect(ears.bytes).toBeGreaterThan(5_000)
  noLeak()
}, 300_000)

/** a config by its file, and what is run with it */
const BROKEN: Readonly<Record<string, () => string>> = {
  'wrong.yaml': () => yaml({ source: `url: "\${env:WRONG_URL}"` }),
  'tls.yaml': () =>
    yaml({
      source: `url: "\${env:SOURCE_URL}", tls: { ca: "\${file:client.pem}", cert: "\${file:client.pem}", key: "\${file:client.key}" }`,
    }),
  'ca.yaml': () => yaml({ source: `url: "\${env:SOURCE_URL}", tls: { ca: "\${file:client.key}", key: "\${file:client.key}" }` }),
  'alias.yaml': () => yaml({ source: `url: "x", password: *${SECRET.typed.replaceAll(/["/+]/g, '')}` }),
  'tag.yaml': () => yaml({ source: `url: "x", password: !${SECRET.typed.replaceAll(/["/+]/g, '')} y` }),
  'block.yaml': () => `name: canary\nsource:\n  password: |${SECRET.typed.replaceAll(/["/+]/g, '')}\n`,
  'colon.yaml': () => `name: canary\nsource:\n  password: a: ${SECRET.typed}\n`,
  'key.yaml': () => yaml({ more: `password: '${SECRET.typed}'` }),
  'list.yaml': () => yaml({ source: `url: "x", password: ['${SECRET.typed}']` }),
  'scheme.yaml': () => yaml({ source: `url: 'mysql://me:${encodeURIComponent(SECRET.typed)}@db/shop'` }),
  'port.yaml': () => yaml({ source: `url: 'postgres://me:${encodeURIComponent(SECRET.typed)}@db:port/shop'` }),
  'percent.yaml': () => yaml({ source: `url: 'postgres://me:%zz${encodeURIComponent(SECRET.typed)}@127.0.0.1:1/shop'` }),
  'sslmode.yaml': () => yaml({ source: `url: 'postgres://me:${encodeURIComponent(SECRET.typed)}@db/shop?sslmode=require'` }),
  'kind.yaml': () => yaml({ source: `url: "\${env:SOURCE_URL}", pasword: '${SECRET.typed}'` }),
  'down.yaml': () => yaml().replace(`:${postgres.server.port}/warehouse`, ':1/warehouse'),
  'kafka.yaml': () =>
    yaml().replace(
      /queue: .*/,
      `queue: { kind: kafka, brokers: ["127.0.0.1:1"], requestTimeout: 2s, sasl: { mechanism: plain, username: u, password: '${SECRET.typed}' } }`,
    ),
  'throws.ts': () => `throw new Error(${JSON.stringify(SECRET.thrown)})\n`,
  'rejects.ts': () => `await Promise.reject({ token: ${JSON.stringify(SECRET.thrown)} })\n`,
  'parses.ts': () => `export default JSON.parse(${JSON.stringify(`{"password": ${SECRET.thrown}`)})\n`,
  'syntax.ts': () => `export default { password: ${JSON.stringify(SECRET.thrown)} 'x' }\n`,
  'later.ts': () =>
    `setTimeout(() => { throw Object.assign(new Error('later'), { detail: process.env.OWN_CREDENTIAL }) }, 1)\nawait new Promise((resolve) => setTimeout(resolve, 5_000))\nexport default {}\n`,
  'function.ts': () =>
    module(`url: 'postgres://source@127.0.0.1:${postgres.server.port}/shop', password: () => ${JSON.stringify(SECRET.given)}`),
  'refuses.ts': () =>
    module(
      `url: 'postgres://source@127.0.0.1:${postgres.server.port}/shop', password: async () => { throw new Error('vault: ' + ${JSON.stringify(SECRET.thrown)}) }`,
    ),
  'own.ts': () => module("url: '${env:SOURCE_URL}'", "own: { kind: './own-sink.ts', password: '${env:OWN_CREDENTIAL}' }"),
}

const module = (source: string, sink = ''): string =>
  `export default { name: 'canary', source: { ${source} }, queue: { kind: 'local', path: './queue.db' }, sinks: { ${sink} }, http: false }\n`

/** what fails in each way that a module of somebody else's can */
const OWN_SINK = `
export default {
  connector: 'sink', contract: 1, name: 'own',
  options: { '~standard': { version: 1, vendor: 'own', validate: (value) => ({ value }) } },
  follows: () => null,
  async open({ password }, { log }) {
    log.warn({ err: Object.assign(new Error('in a log: ' + password), { password, detail: password }), password }, 'said ' + password)
    setTimeout(() => { throw Object.assign(new Error('nobody catches ' + password), { password, inner: { password } }) }, 50)
    await new Promise((resolve) => setTimeout(resolve, 10_000))
  },
}
`

test.each(Object.keys(BROKEN))(
  'what does not: %s',
  async (name) => {
    await write('own-sink.ts', OWN_SINK)
    await write(name, (BROKEN[name] as () => string)())
    const { code, stdout, stderr } = await said('check', '-c', name)
    expect(code, stdout + stderr).not.toBe(0)
    // it says something all the same
    expect(stdout + stderr).toMatch(/MILLRACE_|✗/)
    noLeak()
  },
  120_000,
)

test('what goes on trying, and what is asked by a program', async () => {
  const running = start('run', '-c', 'wrong.yaml', '--log-level', 'debug')
  await running.said(/SOURCE_AUTH/)
  running.signal('SIGTERM')
  const { stdout, stderr } = await running.finished
  ears.hear('millrace run -c wrong.yaml', stdout + stderr)
  const config: MillraceConfig = {
    name: 'canary',
    source: { url: urlOf('source', SECRET.wrong, 'shop') },
    queue: { kind: 'local', path: join(cwd, 'queue.db') },
  }
  const lines: string[] = []
  const note = (fields: object, message: string): void => void lines.push(JSON.stringify(fields) + message)
  const log = { debug: note, info: note, warn: note, error: note, child: () => log }
  for (const attempt of ['check', 'init', 'status'] as const)
    ears.hear(
      attempt,
      await createPipeline(config, { log })
        [attempt]()
        .catch((error: unknown) => error as Error),
    )
  ears.hear('a log of a program', lines.join('\n'))
  expect((await said('teardown', '--slot', '--publication', '--schema', '--yes')).code).toBe(0)
  noLeak()
}, 120_000)
