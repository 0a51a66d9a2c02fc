import { execFile } from 'node:child_process'
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import type { Queue } from '../../src/core/queue.ts'
import { type Relay, startRelay } from '../../src/pipeline/relay.ts'
import type { PostgresSource } from '../../src/postgres/source.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import {
  FINGERPRINT,
  openQueue,
  openSource,
  type Pipeline,
  prepare,
  query,
  quietLog,
  topicOfOrders,
  topicTemplate,
} from './parts.ts'

// owners and modes too: the server runs as a user of its own
const copy = promisify(execFile)

/** What is no longer there after it was acknowledged stops the relay loudly, whichever side lost it (DESIGN, invariant 4). */

let source: Database
let replica: Database
let folder: string
let count = 0
const open: { close(): Promise<void> }[] = []
const relays: Relay[] = []

beforeEach(async () => {
  source = await createDatabase('source')
  replica = await createDatabase('replica')
  folder = await mkdtemp(join(tmpdir(), 'millrace-halts-'))
})

afterEach(async () => {
  await Promise.all(relays.splice(0).map((relay) => relay.stop()))
  await Promise.all(open.splice(0).map((part) => part.close()))
  await source.drop()
  await replica.drop()
  await rm(folder, { recursive: true, force: true })
})

async function pipelineOver(queue: 'local' | 'kafka'): Promise<Pipeline> {
  const pipeline: Pipeline = {
    name: `h${process.pid}_${++count}`,
    sourceUrl: source.url,
    replicaUrl: replica.url,
    queue:
      queue === 'local' ? { kind: 'local', path: join(folder, 'queue.db') } : { kind: 'kafka', brokers: await sharedKafka() },
  }
  await prepare(pipeline)
  return pipeline
}

async function relayOf(
  pipeline: Pipeline,
  fingerprint = FINGERPRINT,
): Promise<{ relay: Relay; queue: Queue; source: PostgresSource }> {
  const queue = await openQueue(pipeline)
  const opened = await openSource(pipeline)
  open.push(queue, opened)
  const relay = startRelay({
    source: opened,
    queue,
    topicTemplate: topicTemplate(pipeline),
    fingerprint,
    sinkTopics: [],
    log: quietLog,
    clock: systemClock,
    random: Math.random,
  })
  relays.push(relay)
  return { relay, queue, source: opened }
}

const emit = (n: number): Promise<unknown> =>
  source.query(
    "select millrace.emit(aggregate_type => 'order', aggregate_id => g::text, type => 'OrderChanged', payload => '{}') from generate_series(1, $1) g",
    [n],
  )

const published = (relay: Relay): number => [...relay.status().published.values()].reduce((sum, n) => sum + n, 0)

/** Relays so many events and stops in good order. */
async function relayed(pipeline: Pipeline, events: number): Promise<void> {
  const { relay, queue, source } = await relayOf(pipeline)
  await emit(events)
  await eventually(async () => published(relay) === events, { within: 20_000, what: `${events} events to be published` })
  await relay.stop()
  await Promise.all([queue.close(), source.close()])
  open.splice(0)
}

const haltOf = (relay: Relay): Promise<{ code: string; message: string; remedy?: string }> =>
  relay.done.then(
    () => ({ code: 'stopped', message: '' }),
    (error) => error,
  )

describe('the source', () => {
  test('a database that was restored to an earlier time, and has written beyond what was relayed since, halts the relay', async () => {
    const server = await startPostgresServer()
    try {
      const emitOne = (id: string, body = ''): Promise<unknown> =>
        query(server.url(), (client) =>
          client.query(
            "select millrace.emit(aggregate_type => 'order', aggregate_id => $1, type => 'OrderChanged', payload => json_build_object('body', $2::text))",
            [id, body],
          ),
        )
      const pipeline: Pipeline = {
        name: `h${process.pid}_${++count}`,
        sourceUrl: server.url(),
        replicaUrl: replica.url,
        queue: { kind: 'local', path: join(folder, 'queue.db') },
      }
      await prepare(pipeline)
      const run = async (id: string): Promise<void> => {
        const { relay, queue, source } = await relayOf(pipeline)
        await emitOne(id)
        await eventually(async () => published(relay) === 1, { within: 20_000, what: `${id} to be published` })
        await relay.stop()
        await Promise.all([queue.close(), source.close()])
        open.splice(0)
      }
      await run('a')
      await server.stop('fast')
      await copy('cp', ['-a', server.dataDir, join(folder, 'snapshot')])
      await server.start()
      await run('b')
      await server.stop('fast')
      await rm(server.dataDir, { recursive: true })
      await copy('cp', ['-a', join(folder, 'snapshot'), server.dataDir])
      await server.start()
      await emitOne('another b', 'x'.repeat(10_000))
      const { code, message, remedy } = await haltOf((await relayOf(pipeline)).relay)
      expect(code).toBe('MILLRACE_SOURCE_CHANGED')
      expect(message).toMatch(/went back in time.*is safe/s)
      expect(remedy).toContain('millrace resume')
    } finally {
      await server.remove()
    }
  })

  test('a slot that somebody advanced halts the relay, which names both ends of the gap', async () => {
    const pipeline = await pipelineOver('local')
    await relayed(pipeline, 3)
    await emit(5)
    await source.query('select pg_replication_slot_advance($1, pg_current_wal_insert_lsn())', [`millrace_${pipeline.name}`])
    const { code, message } = await haltOf((await relayOf(pipeline)).relay)
    expect(code).toBe('MILLRACE_SLOT_MOVED')
    expect(message).toMatch(/committed between [0-9A-F]+\/[0-9A-F]+ and [0-9A-F]+\/[0-9A-F]+ may be missing.*is safe/s)
  })

  test('a slot that was dropped and made again halts the relay', async () => {
    const pipeline = await pipelineOver('local')
    await relayed(pipeline, 3)
    const slot = `millrace_${pipeline.name}`
    await source.query('select pg_drop_replication_slot($1)', [slot])
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toBe('MILLRACE_SLOT_MISSING')
    await emit(5)
    await source.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [slot])
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toBe('MILLRACE_SLOT_MOVED')
  })

  test('a dropped publication halts the relay', async () => {
    const pipeline = await pipelineOver('local')
    await source.query(`drop publication millrace_${pipeline.name}`)
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toBe('MILLRACE_PUBLICATION_MISSING')
  })

  test('a publication that was made again halts the relay: Postgres 18 skips what was written in between', async () => {
    const pipeline = await pipelineOver('local')
    await relayed(pipeline, 1)
    await source.query(`drop publication millrace_${pipeline.name}`)
    await emit(5)
    await source.query(`create publication millrace_${pipeline.name} for table millrace.outbox with (publish = 'insert')`)
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toBe('MILLRACE_PUBLICATION_MISSING')
  })

  test('a publication that is altered and put back under a running relay halts it, before it confirms what was left out', async () => {
    const pipeline = await pipelineOver('local')
    const { relay, source: opened } = await relayOf(pipeline)
    await emit(3)
    await eventually(() => published(relay) === 3, { within: 20_000, what: 'the first events to be published' })
    await source.query(`alter publication millrace_${pipeline.name} set (publish = 'update')`)
    const { rows } = await source.query("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as at")
    await emit(5)
    await source.query(`alter publication millrace_${pipeline.name} set (publish = 'insert')`)
    await emit(2)
    const halt = await haltOf(relay)
    expect(halt.code).toBe('MILLRACE_PUBLICATION_MISSING')
    expect(halt.message).toMatch(/committed between [0-9A-F]+\/[0-9A-F]+ and [0-9A-F]+\/[0-9A-F]+ may be missing/)
    expect((await opened.slotStatus())?.confirmed).toBeLessThanOrEqual(BigInt(rows[0].at))
  })

  test('a changed mapping halts the relay', async () => {
    const pipeline = await pipelineOver('local')
    await relayed(pipeline, 1)
    expect((await haltOf((await relayOf(pipeline, 'another')).relay)).code).toBe('MILLRACE_FINGERPRINT_CHANGED')
  })

  test('a second relay stands by while the first holds the slot, and takes over when it goes', async () => {
    const pipeline = await pipelineOver('local')
    const first = await relayOf(pipeline)
    await eventually(async () => first.relay.status().phase === 'running', { within: 10_000, what: 'the first to run' })
    const second = await relayOf(pipeline)
    await eventually(async () => second.relay.status().phase === 'standby', { within: 10_000, what: 'the second to stand by' })
    await first.relay.stop()
    await emit(2)
    await eventually(async () => published(second.relay) === 2, { within: 20_000, what: 'the second to relay' })
  })
})

describe('the embedded queue', () => {
  test('restored from a copy that is older than what it acknowledged', async () => {
    const pipeline = await pipelineOver('local')
    await relayed(pipeline, 3)
    const path = join(folder, 'queue.db')
    await copyFile(path, join(folder, 'old.db'))
    await relayed(pipeline, 3)
    await copyFile(join(folder, 'old.db'), path)
    await rm(`${path}-wal`, { force: true })
    await rm(`${path}-shm`, { force: true })
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toMatch(/MILLRACE_(QUEUE_LOST_END|SLOT_MOVED)/)
  })

  test('a new, empty file in its place', async () => {
    const pipeline = await pipelineOver('local')
    await relayed(pipeline, 3)
    for (const suffix of ['', '-wal', '-shm']) await rm(`${join(folder, 'queue.db')}${suffix}`, { force: true })
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toBe('MILLRACE_STATE_MISSING')
  })
})

requires('kafka')('Kafka', () => {
  const admin = async <T>(pipeline: Pipeline, work: (admin: import('kafkajs').Admin) => Promise<T>): Promise<T> => {
    const { default: kafkajs } = await import('kafkajs')
    if (pipeline.queue.kind !== 'kafka') throw new Error('not Kafka')
    const client = new kafkajs.Kafka({ brokers: [...pipeline.queue.brokers], logLevel: kafkajs.logLevel.NOTHING }).admin()
    await client.connect()
    try {
      return await work(client)
    } finally {
      await client.disconnect()
    }
  }

  test('a topic that was deleted, or made again, or truncated', async () => {
    const pipeline = await pipelineOver('kafka')
    await relayed(pipeline, 20)
    const topic = topicOfOrders(pipeline)
    await admin(pipeline, (kafka) => kafka.deleteTopics({ topics: [topic] }))
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toBe('MILLRACE_QUEUE_LOST_END')
    await admin(pipeline, (kafka) => kafka.createTopics({ topics: [{ topic, numPartitions: 3 }], waitForLeaders: true }))
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toBe('MILLRACE_QUEUE_LOST_END')
  })

  test('partitions that were added are not used: keys stay where they are', async () => {
    const pipeline = await pipelineOver('kafka')
    await relayed(pipeline, 20)
    const topic = topicOfOrders(pipeline)
    await admin(pipeline, (kafka) => kafka.createPartitions({ topicPartitions: [{ topic, count: 5 }] }))
    const { relay, queue } = await relayOf(pipeline)
    await emit(20)
    await eventually(() => published(relay) === 20, { within: 30_000, what: 'the stream to go on' })
    const ends = (await queue.ranges(topic)).map(({ end }) => Number(end))
    expect(ends.slice(3)).toEqual([0, 0])
    expect(ends.reduce((sum, end) => sum + end, 0)).toBe(40)
  })

  test('a topic that was made again with fewer partitions', async () => {
    const pipeline = await pipelineOver('kafka')
    await relayed(pipeline, 20)
    const topic = topicOfOrders(pipeline)
    await admin(pipeline, (kafka) => kafka.deleteTopics({ topics: [topic] }))
    await admin(pipeline, (kafka) => kafka.createTopics({ topics: [{ topic, numPartitions: 2 }], waitForLeaders: true }))
    expect((await haltOf((await relayOf(pipeline)).relay)).code).toBe('MILLRACE_PARTITIONS_CHANGED')
  })

  test('a partition emptied by retention is no loss: the chain goes on', async () => {
    const pipeline = await pipelineOver('kafka')
    await relayed(pipeline, 20)
    const topic = topicOfOrders(pipeline)
    await admin(pipeline, async (kafka) => {
      const offsets = await kafka.fetchTopicOffsets(topic)
      await kafka.deleteTopicRecords({ topic, partitions: offsets.map(({ partition, high }) => ({ partition, offset: high })) })
    })
    const { relay } = await relayOf(pipeline)
    await emit(20)
    await eventually(async () => published(relay) === 20, { within: 20_000, what: 'the next events to be published' })
  })
})
