import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { eachPostgres, type TestDatabase } from '../postgres/each-postgres.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { CLEAN, REPLICA, type Stream, streamOf } from './stream.ts'

/**
 * The ways on after what a slot could not send (PROTOCOL 2.5): what was written while the slot was gone arrives exactly
 * once by a refill, or is a recorded gap; the chain holds in both, so that sinks just go on.
 */

let home: string
let replica: Database
let database: TestDatabase
let stream: Stream
let count = 0

/** a stream that has relayed 20 events and stands still */
async function begin(create: () => Promise<TestDatabase>, queue: 'local' | 'kafka'): Promise<void> {
  home = await mkdtemp(join(tmpdir(), 'millrace-resume-'))
  replica = await createDatabase('replica')
  await replica.query(REPLICA)
  database = await create()
  stream = streamOf({
    name: `r${process.pid}_${++count}`,
    sourceUrl: database.url,
    replicaUrl: replica.url,
    queue: queue === 'local' ? { kind: 'local', path: join(home, 'queue.db') } : { kind: 'kafka', brokers: await sharedKafka() },
  })
  await stream.pipeline().init()
  await stream.write(20)
  await stream.flow()
}

async function end(): Promise<void> {
  await stream.stop()
  await Promise.all([database.drop(), replica.drop()])
  await rm(home, { recursive: true, force: true })
}

const dropSlot = () => stream.query('select pg_drop_replication_slot($1)', [stream.made])
const remakePublication = async (): Promise<void> => {
  await stream.query(`drop publication ${stream.made}`)
  await stream.query(`create publication ${stream.made} for table millrace.outbox with (publish = 'insert')`)
}

/** why the relay does not begin; null: it runs */
async function halt(): Promise<string | null> {
  const one = await stream.run()
  const ended = one.done.then(
    () => 'stopped',
    (error: { code: string }) => error.code,
  )
  for (;;) {
    const code = await Promise.race([ended, new Promise<null>((resolve) => setTimeout(resolve, 30, null))])
    if (code !== null) return code
    if ((await one.status()).relay?.phase === 'running') break
  }
  await one.stop()
  return null
}

function waysOn(create: () => Promise<TestDatabase>, queue: 'local' | 'kafka'): void {
  beforeEach(() => begin(create, queue), 60_000)
  afterEach(end, 60_000)

  test('a refill publishes what was written while there was no slot, once and in order', async () => {
    await dropSlot()
    await stream.write(20)
    expect(await stream.pipeline().resume()).toMatchObject({
      verdict: 'decide',
      problem: { code: 'MILLRACE_SLOT_MISSING', message: expect.stringMatching(/between .+ and .+ may be missing/) },
      outbox: { rows: 40 },
      ways: [{ command: 'millrace resume --refill --yes' }, { command: 'millrace resume --accept-gap --yes' }],
    })
    const one = await stream.run().catch(() => null)
    await one?.done.catch(() => {})
    expect(await stream.pipeline().resume({ way: 'refill' })).toMatchObject({
      verdict: 'resumed',
      resumed: { epoch: 2, refilled: { published: 20, ambiguous: 0 } },
    })
    expect(await stream.pipeline().resume()).toMatchObject({ verdict: 'runs' })
    await stream.write(5)
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  })

  test('what an accepted gap holds never arrives; the gap is recorded and shown', async () => {
    await dropSlot()
    await stream.write(10)
    stream.giveUp(10)
    const { resumed } = await stream.pipeline().resume({ way: 'accept-gap' })
    await stream.write(10)
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
    expect(resumed?.gap).toMatchObject({ epoch: 2, refill: null })
    expect((await stream.pipeline().status()).gaps).toEqual([resumed?.gap])
  })

  test('a slot that somebody advanced is kept by an accepted gap: what it still sends arrives', async () => {
    await stream.write(10)
    stream.giveUp(10)
    await stream.query('select pg_replication_slot_advance($1, pg_current_wal_insert_lsn())', [stream.made])
    await stream.write(5)
    const { resumed } = await stream.pipeline().resume({ way: 'accept-gap' })
    expect(resumed?.made).toEqual([])
    await stream.write(5)
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  })

  test('a slot that was advanced to before the end of what is published sends it again, which is not published twice', async () => {
    await stream.query('create table elsewhere ()')
    const [here] = await stream.query('select pg_current_wal_insert_lsn()::text as lsn')
    await stream.write(10)
    const failpoint = (name: string): void => {
      if (name === 'acked') throw new Error('ended before anything of it was recorded')
    }
    const relay = await stream.pipeline({}, { failpoint }).run({ relay: true, sinks: [] })
    await expect(relay.done).rejects.toThrow('ended before')
    await relay.stop()
    await stream.query('select pg_replication_slot_advance($1, $2::pg_lsn)', [stream.made, here?.lsn])
    expect((await stream.pipeline().resume({ way: 'accept-gap' })).resumed).toMatchObject({ made: [], epoch: 2 })
    await stream.write(5)
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  })

  test('a publication that was made again loses nothing to a refill', async () => {
    await stream.write(5)
    await remakePublication()
    await stream.write(5)
    expect(await stream.pipeline().resume()).toMatchObject({
      verdict: 'decide',
      problem: { code: 'MILLRACE_PUBLICATION_MISSING' },
    })
    await stream.pipeline().resume({ way: 'refill' })
    await stream.write(5)
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  })
}

eachPostgres('resume over the embedded queue', (create) => waysOn(create, 'local'))
requires('kafka')('with Kafka', () => {
  eachPostgres('resume over Kafka', (create) => waysOn(create, 'kafka'))

  describe('a log that retention has emptied', () => {
    beforeEach(() => begin(createDatabase, 'kafka'), 60_000)
    afterEach(end, 60_000)

    test.each([
      ['', 3],
      [', of a topic that has grown too', 7],
    ])(
      'leaves rows of which nobody can say whether they were relayed: they are counted and named, not published%s',
      async (_, partitions) => {
        const { default: kafkajs } = await import('kafkajs')
        const topic = `${stream.name}.order`
        const admin = new kafkajs.Kafka({ brokers: await sharedKafka(), logLevel: kafkajs.logLevel.NOTHING }).admin()
        await admin.connect()
        const emptied = (await admin.fetchTopicOffsets(topic))
          .map(({ partition, high }) => ({ partition, offset: high }))
          .slice(0, 2)
        await admin.deleteTopicRecords({ topic, partitions: emptied })
        if (partitions > 3) await admin.createPartitions({ topicPartitions: [{ topic, count: partitions }] })
        await admin.disconnect()
        const relayed = emptied.reduce((sum, { offset }) => sum + Number(offset), 0)
        await dropSlot()
        await stream.write(20)
        const { resumed } = await stream.pipeline().resume({ way: 'refill' })
        // each key has as many of the new rows as of the old ones
        expect(resumed?.refilled).toMatchObject({ published: 20 - relayed, ambiguous: 2 * relayed })
        expect(resumed?.refilled?.ambiguousIds).toHaveLength(Math.min(2 * relayed, 20))
        expect(await stream.judge()).toMatchObject({ twice: 0, unordered: 0, brokenChains: 0 })
      },
    )
  })
})

describe('resume', () => {
  beforeEach(() => begin(createDatabase, 'local'), 60_000)
  afterEach(end, 60_000)

  test('is refused while a relay runs, and when nothing is wrong', async () => {
    await expect(stream.pipeline().resume({ way: 'refill' })).rejects.toMatchObject({ code: 'MILLRACE_USAGE' })
    const one = await stream.run()
    await stream.write(5)
    await stream.arrived()
    expect(await stream.pipeline().resume()).toMatchObject({ verdict: 'running', problem: null, ways: [] })
    await expect(stream.pipeline().resume({ way: 'accept-gap' })).rejects.toMatchObject({ code: 'MILLRACE_SLOT_IN_USE' })
    await one.stop()
    expect(await stream.judge()).toEqual(CLEAN)
  })

  test('offers no way on where none would help, and changes nothing', async () => {
    const before = await stream.query('select state from millrace.relay_state')
    for (const suffix of ['', '-wal', '-shm']) await rm(`${join(home, 'queue.db')}${suffix}`, { force: true })
    expect(await stream.pipeline().resume()).toMatchObject({
      verdict: 'decide',
      problem: { code: 'MILLRACE_STATE_MISSING' },
      ways: [],
    })
    await expect(stream.pipeline().resume({ way: 'refill' })).rejects.toMatchObject({ code: 'MILLRACE_STATE_MISSING' })
    expect(await stream.query('select state from millrace.relay_state')).toEqual(before)
  })

  test('a slot of the name that is not ours is left alone', async () => {
    await dropSlot()
    await stream.query("select pg_create_logical_replication_slot($1, 'test_decoding')", [stream.made]).catch(() => [])
    const [slot] = await stream.query('select plugin from pg_replication_slots where slot_name = $1', [stream.made])
    if (slot === undefined) await stream.query('select pg_create_physical_replication_slot($1)', [stream.made])
    expect(await stream.pipeline().resume()).toMatchObject({ verdict: 'decide', ways: [] })
    await expect(stream.pipeline().resume({ way: 'refill' })).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_CHANGED' })
    expect(await stream.query('select 1 from pg_replication_slots where slot_name = $1', [stream.made])).toHaveLength(1)
    await stream.query('select pg_drop_replication_slot($1)', [stream.made])
  })

  test('is void when a relay wrote its state while it was decided', async () => {
    await dropSlot()
    await stream.write(5)
    const [{ state: before } = {}] = await stream.query('select state from millrace.relay_state')
    await expect(
      stream
        .pipeline({}, { failpoint: (step) => (step === 'slot-made' ? stream.raiseSession() : undefined) })
        .resume({ way: 'accept-gap' }),
    ).rejects.toMatchObject({ code: 'MILLRACE_SLOT_IN_USE' })
    expect(await stream.query('select state from millrace.relay_state')).toEqual([{ state: before }])
    expect(await halt()).toBe('MILLRACE_SLOT_MOVED')
    await stream.pipeline().resume({ way: 'refill' })
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  })

  test('what a publication that was altered for a while passed over is found by a refill', async () => {
    await stream.query(`alter publication ${stream.made} set (publish = 'update')`)
    await stream.write(5)
    await stream.query(`alter publication ${stream.made} set (publish = 'insert')`)
    await stream.write(5)
    expect(await stream.pipeline().resume()).toMatchObject({
      verdict: 'decide',
      problem: { code: 'MILLRACE_PUBLICATION_MISSING' },
    })
    expect((await stream.pipeline().resume({ way: 'refill' })).resumed).toMatchObject({ refilled: { published: 10 } })
    await stream.write(5)
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  })

  test('is refused with settings that would move keys, before anything is touched', async () => {
    await dropSlot()
    const queue = stream.config.queue as unknown as { topics: object }
    const renamed = { queue: { ...queue, topics: { ...queue.topics, name: `${stream.name}.new.{aggregate_type}` } } as never }
    await expect(stream.pipeline(renamed).resume({ way: 'refill' })).rejects.toMatchObject({
      code: 'MILLRACE_FINGERPRINT_CHANGED',
    })
    expect(await halt()).toBe('MILLRACE_SLOT_MISSING')
  })

  test('a slot of another name that lies further back sends nothing twice', async () => {
    const other = `${stream.made}_other`
    await stream.query('select pg_copy_logical_replication_slot($1, $2)', [stream.made, other])
    await stream.write(10)
    await stream.flow()
    const source = { ...stream.config.source, slot: other } as never
    expect((await stream.pipeline({ source }).resume({ way: 'accept-gap' })).resumed).toMatchObject({ made: [] })
    await stream.write(5)
    await stream.flow({ source })
    expect(await stream.judge()).toEqual(CLEAN)
    await stream.query('select pg_drop_replication_slot($1)', [stream.made])
  })

  test('a database that only forgot the stream is told of it again', async () => {
    await stream.query('delete from millrace.relay_state')
    await stream.write(5)
    expect(await stream.pipeline().resume()).toMatchObject({ verdict: 'decide', problem: { code: 'MILLRACE_STATE_MISSING' } })
    expect(await stream.pipeline().resume({ way: 'accept-gap' })).toMatchObject({ verdict: 'resumed', resumed: null })
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  })
})

test('a slot whose WAL the server removed is made anew', async () => {
  const server = await startPostgresServer({ settings: { fsync: 'off', max_slot_wal_keep_size: '1MB', min_wal_size: '32MB' } })
  try {
    await begin(async () => ({ url: server.url(), drop: async () => {} }), 'local')
    await stream.write(10)
    await eventually(
      async () => {
        for (const statement of ['select pg_logical_emit_message(false, $$$$, $$x$$)', 'select pg_switch_wal()', 'checkpoint'])
          await stream.query(statement)
        return (await stream.query("select 1 from pg_replication_slots where wal_status = 'lost'")).length > 0
      },
      { within: 30_000, what: 'the slot to be lost' },
    )
    expect(await stream.pipeline().resume()).toMatchObject({ verdict: 'decide', problem: { code: 'MILLRACE_SLOT_LOST' } })
    expect((await stream.pipeline().resume({ way: 'refill' })).resumed).toMatchObject({
      refilled: { published: 10, ambiguous: 0 },
    })
    await stream.write(5)
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
    await end()
  } finally {
    await server.remove()
  }
}, 120_000)

test.each(['refill', 'accept-gap'] as const)(
  'a volume that was restored to an earlier state: %s sends nothing twice',
  async (way) => {
    const server = await startPostgresServer({ settings: { fsync: 'off' } })
    try {
      await begin(async () => ({ url: server.url(), drop: async () => {} }), 'local')
      await server.stop()
      await promisify(execFile)('cp', ['-a', server.dataDir, join(home, 'earlier')])
      await server.start()
      // the database will not know of these, the queue and the replica do
      await stream.write(10)
      await stream.flow()
      await server.stop()
      await rm(server.dataDir, { recursive: true })
      await promisify(execFile)('cp', ['-a', join(home, 'earlier'), server.dataDir])
      await server.start()
      await stream.write(5)
      if (way === 'accept-gap') stream.giveUp(5)
      expect(await stream.pipeline().resume()).toMatchObject({ verdict: 'decide', problem: { code: 'MILLRACE_SOURCE_CHANGED' } })
      expect((await stream.pipeline().resume({ way })).resumed).toMatchObject({
        epoch: 2,
        ...(way === 'refill' && { refilled: { published: 5, ambiguous: 0 } }),
      })
      await stream.write(5)
      await stream.flow()
      expect(await stream.judge()).toEqual(CLEAN)
      await end()
    } finally {
      await server.remove()
    }
  },
  120_000,
)

describe('killed at any step', () => {
  beforeAll(() => begin(createDatabase, 'local'), 60_000)
  afterAll(end, 60_000)

  const killed = (way: 'accept-gap' | 'refill', step: string): Promise<string | null> =>
    new Promise((resolve) => {
      const script = join(import.meta.dirname, 'resume-process.ts')
      execFile(process.execPath, [script, JSON.stringify({ config: stream.config, way, step })], (error) =>
        resolve(error?.signal ?? null),
      )
    })

  test.each(['slot-dropped', 'publication-made', 'slot-made', 'state-written', 'refilling', 'refilled', 'copied'])(
    'a refill is completed by the same command: %s',
    async (step) => {
      await dropSlot()
      await stream.write(10)
      expect(await killed('refill', step)).toBe('SIGKILL')
      await stream.write(5)
      const done = step === 'refilled' || step === 'copied'
      // no relay goes on over a refill that is not finished
      expect((await halt()) === null).toBe(done)
      if (!done) await stream.pipeline().resume({ way: 'refill' })
      await stream.write(5)
      await stream.flow()
      expect(await stream.judge()).toEqual(CLEAN)
    },
    60_000,
  )

  test('a refill that was begun may be given up: what it had not published is a gap', async () => {
    await dropSlot()
    await stream.write(10)
    expect(await killed('refill', 'state-written')).toBe('SIGKILL')
    stream.giveUp(10)
    await stream.write(5)
    expect(await stream.pipeline().resume()).toMatchObject({ verdict: 'decide', problem: { code: 'MILLRACE_STATE_CONFLICT' } })
    expect((await stream.pipeline().resume({ way: 'accept-gap' })).resumed).toMatchObject({ made: [], gap: { refill: null } })
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  }, 60_000)

  test.each(['slot-dropped', 'publication-made', 'slot-made', 'state-written', 'copied'])(
    'an accepted gap is never a silent one: %s',
    async (step) => {
      await dropSlot()
      await stream.write(5)
      stream.giveUp(5)
      expect(await killed('accept-gap', step)).toBe('SIGKILL')
      const done = step === 'state-written' || step === 'copied'
      expect((await halt()) === null).toBe(done)
      if (!done) await stream.pipeline().resume({ way: 'accept-gap' })
      await stream.write(5)
      await stream.flow()
      expect(await stream.judge()).toEqual(CLEAN)
      expect((await stream.pipeline().status()).gaps.at(-1)).toMatchObject({ refill: null })
    },
    60_000,
  )
})
