import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { MillraceConfig } from '../../src/runtime/config.ts'
import { readConfigFile } from '../../src/runtime/config-file.ts'
import { createPipeline } from '../../src/runtime/pipeline.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { millrace, type Program } from './millrace.ts'

const eventually = <T>(check: () => Promise<T>): Promise<T> => vi.waitFor(check, { timeout: 15_000, interval: 30 })

let cwd: string
let source: Database
let replica: Database
let name: string
const started: Program[] = []

beforeEach(async () => {
  source = await createDatabase()
  replica = await createDatabase()
  name = source.name.slice(0, 40)
  cwd = await mkdtemp(join(tmpdir(), 'millrace-run-'))
  await replica.query('create table orders (id bigint primary key, total numeric not null, _millrace_position text collate "C")')
  await configure()
})
afterEach(async () => {
  for (const program of started.splice(0)) {
    program.signal('SIGKILL')
    await program.finished
  }
  await Promise.all([source.drop(), replica.drop()])
  await rm(cwd, { recursive: true, force: true })
})

async function configure({ topic = 'events.{aggregate_type}' } = {}): Promise<void> {
  await writeFile(
    join(cwd, 'millrace.yaml'),
    `
name: ${name}
source: { url: "\${env:SOURCE_URL}", acceptUnlimitedWal: true }
queue: { kind: local, path: ${join(cwd, 'queue.db')}, topics: { name: "${topic}", partitions: 2 } }
sinks:
  warehouse:
    kind: postgres
    url: "\${env:REPLICA_URL}"
    tables: [{ from: order, into: public.orders, key: id, on: { OrderPlaced: upsert, OrderErased: delete } }]
http: { port: 0 }
`,
  )
}

function run(...args: readonly string[]): Program {
  const program = millrace(args, { cwd, env: { SOURCE_URL: source.url, REPLICA_URL: replica.url } })
  started.push(program)
  return program
}

/** starts `millrace run` and resolves with it and its address once it serves */
async function serve(
  ...args: readonly string[]
): Promise<{ program: Program; get(path: string): Promise<{ status: number; body: string }> }> {
  const program = run('run', ...args)
  const { url } = JSON.parse(await program.said(/"url":/)) as { url: string }
  return {
    program,
    async get(path) {
      const response = await fetch(url + path)
      return { status: response.status, body: await response.text() }
    },
  }
}

/** what `millrace init` does, without a process for it */
async function init(): Promise<void> {
  const { raw } = await readConfigFile(undefined, cwd)
  await createPipeline(raw as MillraceConfig, {
    env: { SOURCE_URL: source.url, REPLICA_URL: replica.url },
    logLevel: 'silent',
  }).init()
}

const place = (id: number, type = 'OrderPlaced') =>
  source.query(`select millrace.emit(aggregate_type => 'order', aggregate_id => $1, type => $2, payload => $3)`, [
    String(id),
    type,
    JSON.stringify({ id, total: `${id}.50` }),
  ])
const rows = async () => (await replica.query('select id::text, total::text from orders order by id')).rows

test('init makes what is missing, run carries events into the replica, and SIGTERM drains', async () => {
  expect(await run('init').finished).toMatchObject({ code: 0, stdout: expect.stringContaining(`slot millrace_${name}`) })
  expect(await run('init').finished).toMatchObject({ code: 0 })
  expect(await run('check').finished).toMatchObject({ code: 0 })

  const { program, get } = await serve()
  await eventually(async () => expect(await get('/readyz')).toEqual({ status: 200, body: 'up\n' }))
  for (const id of [1, 2, 3]) await place(id)
  await eventually(async () => expect(await rows()).toEqual([1, 2, 3].map((id) => ({ id: String(id), total: `${id}.50` }))))

  expect((await get('/metrics')).body).toContain(`millrace_published_events_total{pipeline="${name}",topic="events.order"} 3`)
  const status = JSON.parse((await get('/status')).body)
  expect(status).toMatchObject({ schema: 1, pipeline: name, slot: { active: true }, relay: { phase: 'running' }, problems: [] })
  expect(status.sinks).toMatchObject([{ name: 'warehouse', phase: 'running' }])

  program.signal('SIGTERM')
  expect(await program.finished).toMatchObject({ code: 0, stdout: '' })
})

test('status works without a running process, from what the database, the queue and the sink hold', async () => {
  await init()
  const { program } = await serve()
  await place(7)
  await eventually(async () => expect(await rows()).toHaveLength(1))
  program.signal('SIGTERM')
  await program.finished

  const { code, stdout } = await run('status', '--json').finished
  expect(code).toBe(0)
  const report = JSON.parse(stdout)
  expect(report).toMatchObject({ schema: 1, slot: { active: false }, relay: { phase: null, session: 1 }, problems: [] })
  const applied = report.sinks[0].partitions.filter((partition: { offset: string | null }) => partition.offset !== '0')
  expect(applied).toMatchObject([
    { topic: 'events.order', offset: '1', end: '1', lagEvents: 0, positions: { [name]: report.relay.position } },
  ])
  const text = (await run('status').finished).stdout
  expect(text).toContain('nobody holds it')
  expect(text).toContain('events.order')
})

test('run never migrates: before init it ends with 4 and names the command', async () => {
  const { code, stderr } = await run('run').finished
  expect(code).toBe(4)
  expect(stderr).toContain('millrace init')
  expect((await source.query(`select 1 from pg_namespace where nspname = 'millrace'`)).rows).toEqual([])
})

test('a standby is ready, and goes on where the first one stopped', async () => {
  await init()
  const first = await serve('--relay')
  await eventually(async () => expect((await first.get('/readyz')).status).toBe(200))
  const second = await serve()
  await eventually(async () => {
    expect(JSON.parse((await second.get('/status')).body).relay.phase).toBe('standby')
    expect((await second.get('/readyz')).status).toBe(200)
  })
  await place(1)
  await eventually(async () => expect(await rows()).toHaveLength(1))
  first.program.signal('SIGKILL')
  await place(2)
  await eventually(async () => expect(await rows()).toHaveLength(2))
})

test('one sink runs without the url of the source', async () => {
  await init()
  const relay = await serve('--relay')
  await place(1)
  const sink = millrace(['run', '--sink', 'warehouse'], { cwd, env: { REPLICA_URL: replica.url } })
  started.push(sink)
  await eventually(async () => expect(await rows()).toHaveLength(1))
  for (const program of [relay.program, sink]) {
    program.signal('SIGINT')
    expect(await program.finished).toMatchObject({ code: 0 })
  }
})

test('an event that cannot be applied halts its partition; the process lives, serves and says so', async () => {
  await init()
  const { program, get } = await serve()
  await place(1, 'OrderAteTheDog')
  await eventually(async () =>
    expect((await get('/metrics')).body).toMatch(
      /^millrace_halted\{.*sink="warehouse",topic="events\.order",partition="\d",code="MILLRACE_EVENT_UNMAPPED"\} 1$/m,
    ),
  )
  expect(await get('/livez')).toEqual({ status: 200, body: 'up\n' })
  program.signal('SIGTERM')
  expect(await program.finished).toMatchObject({ code: 0 })
})

test('a stream that was begun otherwise halts the relay: the process ends with 4 and the reason', async () => {
  await init()
  await configure({ topic: 'others.{aggregate_type}' })
  expect(await run('check').finished).toMatchObject({ code: 3, stdout: expect.stringContaining('topic template') })
  const { code, stderr } = await run('run').finished
  expect(code).toBe(4)
  expect(stderr).toContain('MILLRACE_FINGERPRINT_CHANGED')
})

test('a drain that takes too long ends with 5, and a second signal does so at once', async () => {
  await init()
  const blocker = new pg.Client({ connectionString: replica.url })
  await blocker.connect()
  try {
    for (const signals of [1, 2]) {
      await blocker.query('begin; lock table orders')
      const { program } = await serve(...(signals === 1 ? ['--drain', '500ms'] : []))
      await place(signals)
      await eventually(async () =>
        expect(
          (await blocker.query(`select 1 from pg_locks where not granted and relation = 'orders'::regclass`)).rows,
        ).not.toEqual([]),
      )
      program.signal('SIGTERM')
      if (signals === 2) {
        await program.said(/draining/)
        program.signal('SIGTERM')
      }
      expect(await program.finished).toMatchObject({ code: 5 })
      await blocker.query('rollback')
    }
  } finally {
    await blocker.end()
  }
  const { program } = await serve()
  await eventually(async () => expect(await rows()).toHaveLength(2))
  program.signal('SIGTERM')
  expect(await program.finished).toMatchObject({ code: 0 })
})

test('teardown removes what it was told to, and a new pipeline can begin', async () => {
  await init()
  const { code, stdout } = await run('teardown', '--slot', '--publication', '--schema', '--yes').finished
  expect(stdout.trim().split('\n')).toEqual([
    `removed slot millrace_${name}`,
    `removed publication millrace_${name}`,
    'removed schema millrace',
    "removed the relay's state in the queue",
  ])
  expect(code).toBe(0)
  expect((await source.query('select 1 from pg_replication_slots where database = current_database()')).rows).toEqual([])
  expect(await run('init').finished).toMatchObject({ code: 0 })
  expect((await run('teardown', '--publication', '--yes').finished).stdout).toContain('removed publication')
  expect((await run('teardown', '--publication', '--yes').finished).stdout).toBe('there was nothing to remove\n')
})
