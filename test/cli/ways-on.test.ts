import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { REPLICA, type Stream, streamOf } from '../runtime/stream.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { type Finished, millrace } from './millrace.ts'

vi.setConfig({ testTimeout: 180_000 })

/** What an operator types, reads and scripts when a stream cannot go on, or is to stand still. */

let cwd: string
let source: Database
let replica: Database
let stream: Stream

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'millrace-ways-'))
  source = await createDatabase('source')
  replica = await createDatabase('replica')
  await replica.query(REPLICA)
  stream = streamOf({
    name: source.name.slice(0, 40),
    sourceUrl: source.url,
    replicaUrl: replica.url,
    queue: { kind: 'local', path: join(cwd, 'queue.db') },
  })
  // JSON is YAML
  await writeFile(join(cwd, 'millrace.yaml'), JSON.stringify(stream.config))
  await stream.pipeline().init()
  await stream.write(10)
  await stream.flow()
})
afterEach(async () => {
  await stream.stop()
  await Promise.all([source.drop(), replica.drop()])
  await rm(cwd, { recursive: true, force: true })
})

const run = (...args: readonly string[]): Promise<Finished> => millrace(args, { cwd }).finished
const dropSlot = () => stream.query('select pg_drop_replication_slot($1)', [stream.made])

test('resume explains, asks for --yes, goes the way and says what became of it', async () => {
  expect(await run('resume')).toMatchObject({ code: 0, stdout: expect.stringContaining('nothing is wrong') })
  await dropSlot()
  await stream.write(7)

  const told = await run('resume')
  expect(told).toMatchObject({ code: 4 })
  expect(told.stdout).toMatch(/MILLRACE_SLOT_MISSING/)
  expect(told.stdout).toMatch(/relayed +up to [0-9A-F]+\/[0-9A-F]+, the last event at 00000001-/)
  expect(told.stdout).toContain('no slot')
  expect(told.stdout).toContain('17 rows')
  expect(told.stdout).toContain('millrace resume --refill --yes')
  expect(told.stdout).toContain('millrace resume --accept-gap --yes')
  const json = await run('resume', '--json')
  expect(json.code).toBe(4)
  expect(JSON.parse(json.stdout)).toMatchObject({ schema: 1, verdict: 'decide', server: { slot: null, publication: true } })

  expect(await run('resume', '--refill', '--accept-gap', '--yes')).toMatchObject({ code: 2 })
  expect(await run('resume', '--refill')).toMatchObject({ code: 2, stderr: expect.stringContaining('resume --refill --yes') })
  expect(await stream.query('select 1 from pg_replication_slots where slot_name = $1', [stream.made])).toEqual([])

  const done = await run('resume', '--refill', '--yes')
  expect(done).toMatchObject({ code: 0 })
  expect(done.stdout).toMatch(/epoch 2: /)
  expect(done.stdout).toContain('refilled: 7 events published, 0 left alone')
  expect((await run('status')).stdout).toMatch(/gap +from .+ to .+, before epoch 2, .*refilled: 7 events published/)
  expect(JSON.parse((await run('status', '--json')).stdout).gaps).toMatchObject([{ epoch: 2, refill: { published: 7 } }])
  expect(await run('resume', '--refill', '--yes')).toMatchObject({ code: 2, stderr: expect.stringContaining('nothing is wrong') })
})

test('drain ends with 0 when all is at its end, with 5 and who is behind when time is up', async () => {
  await stream.write(5)
  const drained = await run('drain', '--json')
  expect(drained).toMatchObject({ code: 0 })
  expect(JSON.parse(drained.stdout)).toMatchObject({ schema: 1, published: 5, sinks: [{ name: 'warehouse' }] })
  expect((await run('drain')).stdout).toMatch(
    /drained: all that was committed before .*\n {2}warehouse: at the end of 3 partitions/,
  )

  const blocker = new pg.Client({ connectionString: replica.url })
  await blocker.connect()
  try {
    await blocker.query('begin; lock table orders')
    await stream.write(5)
    expect(await run('drain', '--timeout', '6s')).toMatchObject({
      code: 5,
      stderr: expect.stringMatching(/the stream is not drained: the (relay|sink) /),
    })
    await blocker.query('rollback')
  } finally {
    await blocker.end()
  }
  expect(await run('drain', '--timeout', 'soon')).toMatchObject({ code: 2 })
})

test('init --new-epoch asks for --yes, and for a drain', async () => {
  expect(await run('init', '--new-epoch')).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') })
  await dropSlot()
  expect(await run('init', '--new-epoch', '--yes')).toMatchObject({ code: 4, stderr: expect.stringContaining('millrace drain') })
})
