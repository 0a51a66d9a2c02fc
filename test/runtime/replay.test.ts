import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import type { ReplayReport } from '../../src/index.ts'
import { eventually } from '../support/eventually.ts'
import type { ReplayFaults } from './replay-process.ts'
import { type VerifyStream, verifyStream } from './verify-stream.ts'

let stream: VerifyStream
afterEach(() => stream?.drop())

const k = (n: number): string => `k${String(n).padStart(7, '0')}`

async function placed(to: number): Promise<void> {
  await eventually(
    async () => Number((await stream.replica.query("select count(*) from orders where id like 'k%'")).rows[0].count) === to,
    { within: 20_000, what: `${to} rows` },
  )
}

test('rows that were changed with and without their guard, deleted or added again are mended while traffic runs', async () => {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 200)
  await placed(200)
  await stream.erase(k(150))
  const workload = stream.write()
  await placed(199)
  const { replica, pipeline } = stream
  const since = '2026-01-01T00:00Z'

  await replica.query(`update orders set body = 'changed' where id = '${k(3)}'`)
  await replica.query(
    `update orders set amount = 0, _millrace_position = 'ffffffff-ffffffffffffffff-ffffffff' where id = '${k(5)}'`,
  )
  await replica.query(
    `update orders set amount = 0, _millrace_position = (select max(_millrace_position) from orders) where id = '${k(6)}'`,
  )
  await replica.query(`update orders set version = 0, _millrace_position = null where id = '${k(7)}'`)
  await replica.query(`delete from orders where id = '${k(11)}'`)
  await replica.query(`insert into orders select '${k(150)}', 1, 'back', 1, null`)

  const plan = await pipeline.planReplay('warehouse', { from: since })
  expect(plan).toMatchObject({ sink: 'warehouse', does: 'mend', because: 'range', selected: { exact: true }, parkedKeys: 0 })
  expect(plan.selected.events).toBeGreaterThanOrEqual(201)

  const report = await pipeline.replay('warehouse', { from: since })
  expect(report).toMatchObject({ sink: 'warehouse', outcome: 'done', rows: { mended: 6, left: [], refusedKeys: [] } })
  const committed = await workload.stop()
  await stream.shows(committed)
  expect(await pipeline.verify('warehouse')).toMatchObject({ equal: true, keys: [] })
  expect(await pipeline.job('warehouse').status()).toBeNull()
})

/** @returns its report, or null where it killed itself */
async function inProcess(faults: Omit<ReplayFaults, 'config'>): Promise<ReplayReport | null> {
  const script = join(import.meta.dirname, 'replay-process.ts')
  const child = spawn(process.execPath, [script, JSON.stringify({ config: stream.config, ...faults })], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = ''
  child.stdout.on('data', (chunk) => {
    said += String(chunk)
  })
  const signal = await new Promise((resolve) => child.once('close', (_, by) => resolve(by)))
  if (signal === 'SIGKILL') return null
  return JSON.parse(said) as ReplayReport
}

/** who holds what of the sink's partitions, and how far the relay is: nothing that a replay moves */
async function owners(): Promise<readonly unknown[]> {
  const { rows } = await stream.replica.query(
    'select sink, topic, partition, owner_epoch from millrace.checkpoint order by sink, topic, partition',
  )
  return rows
}

async function damageAll(): Promise<void> {
  await stream.replica.query("update orders set body = 'changed' where id like 'k%'")
}

const since = '2026-01-01T00:00Z'

const FAILPOINTS = [
  { at: 'replay-batch-folded', time: 1 },
  { at: 'replay-batch-folded', time: 4 },
  { at: 'replay-folded', time: 1 },
  { at: 'replay-chunk-compared', time: 1 },
  { at: 'replay-done', time: 1 },
] as const

test('killed anywhere it goes on where it was, and ends with the same rows; no owner and no position but its own moved', async () => {
  stream = await verifyStream()
  const running = await stream.run()
  await stream.place(1, 600)
  await placed(600)
  const before = await owners()
  for (const kill of FAILPOINTS) {
    await damageAll()
    expect(await inProcess({ from: since, kill }), kill.at).toBeNull()
    await eventually(async () => (await stream.pipeline.job('warehouse').status())?.phase === 'stopped', {
      what: 'the server has seen the death',
    })
    // another one is refused while this one stands
    await expect(stream.pipeline.replay('warehouse', { from: since })).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_RUNNING' })
    const report = await inProcess({ from: since, resume: true })
    expect(report).toMatchObject({ outcome: 'done', rows: { left: [] } })
    expect(await stream.pipeline.verify('warehouse'), kill.at).toMatchObject({ equal: true })
  }
  expect(await owners()).toEqual(before)
  expect(running.ready()).toBe(true)
  expect(await stream.pipeline.job('warehouse').status()).toBeNull()
}, 120_000)

test('the same of a range that ends: what selects the keys is folded first, then all that they have come to', async () => {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 200)
  await placed(200)
  const { rows } = await stream.replica.query('select max(_millrace_position) as until from orders')
  const until = String(rows[0].until)
  // the range meets k1 to k200; the later events of k1 to k100 stand behind it, and so do k201 to k240
  await stream.place(1, 100)
  await stream.place(201, 240)
  await placed(240)
  await stream.erase(k(7))
  await placed(239)
  for (const kill of [
    { at: 'replay-selected', time: 1 },
    { at: 'replay-restarted', time: 1 },
    { at: 'replay-folded', time: 1 },
  ]) {
    await damageAll()
    expect(await inProcess({ from: since, to: until, kill }), kill.at).toBeNull()
    const report = await eventually(() => inProcess({ from: since, resume: true }), { what: 'it goes on', within: 20_000 })
    expect(report).toMatchObject({ outcome: 'done', rows: { keys: 200, mended: 199, left: [] } })
    const changed = await stream.replica.query(
      "select min(id) as first, count(*)::int as count from orders where body = 'changed'",
    )
    expect(changed.rows).toEqual([{ first: k(201), count: 40 }])
  }
  await stream.pipeline.replay('warehouse', { from: since })
  await stream.shows(null)
}, 120_000)
