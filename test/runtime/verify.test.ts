import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import type { KeyReport, VerifyReport } from '../../src/index.ts'
import { eventually } from '../support/eventually.ts'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { TABLES, type VerifyStream, verifyStream } from './verify-stream.ts'

let stream: VerifyStream
afterEach(() => stream?.drop(), 60_000)

const k = (n: number): string => `k${String(n).padStart(7, '0')}`
const kinds = ({ keys }: Pick<VerifyReport, 'keys'>): readonly string[] => keys.map(({ key, kind }) => `${key} ${kind}`).sort()

/** with and without their guards, deleted, added */
async function damage({ replica }: VerifyStream): Promise<readonly string[]> {
  await replica.query(`update orders set body = 'changed' where id = '${k(3)}'`)
  await replica.query(
    `update orders set amount = 0, _millrace_position = 'ffffffff-ffffffffffffffff-ffffffff' where id = '${k(5)}'`,
  )
  await replica.query(`update orders set version = 0, _millrace_position = null where id = '${k(7)}'`)
  await replica.query(`delete from orders where id = '${k(11)}'`)
  await replica.query("insert into orders values ('added', 1, 'added', 1, null)")
  return ['added extra', `${k(3)} different`, `${k(5)} different`, `${k(7)} different`, `${k(11)} missing`].sort()
}

async function damageIsFoundAndMended(): Promise<void> {
  await stream.run()
  await stream.place(1, 200)
  const workload = stream.write()
  await stream.has(200)
  expect(await stream.pipeline.verify('warehouse')).toMatchObject({ outcome: 'done', equal: true, whole: true, keys: [] })

  const damaged = await damage(stream)
  const told: KeyReport[] = []
  const found = await stream.pipeline.verify('warehouse', { onKey: (key) => told.push(key) })
  expect(kinds(found)).toEqual(damaged)
  expect(found).toMatchObject({ equal: false, repaired: false, sink: 'warehouse' })
  expect(found.tables).toMatchObject([{ table: 'public.orders', missing: 1, extra: 1, different: 3, hot: 0, mended: 0 }])
  expect(told.map(({ key, kind }) => `${key} ${kind}`).sort()).toEqual(damaged)

  const repaired = await stream.pipeline.verify('warehouse', { repair: true })
  expect(kinds(repaired)).toEqual(damaged)
  expect(repaired).toMatchObject({ equal: true, repaired: true })
  expect(repaired.keys.every(({ mended }) => mended)).toBe(true)
  expect(await stream.pipeline.verify('warehouse')).toMatchObject({ equal: true, keys: [] })
  await stream.shows(await workload.stop())
}

describe('damage is named, key by key, while traffic runs; a repair mends just that; then all is equal', () => {
  test('the embedded queue', async () => {
    stream = await verifyStream()
    await damageIsFoundAndMended()
  }, 60_000)

  requires('kafka')('Kafka', () => {
    test('Kafka', async () => {
      stream = await verifyStream({ brokers: await sharedKafka() })
      await damageIsFoundAndMended()
    }, 90_000)
  })
})

test('a row that was deleted stays deleted, also when its delete marker has expired', async () => {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 20)
  await stream.erase(k(4))
  await stream.has(19)
  await stream.replica.query('update millrace.target set forgotten_below = (select max(position) from millrace.deleted)')
  await stream.replica.query('delete from millrace.deleted')
  await stream.replica.query(
    `insert into orders select '${k(4)}', version, body, amount, _millrace_position from orders where id = '${k(5)}'`,
  )
  expect(kinds(await stream.pipeline.verify('warehouse', { repair: true }))).toEqual([`${k(4)} extra`])
  await stream.has(19)
  expect(await stream.pipeline.verify('warehouse')).toMatchObject({ equal: true })
})

test('a key that is older than the queue reaches is unverifiable, and left alone', async () => {
  stream = await verifyStream()
  const running = await stream.run()
  await stream.place(1, 20)
  await stream.has(20)
  const cut = Date.now() + 1
  await eventually(() => Date.now() > cut, { what: 'the next ms' })
  await stream.place(11, 30)
  await stream.has(30)
  await stream.shows(null)
  await running.stop()
  stream.trim(cut)
  await stream.run()
  await stream.replica.query(`update orders set body = 'changed' where id in ('${k(2)}', '${k(12)}')`)
  await stream.replica.query("insert into orders values ('added', 1, 'added', 1, null)")
  const found = await stream.pipeline.verify('warehouse', { repair: true })
  expect(found).toMatchObject({
    equal: true,
    whole: false,
    tables: [{ different: 1, unverifiable: 11, mended: 1, extra: 0, missing: 0 }],
  })
  expect(found.keys.filter(({ kind }) => kind === 'different')).toMatchObject([{ key: k(12), mended: true }])
  const { rows } = await stream.replica.query("select id, body from orders where body in ('changed', 'added') order by id")
  expect(rows).toEqual([
    { id: 'added', body: 'added' },
    { id: k(2), body: 'changed' },
  ])
})

test('a key that waits is called parked, and is left alone', async () => {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 5)
  await stream.has(5)
  await stream.replica.query(`alter table orders add constraint fit check (version < 1000)`)
  await stream.source.query(
    `select millrace.emit(aggregate_type => 'order', aggregate_id => '${k(2)}', type => 'OrderChanged', payload => '{"id":"${k(2)}","version":1000,"body":"","amount":1}')`,
  )
  await eventually(async () => (await stream.pipeline.parked('warehouse').list()).totals.keys === 1, {
    within: 20_000,
    what: 'parked',
  })
  const found = await stream.pipeline.verify('warehouse', { repair: true })
  expect(kinds(found)).toEqual([`${k(2)} parked`])
  expect(found).toMatchObject({ equal: false, parkedKeys: 1 })
  expect((await stream.replica.query(`select version from orders where id = '${k(2)}'`)).rows).toEqual([{ version: '2' }])
})

test('a sample looks at a share of the keys, and says what it does not look for', async () => {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 400)
  await stream.has(400)
  await stream.replica.query("update orders set body = 'changed' where id like 'k%'")
  await stream.replica.query("insert into orders values ('added', 1, 'added', 1, null)")
  const found = await stream.pipeline.verify('warehouse', { sample: 0.25 })
  const { keys = 0, different, extra } = found.tables[0] ?? {}
  expect(keys).toBeGreaterThan(60)
  expect(keys).toBeLessThan(140)
  expect({ different, extra, whole: found.whole, sample: found.sample }).toEqual({
    different: keys,
    extra: 0,
    whole: null,
    sample: 0.25,
  })
})

describe('it can be stopped at any moment, and goes on', () => {
  const killed = (command: string, point: string): Promise<string | null> =>
    new Promise((resolve) => {
      const script = join(import.meta.dirname, 'verify-process.ts')
      execFile(process.execPath, [script, JSON.stringify({ config: stream.config, command, point, times: 1 })], (error) =>
        resolve(error?.signal ?? null),
      )
    })

  test.each<[command: 'verify' | 'repair' | 'rebuild' | 'beside', point: string]>([
    ['verify', 'verify-batch-folded'],
    ['repair', 'verify-chunk-compared'],
    ['rebuild', 'verify-batch-folded'],
    ['rebuild', 'verify-done'],
    ['beside', 'verify-chunk-compared'],
    ['beside', 'rebuild-swapping'],
    ['beside', 'rebuild-swapped'],
  ])(
    '%s, killed at %s',
    async (command, point) => {
      stream = await verifyStream()
      await stream.run()
      await stream.place(1, 300)
      const workload = stream.write({ rate: 40 })
      await stream.has(300)
      const damaged = await damage(stream)
      expect(await killed(command, point)).toBe('SIGKILL')
      const rebuilds = command === 'rebuild' || command === 'beside'
      const goOn = () =>
        rebuilds ? stream.pipeline.rebuild('warehouse', { resume: true }) : stream.pipeline.verify('warehouse', { resume: true })
      if (point === 'rebuild-swapped') {
        // what was swapped is done, and nothing is left of the job
        await expect(goOn()).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_UNKNOWN' })
      } else {
        // the job stands: nothing else is begun over it
        await expect(stream.pipeline.verify('warehouse')).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_RUNNING' })
        const resumed = await goOn()
        // what was mended before it was killed is equal by now
        if (command === 'verify') expect(kinds(resumed)).toEqual(damaged)
      }
      const after = await stream.pipeline.verify('warehouse')
      expect(kinds(after)).toEqual(command === 'verify' ? damaged : [])
      const committed = await workload.stop()
      if (command !== 'verify') await stream.shows(committed)
    },
    60_000,
  )

  test('a pause keeps what was done, a verify that was not asked for goes on with nothing', async () => {
    stream = await verifyStream()
    await stream.run()
    await stream.place(1, 500)
    await stream.has(500)
    const damaged = await damage(stream)
    const stopping = new AbortController()
    const paused = await stream.pipeline.verify('warehouse', {
      rate: 400,
      signal: stopping.signal,
      onProgress: ({ done }) => done > 100 && stopping.abort(),
    })
    expect(paused).toMatchObject({ outcome: 'paused', equal: null })
    await expect(stream.pipeline.rebuild('warehouse', { resume: true })).rejects.toMatchObject({ code: 'MILLRACE_USAGE' })
    expect(kinds(await stream.pipeline.verify('warehouse', { resume: true }))).toEqual(damaged)
    await expect(stream.pipeline.verify('warehouse', { resume: true })).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_UNKNOWN' })
  })
})

describe('against the source', () => {
  const QUERY = 'select id as aggregate_id, to_json(o) as payload from orders o'

  test('what a service forgot to emit is told, and an outbox row that never reached the queue', async () => {
    stream = await verifyStream({
      sink: { verify: [{ table: 'orders', from: 'order', type: 'OrderChanged', query: QUERY }] },
      async before(source) {
        await source.query(
          `select millrace.emit(aggregate_type => 'order', aggregate_id => 'early', type => 'OrderChanged', payload => '{}', id => '01234567-89ab-7def-8123-456789abcdef')`,
        )
      },
    })
    await stream.run()
    await stream.place(1, 50)
    const workload = stream.write({ rate: 40 })
    await stream.has(50)
    await stream.source.query(`update orders set body = 'forgotten' where id = '${k(3)}'`)
    await stream.source.query(`delete from orders where id = '${k(5)}'`)
    await stream.source.query("insert into orders values ('forgotten', 1, 'forgotten', 1)")
    const found = await stream.pipeline.verify('warehouse', { against: 'source' })
    expect(found).toMatchObject({ equal: false, keys: [] })
    expect(found.source?.outbox).toMatchObject({
      missing: 1,
      missingIds: ['01234567-89ab-7def-8123-456789abcdef'],
      unverifiable: 0,
      waiting: 0,
    })
    const wrong = found.source?.keys.filter(({ kind }) => kind !== 'hot') ?? []
    expect(kinds({ keys: wrong })).toEqual(['forgotten missing', `${k(3)} different`, `${k(5)} extra`])
    expect(found.source?.tables).toMatchObject([{ table: 'public.orders', missing: 1, different: 1, extra: 1 }])
    await workload.stop()
  }, 90_000)

  test('rows that the relay has not come to are waited for, and not called missing', async () => {
    stream = await verifyStream()
    const running = await stream.run()
    await stream.place(1, 5)
    await stream.has(5)
    await running.stop()
    await stream.place(6, 15)
    const verified = stream.pipeline.verify('warehouse', { against: 'source' })
    await eventually(
      async () =>
        (await stream.replica.query('select job from millrace.copy')).rows.some(
          ({ job }) => JSON.parse(job).progress.phase === 'outbox',
        ),
      { within: 20_000, what: 'it has come to the outbox' },
    )
    await stream.run()
    expect(await verified).toMatchObject({ equal: true, source: { outbox: { rows: 15, missing: 0, waiting: 0 }, tables: null } })
  }, 60_000)
})

describe('what cannot be verified is refused, and changes nothing', () => {
  test.each<[how: object, code: string]>([
    [{ sample: 0 }, 'MILLRACE_USAGE'],
    [{ sample: 1 }, 'MILLRACE_USAGE'],
    [{ rate: 0 }, 'MILLRACE_USAGE'],
    [{}, 'MILLRACE_REPLAY_REFUSED'],
    [{ resume: true }, 'MILLRACE_REPLAY_UNKNOWN'],
  ])('%j', async (how, code) => {
    stream = await verifyStream()
    await expect(stream.pipeline.verify('warehouse', how)).rejects.toMatchObject({ code })
    await expect(stream.pipeline.verify('nowhere', how)).rejects.toMatchObject({ code: 'MILLRACE_USAGE' })
  })

  test('a sink without rows; a mapping that is another', async () => {
    stream = await verifyStream()
    const lines = stream.another({ sinks: { warehouse: { kind: 'stdout' } } })
    await expect(lines.verify('warehouse')).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_REFUSED' })
    await expect(lines.planRebuild('warehouse')).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_REFUSED' })
    const running = await stream.run()
    await stream.place(1, 5)
    await stream.has(5)
    await running.stop()
    const tables = TABLES.map((table) => ({ ...table, columns: { body: 'version' } }))
    const remapped = stream.another({ sinks: { warehouse: { ...stream.config.sinks?.['warehouse'], kind: 'postgres', tables } } })
    await expect(remapped.verify('warehouse')).rejects.toMatchObject({ code: 'MILLRACE_MAPPING_CHANGED' })
  })
})
