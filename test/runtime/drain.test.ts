import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { MillraceConfig } from '../../src/index.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { CLEAN, REPLICA, type Stream, streamOf } from './stream.ts'

/** A stream that stands still: all published, confirmed and applied; and what only such a stream can take. */

let home: string
let source: Database
let replica: Database
let stream: Stream
let count = 0

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'millrace-drain-'))
  source = await createDatabase('source')
  replica = await createDatabase('replica')
  await replica.query(REPLICA)
  begin({ kind: 'local', path: join(home, 'queue.db') })
  await stream.pipeline().init()
})
afterEach(async () => {
  await stream.stop()
  await Promise.all([source.drop(), replica.drop()])
  await rm(home, { recursive: true, force: true })
})

function begin(queue: Parameters<typeof streamOf>[0]['queue']): void {
  stream = streamOf({ name: `d${process.pid}_${++count}`, sourceUrl: source.url, replicaUrl: replica.url, queue })
}

/** what a relay that cannot begin says */
const halt = async (different?: Partial<MillraceConfig>): Promise<void> => (await stream.run(different)).done

const renamed = (): Partial<MillraceConfig> => {
  const queue = stream.config.queue as Record<string, unknown> & { topics: object }
  return { queue: { ...queue, topics: { ...queue.topics, name: `${stream.name}.new.{aggregate_type}` } } as never }
}

test('it relays and applies what was committed, and leaves nothing to do', async () => {
  await stream.write(30)
  const report = await stream.pipeline().drain({ timeout: 30_000 })
  expect(report).toMatchObject({
    schema: 1,
    published: 30,
    stillWriting: false,
    sinks: [{ name: 'warehouse', partitions: 3, parkedKeys: 0 }],
  })
  await stream.arrived()
  expect(await stream.pipeline().drain({ timeout: 30_000 })).toMatchObject({ published: 0 })
  expect(await stream.judge()).toEqual(CLEAN)
})

test('another topic template is refused in mid-stream, and taken once drained; a relay that begins ends the drain', async () => {
  await stream.write(10)
  await stream.flow()
  await expect(halt(renamed())).rejects.toMatchObject({
    code: 'MILLRACE_FINGERPRINT_CHANGED',
    remedy: expect.stringContaining('millrace drain'),
  })
  await stream.write(5)
  await stream.pipeline().drain({ timeout: 30_000 })
  await stream.write(5)
  await stream.flow(renamed())
  expect(await stream.judge()).toEqual(CLEAN)
  // the drain is over: back again is a change in mid-stream
  await expect(halt()).rejects.toMatchObject({ code: 'MILLRACE_FINGERPRINT_CHANGED' })
})

test('a sink that has no place in a partition yet is not drained, empty as the partition may be', async () => {
  const blocker = new pg.Client({ connectionString: replica.url })
  await blocker.connect()
  try {
    await blocker.query('begin; lock table millrace.checkpoint in share row exclusive mode')
    await expect(stream.pipeline().drain({ timeout: 5_000 })).rejects.toMatchObject({
      code: 'MILLRACE_DRAIN_TIMEOUT',
      message: expect.stringContaining('which it has not begun'),
    })
  } finally {
    await blocker.end()
  }
  await stream.pipeline().drain({ timeout: 30_000 })
})

test('who is behind is named when time is up, and nothing is recorded', async () => {
  const blocker = new pg.Client({ connectionString: replica.url })
  await blocker.connect()
  try {
    await blocker.query('begin; lock table orders')
    await stream.write(5)
    await expect(stream.pipeline().drain({ timeout: 10_000 })).rejects.toMatchObject({
      code: 'MILLRACE_DRAIN_TIMEOUT',
      message: expect.stringMatching(/the sink warehouse is behind: .*\.order\/\d by \d/),
    })
    await blocker.query('rollback')
  } finally {
    await blocker.end()
  }
  await expect(halt(renamed())).rejects.toMatchObject({ code: 'MILLRACE_FINGERPRINT_CHANGED' })
  await stream.flow()
})

test('it is refused while a relay runs', async () => {
  const running = await stream.run()
  await eventually(async () => (await running.status()).relay?.phase === 'running', { what: 'the relay to run' })
  await expect(stream.pipeline().drain({ timeout: 30_000 })).rejects.toMatchObject({ code: 'MILLRACE_SLOT_IN_USE' })
})

test('services that write on are noticed', async () => {
  const writer = new AbortController()
  const writing = (async () => {
    while (!writer.signal.aborted) await stream.write(5)
  })()
  try {
    expect(await stream.pipeline().drain({ timeout: 30_000 })).toMatchObject({ stillWriting: true })
  } finally {
    writer.abort()
    await writing
  }
  await stream.flow()
  expect(await stream.judge()).toEqual(CLEAN)
})

requires('kafka')('over Kafka', () => {
  test('a sink with start: latest misses nothing of partitions that were added before the drain', async () => {
    const { default: kafkajs } = await import('kafkajs')
    begin({ kind: 'kafka', brokers: await sharedKafka() })
    const { warehouse } = stream.config.sinks as Record<string, { readonly kind: string }>
    const latest = { sinks: { warehouse: { kind: 'postgres', ...warehouse, start: 'latest' } } } as Partial<MillraceConfig>
    await source.query(`select pg_drop_replication_slot('millrace_d${process.pid}_${count - 1}')`)
    await source.query('truncate millrace.outbox, millrace.relay_state')
    await stream.pipeline(latest).init()
    await stream.pipeline(latest).drain({ timeout: 30_000 })
    await stream.write(10)
    await stream.flow(latest)
    const admin = new kafkajs.Kafka({ brokers: await sharedKafka(), logLevel: kafkajs.logLevel.NOTHING }).admin()
    await admin.connect()
    await admin.createPartitions({ topicPartitions: [{ topic: `${stream.name}.order`, count: 7 }] })
    await admin.disconnect()
    await stream.pipeline(latest).drain({ timeout: 30_000 })
    await stream.write(10)
    // published before the sink begins again
    await stream.pipeline({ ...latest, sinks: {} }).drain({ timeout: 30_000 })
    await stream.flow(latest)
    expect(await stream.judge()).toEqual(CLEAN)
  }, 150_000)

  test('partitions that were added are taken once drained, and a topic that is gone', async () => {
    const { default: kafkajs } = await import('kafkajs')
    begin({ kind: 'kafka', brokers: await sharedKafka() })
    await source.query(`select pg_drop_replication_slot('millrace_d${process.pid}_${count - 1}')`)
    await source.query('truncate millrace.outbox, millrace.relay_state')
    await stream.pipeline().init()
    await stream.write(10)
    await stream.flow()
    const admin = new kafkajs.Kafka({ brokers: await sharedKafka(), logLevel: kafkajs.logLevel.NOTHING }).admin()
    await admin.connect()
    const grow = (partitions: number, topic = `${stream.name}.order`): Promise<boolean> =>
      admin.createPartitions({ topicPartitions: [{ topic, count: partitions }] })
    try {
      await stream.pipeline().drain({ timeout: 30_000 })
      await grow(5)
      await stream.write(20)
      await stream.flow()
      expect(await stream.judge()).toEqual(CLEAN)
      await stream.pipeline().drain({ timeout: 30_000 })
      await admin.deleteTopics({ topics: [`${stream.name}.order`] })
      await stream.write(5)
      await stream.flow(renamed())
      // without a drain the stream goes on with the partitions it has
      await grow(7, `${stream.name}.new.order`)
      await stream.write(20)
      await stream.flow(renamed())
      // the first thirty went with their topic
      expect(await stream.judge()).toEqual({ ...CLEAN, missing: 30 })
    } finally {
      await admin.disconnect()
    }
  }, 150_000)
})
