import pg from 'pg'
import { afterEach, describe, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { TABLES, type VerifyStream, verifyStream } from './verify-stream.ts'

let stream: VerifyStream
afterEach(() => stream?.drop(), 60_000)

const k = (n: number): string => `k${String(n).padStart(7, '0')}`

/** Looks at the rows that were placed again and again, as a reader of the replica would. */
function reader(stream: VerifyStream): { stop(): Promise<{ readonly fewest: number; readonly looks: number }> } {
  let stopped = false
  let fewest = Number.POSITIVE_INFINITY
  let looks = 0
  const client = new pg.Client({ connectionString: stream.replica.url })
  const reading = (async () => {
    await client.connect()
    while (!stopped) {
      const { rows } = await client.query("select count(*)::int as count from orders where id like 'k%'")
      fewest = Math.min(fewest, rows[0].count)
      looks++
    }
    await client.end()
  })()
  return {
    async stop() {
      stopped = true
      await reading
      return { fewest, looks }
    },
  }
}

const ROWS = 20_000

async function rebuildUnderWrites(beside: boolean): Promise<void> {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, ROWS)
  await stream.has(ROWS)
  await stream.place(1, 2_000)
  await stream.shows(null)
  await stream.replica.query(`update orders set body = 'changed' where id like 'k%7'`)
  await stream.replica.query("insert into orders values ('added', 1, 'added', 1, null)")
  const workload = stream.write({ rate: 60 })
  const reading = reader(stream)
  expect(await stream.pipeline.planRebuild('warehouse')).toMatchObject({ partitions: 3, whole: true, parkedKeys: 0, aside: [] })
  const rebuilt = await stream.pipeline.rebuild('warehouse', { beside })
  expect(rebuilt).toMatchObject({ outcome: 'done', equal: true, beside, whole: true, refused: [] })
  expect(rebuilt.tables).toMatchObject([{ table: 'public.orders', different: ROWS / 10, extra: 1, missing: 0 }])
  const { fewest, looks } = await reading.stop()
  expect(fewest).toBe(ROWS)
  expect(looks).toBeGreaterThan(5)
  await stream.shows(await workload.stop())
  expect(await stream.pipeline.verify('warehouse')).toMatchObject({ equal: true, keys: [] })
}

describe('a rebuild under live writes: every row is right afterwards, and no reader ever sees fewer', () => {
  test('in place', () => rebuildUnderWrites(false), 90_000)
  test('beside', async () => {
    await rebuildUnderWrites(true)
    const [aside = ''] = (await stream.pipeline.planRebuild('warehouse')).aside
    expect(aside).toContain('aside')
    // what was there stays until somebody says otherwise
    const { rows } = await stream.replica.query(`select count(*)::int as count from ${aside} where id = 'added'`)
    expect(rows).toEqual([{ count: 1 }])
    expect(await stream.pipeline.dropAside('warehouse')).toEqual([aside])
    expect((await stream.pipeline.planRebuild('warehouse')).aside).toEqual([])
  }, 90_000)
})

describe('after a change of the mapping', () => {
  const remapped = (body = 'id') => {
    const tables = TABLES.map((table) => ({ ...table, columns: { body } }))
    return stream.another({ sinks: { warehouse: { ...stream.config.sinks?.['warehouse'], kind: 'postgres', tables } } })
  }
  const bodies = async () => (await stream.replica.query('select distinct body = id as remapped from orders')).rows

  test.each([false, true])(
    'a rebuild brings every row to the new one, and the sink goes on (beside: %s)',
    async (beside) => {
      stream = await verifyStream()
      const old = await stream.run()
      await stream.place(1, 100)
      await stream.has(100)
      // the old process still runs: it must not write another row by the old mapping
      const rebuilt = await remapped().rebuild('warehouse', { beside })
      expect(rebuilt).toMatchObject({ equal: true, tables: [{ keys: 100, different: 100 }] })
      await stream.place(101, 110)
      await eventually(
        async () => (await old.status()).sinks[0]?.partitions.some(({ phase }) => phase === 'halted' || phase === 'fenced'),
        {
          within: 20_000,
          what: 'the old process is kept out',
        },
      )
      await old.stop()
      expect(await bodies()).toEqual([{ remapped: true }])
      await stream.run(remapped())
      await stream.has(110)
      expect(await bodies()).toEqual([{ remapped: true }])
      expect(await remapped().verify('warehouse')).toMatchObject({ equal: true })
    },
    60_000,
  )

  test('a mapping that cannot write every key is not taken: no row is written, or the sink stays halted', async () => {
    stream = await verifyStream()
    const old = await stream.run()
    await stream.place(1, 20)
    await stream.has(20)
    for (const beside of [false, true])
      await expect(remapped('missing').rebuild('warehouse', { beside })).rejects.toMatchObject({
        code: 'MILLRACE_REPLAY_REFUSED',
        message: expect.stringMatching(/cannot write 20 keys/),
      })
    await stream.place(21, 25)
    await stream.has(25)
    await stream.replica.query(`alter table orders add constraint old check (body <> '${k(3)}')`)
    expect(await remapped().rebuild('warehouse')).toMatchObject({ equal: false, halted: true, keys: expect.any(Array) })
    await expect(remapped().verify('warehouse')).rejects.toMatchObject({ code: 'MILLRACE_MAPPING_CHANGED' })
    await old.stop()
    await stream.replica.query('alter table orders drop constraint old')
    expect(await remapped().rebuild('warehouse')).toMatchObject({ equal: true, halted: false })
    expect(await bodies()).toEqual([{ remapped: true }])
  }, 60_000)

  test('a sink that is being rebuilt in place takes nothing in between, also when the rebuild was cancelled', async () => {
    stream = await verifyStream()
    const old = await stream.run()
    await stream.place(1, 500)
    await stream.has(500)
    const stopping = new AbortController()
    const paused = await remapped().rebuild('warehouse', {
      rate: 500,
      signal: stopping.signal,
      onProgress: ({ phase }) => phase === 'compare' && stopping.abort(),
    })
    expect(paused).toMatchObject({ outcome: 'paused' })
    await old.stop()
    const again = await stream.run()
    await eventually(
      async () => (await again.status()).sinks[0]?.partitions.every(({ error }) => error?.code === 'MILLRACE_MAPPING_CHANGED'),
      { within: 20_000, what: 'every partition is kept out' },
    )
    await again.stop()
    expect(await remapped().rebuild('warehouse', { resume: true })).toMatchObject({ equal: true })
    expect(await bodies()).toEqual([{ remapped: true }])
  }, 60_000)
})

test('tables that cannot be swapped are named with what stands against it, and nothing is changed', async () => {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 5)
  await stream.has(5)
  await stream.replica.query('create view large as select * from orders where amount > 1')
  expect(await stream.pipeline.planRebuild('warehouse', { beside: true })).toMatchObject({
    obstacles: [expect.stringContaining('large')],
  })
  await expect(stream.pipeline.rebuild('warehouse', { beside: true })).rejects.toMatchObject({
    code: 'MILLRACE_REPLAY_REFUSED',
    message: expect.stringContaining('large'),
  })
  expect(await stream.pipeline.rebuild('warehouse')).toMatchObject({ equal: true })
  await expect(stream.pipeline.rebuild('warehouse', { dropOld: true })).rejects.toMatchObject({ code: 'MILLRACE_USAGE' })
})

test('rows that are older than the queue reaches, and those that wait, are taken over', async () => {
  stream = await verifyStream()
  const running = await stream.run()
  await stream.place(1, 20)
  await stream.has(20)
  const cut = Date.now() + 1
  await eventually(() => Date.now() > cut, { what: 'the next ms' })
  await stream.place(11, 30)
  await stream.shows(null)
  await running.stop()
  stream.trim(cut)
  await stream.run()
  await stream.replica.query('alter table orders add constraint fit check (version < 1000)')
  await stream.source.query(
    `select millrace.emit(aggregate_type => 'order', aggregate_id => '${k(12)}', type => 'OrderChanged', payload => '{"id":"${k(12)}","version":1000,"body":"","amount":1}')`,
  )
  await eventually(async () => (await stream.pipeline.parked('warehouse').list()).totals.keys === 1, {
    within: 20_000,
    what: 'parked',
  })
  const before = (await stream.replica.query('select * from orders order by id')).rows
  const rebuilt = await stream.pipeline.rebuild('warehouse', { beside: true })
  expect(rebuilt).toMatchObject({ equal: false, whole: false, parkedKeys: 1, tables: [{ unverifiable: 10, parked: 1 }] })
  expect((await stream.replica.query('select * from orders order by id')).rows).toEqual(before)
  // the key waits on: what is redriven lands in the new table
  await stream.replica.query('alter table orders drop constraint fit')
  expect(await stream.pipeline.parked('warehouse').redriveAll()).toMatchObject([{ applied: 1, remaining: 0 }])
  expect((await stream.replica.query(`select version from orders where id = '${k(12)}'`)).rows).toEqual([{ version: '1000' }])
}, 60_000)
