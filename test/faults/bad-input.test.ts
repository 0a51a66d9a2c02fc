import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createPipeline, type MillraceConfig, type Pipeline, type Running, type StatusReport } from '../../src/index.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'

/** What an operator gets wrong: a clear error, nothing lost, no secret and no payload in any output. */

const CANARY = 'S3cr3tCanary-xyz'

let home: string
let source: Database
let replica: Database
let said: string[]
const running: Running[] = []

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'millrace-bad-input-'))
  source = await createDatabase()
  replica = await createDatabase()
  said = []
  await replica.query('create table orders (id bigint primary key, total numeric not null, _millrace_position text collate "C")')
})

afterEach(async () => {
  await Promise.allSettled(running.splice(0).map((one) => one.stop()))
  await Promise.all([source.drop(), replica.drop()])
  await rm(home, { recursive: true, force: true })
})

type On = Record<string, 'upsert' | 'ignore'>

function pipelineOf({ on = { OrderPlaced: 'upsert' } as On, different = {} as Partial<MillraceConfig> } = {}): Pipeline {
  const line =
    (level: string) =>
    (...args: readonly unknown[]): void =>
      void said.push(
        `${level} ${JSON.stringify(args, (_, value) => (value instanceof Error ? `${value.message} ${JSON.stringify(value)}` : value))}`,
      )
  const log = { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error'), child: () => log }
  return createPipeline(
    {
      name: source.name.slice(0, 40),
      source: { url: source.url, acceptUnlimitedWal: true },
      queue: { kind: 'local', path: join(home, 'queue.db'), topics: { partitions: 1 } },
      sinks: {
        warehouse: {
          kind: 'postgres',
          url: replica.url,
          tables: [{ from: 'order', into: 'public.orders', key: 'id', on }],
        },
      },
      http: false,
      ...different,
    },
    { log },
  )
}

async function start(pipeline: Pipeline): Promise<Running> {
  const one = await pipeline.run()
  running.push(one)
  return one
}

const place = (id: number, { type = 'OrderPlaced', total = '1.10' } = {}): Promise<unknown> =>
  source.query(`select millrace.emit(aggregate_type => 'order', aggregate_id => $1, type => $2, payload => $3)`, [
    String(id),
    type,
    JSON.stringify({ id, total }),
  ])
const ids = async (): Promise<readonly number[]> =>
  (await replica.query('select id::int from orders order by id')).rows.map((row) => row.id)
const hasIds = (...wanted: readonly number[]): Promise<unknown> =>
  eventually(async () => JSON.stringify(await ids()) === JSON.stringify(wanted), { within: 15_000, what: `the rows ${wanted}` })

/** the error of the only partition, once it is halted */
async function haltOf(one: Running): Promise<{ readonly error: StatusReport['sinks'][number]['error']; readonly text: string }> {
  let report = await one.status()
  const error = () => report.sinks[0]?.partitions[0]?.error ?? null
  await eventually(
    async () => {
      report = await one.status()
      return error() !== null
    },
    { within: 15_000, what: 'the partition to halt' },
  )
  return { error: error(), text: JSON.stringify(report) + said.join('\n') }
}

test('a value that does not fit its column parks its key and names event, table and column, and never shows the value; a wider column heals it', async () => {
  const pipeline = pipelineOf()
  await pipeline.init()
  const one = await start(pipeline)
  await place(1)
  await hasIds(1)
  await place(2, { total: CANARY })
  await place(3)
  await hasIds(1, 3)
  const parked = pipeline.parked('warehouse')
  const list = await parked.list()
  expect(list).toMatchObject({
    keys: [
      { order: `${source.name.slice(0, 40)}/2`, reason: { message: expect.stringMatching(/column total.*public\.orders/) } },
    ],
  })
  const report = await one.status()
  expect(report.sinks[0]?.parked).toMatchObject({ keys: 1, events: 1 })
  expect(JSON.stringify([list, report]) + said.join('\n')).not.toContain(CANARY)
  await replica.query('alter table orders alter column total type text')
  expect(await parked.redrive(`${source.name.slice(0, 40)}/2`)).toMatchObject([{ remaining: 0 }])
  await hasIds(1, 2, 3)
})

test('a type that no table maps halts before what comes after it, and goes on once it is mapped', async () => {
  const pipeline = pipelineOf()
  await pipeline.init()
  const one = await start(pipeline)
  await place(1, { type: 'OrderViewed' })
  await place(2)
  const { error } = await haltOf(one)
  expect(error).toMatchObject({ code: 'MILLRACE_EVENT_UNMAPPED', message: expect.stringContaining('OrderViewed') })
  expect(error?.remedy).toContain('ignore')
  expect(await ids()).toEqual([])
  await one.stop()
  await start(pipelineOf({ on: { OrderPlaced: 'upsert', OrderViewed: 'ignore' } }))
  await hasIds(2)
})

test('a publication or a slot that is gone ends the run with its name and the command; rows that were written stay', async () => {
  const pipeline = pipelineOf()
  await pipeline.init()
  await place(1)
  await source.query(`drop publication "millrace_${pipeline.name}"`)
  await expect((await start(pipeline)).done).rejects.toMatchObject({
    code: 'MILLRACE_PUBLICATION_MISSING',
    message: expect.stringContaining(`millrace_${pipeline.name}`),
    remedy: expect.any(String),
  })
  await source.query(`select pg_drop_replication_slot('millrace_${pipeline.name}')`)
  expect(await pipeline.check()).toContainEqual(
    expect.objectContaining({ subject: 'source', message: expect.stringContaining('slot') }),
  )
  expect((await source.query('select 1 from millrace.outbox')).rows).toHaveLength(1)
})

test('what could never be relayed is refused at the writer, whose transaction fails with it', async () => {
  await pipelineOf().init()
  const emit = (payload: string, type = 'order'): Promise<unknown> =>
    source.query(`select millrace.emit(aggregate_type => $1, aggregate_id => '1', type => 'OrderPlaced', payload => $2)`, [
      type,
      payload,
    ])
  await expect(emit('{"id":1')).rejects.toThrow('invalid input syntax for type json')
  await expect(emit(JSON.stringify('x'.repeat(1_000_001)))).rejects.toThrow(/1000003 bytes.*at most 1000000/)
  await expect(emit('{}', 'no topic')).rejects.toThrow('aggregate_type must match')
  expect((await source.query('select 1 from millrace.outbox')).rows).toEqual([])
})

test('a replica that refuses the login is said without the password, and the relay goes on', async () => {
  await pipelineOf().init()
  await place(1)
  const url = replica.url.replace(/\/\/[^@]*@/, `//nobody_here:${CANARY}@`)
  expect(url).toContain(CANARY)
  const tables = [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderPlaced: 'upsert' } }]
  const one = await start(pipelineOf({ different: { sinks: { warehouse: { kind: 'postgres', url, tables } } } }))
  await eventually(async () => said.some((line) => /MILLRACE_SINK_(AUTH|NOT_READY|UNREACHABLE)/.test(line)), {
    within: 15_000,
    what: 'a word about the login',
  })
  await eventually(async () => (await one.status()).relay?.published['outbox.event.order'] === 1, {
    within: 15_000,
    what: 'the event to be relayed meanwhile',
  })
  expect(said.join('\n') + JSON.stringify(await one.status())).not.toContain(CANARY)
  await one.stop()
  await start(pipelineOf())
  await hasIds(1)
})
