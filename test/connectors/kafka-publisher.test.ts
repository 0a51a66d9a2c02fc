import { randomBytes } from 'node:crypto'
import { Kafka, logLevel } from 'kafkajs'
import { afterAll, afterEach, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import type { Publisher, Queue, QueueRecord, StoredRecord } from '../../src/core/queue.ts'
import { eventually } from '../support/eventually.ts'
import { type KafkaCluster, sharedKafka, startKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { openKafka, uniqueName } from './kafka-queue.ts'

const records = (count: number, prefix: string, bytes = 100): QueueRecord[] =>
  Array.from({ length: count }, (_, n) => ({
    key: Buffer.from(`${prefix}${n}`),
    value: randomBytes(bytes),
    headers: [['n', `${n}`]],
  }))

const keys = (found: readonly (QueueRecord | StoredRecord)[]): string[] =>
  found.map(({ key }) => Buffer.from(key as Uint8Array).toString())

async function readAll(queue: Queue, topic: string): Promise<readonly StoredRecord[]> {
  const [range] = await queue.ranges(topic)
  const found: StoredRecord[] = []
  for await (const batch of queue.read({ topic, partition: 0 }, range ?? { start: 0n, end: 0n })) found.push(...batch)
  return found
}

requires('own-kafka')('publishing to a Kafka that fails', () => {
  let kafka: KafkaCluster
  let proxy: TcpProxy
  let queue: Queue
  let publisher: Publisher
  let topic: string
  const publish = (batch: readonly QueueRecord[]): Promise<readonly bigint[]> =>
    publisher.publish([{ topic, partition: 0, records: batch }])

  beforeAll(async () => {
    // the broker tells clients to dial the proxy, or they would go round it
    const target = { port: 0 }
    proxy = await startTcpProxy(target)
    const advertised = `CLIENT://${proxy.address},PEER://127.0.0.1:1`
    kafka = await startKafka({ properties: { 'advertised.listeners': advertised } })
    target.port = Number(kafka.brokers[0]?.split(':')[1])
  })
  afterAll(async () => {
    await kafka?.remove()
    await proxy.remove()
  })
  beforeEach(async () => {
    queue = await openKafka({ brokers: [proxy.address], requestTimeout: 2_500, topics: { partitions: 1 } })
    topic = uniqueName('failing')
    await queue.createTopic(topic)
    publisher = await queue.publisher()
    await publish(records(3, 'before '))
  })
  afterEach(async () => {
    proxy.restore()
    await queue.close()
  })

  test('an answer that is lost leaves the outcome unknown, and nothing is sent again', async () => {
    proxy.hold('to-client')
    const begun = performance.now()
    await expect(publish(records(5, 'held '))).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    expect(performance.now() - begun).toBeGreaterThan(2_000)
    await expect(publish(records(1, 'after '))).rejects.toMatchObject({ code: 'MILLRACE_INTERNAL' })
    proxy.restore()
    expect(keys(await readAll(queue, topic))).toEqual([...keys(records(3, 'before ')), ...keys(records(5, 'held '))])
  })

  test('a connection that is cut before the request has arrived leaves the outcome unknown, and the next publisher goes on', async () => {
    const cut = proxy.cutAfter(200_000, 'to-server')
    await expect(publish(records(50, 'cut ', 10_000))).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    await cut
    publisher = await queue.publisher()
    expect(await publish(records(2, 'after '))).toEqual([3n])
    expect(keys(await readAll(queue, topic))).toEqual([...keys(records(3, 'before ')), ...keys(records(2, 'after '))])
  })

  test('a broker that is killed in mid-publish has what it acknowledged when it is back, in order and once', async () => {
    const acknowledged: string[] = []
    let tried = 0
    const flowing = (async () => {
      for (;;) {
        const batch = records(200, `${tried++}/`, 2_000)
        await publish(batch)
        acknowledged.push(...keys(batch))
      }
    })()
    flowing.catch(() => {})
    await eventually(() => acknowledged.length > 2_000, { what: 'events flow' })
    await kafka.kill()
    await expect(flowing).rejects.toMatchObject({ code: expect.stringMatching(/^MILLRACE_(PUBLISH_UNKNOWN|QUEUE_UNREACHABLE)$/) })
    await expect(queue.ranges(topic)).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_UNREACHABLE' })
    await kafka.start()
    const found = keys(await eventually(() => readAll(queue, topic), { within: 20_000, what: 'the log can be read' })).slice(3)
    expect(found.slice(0, acknowledged.length)).toEqual(acknowledged)
    expect(found.length - acknowledged.length).toBeOneOf([0, 200])
  })

  test('a topic that is deleted under a publisher is not made again', async () => {
    const admin = new Kafka({ brokers: [proxy.address], logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    onTestFinished(() => admin.disconnect())
    await admin.deleteTopics({ topics: [topic] })
    await expect(publish(records(1, 'after '))).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    publisher = await queue.publisher()
    await expect(publish(records(1, 'after '))).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_NOT_READY' })
    await expect(readAll(queue, topic)).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_NOT_READY' })
    expect(await queue.topics([topic])).toEqual(new Map())
  })

  test('a state write whose answer is lost fails, and the next one goes through', async () => {
    await queue.state.write('s/1', 'one')
    proxy.hold('to-client')
    await expect(queue.state.write('s/1', 'two')).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    proxy.restore()
    await queue.state.write('s/2', 'three')
    expect([...(await queue.state.read('s/'))].sort()).toEqual([
      ['s/1', 'two'],
      ['s/2', 'three'],
    ])
    await queue.state.remove('s/1')
    await queue.state.remove('s/2')
  })
})

requires('own-kafka')('publishing to a Kafka of three', () => {
  let kafka: KafkaCluster
  let queue: Queue
  beforeAll(async () => {
    kafka = await startKafka({ brokers: 3 })
    queue = await openKafka({ brokers: [...kafka.brokers], requestTimeout: '10s', topics: { partitions: 6 } })
  })
  afterAll(async () => {
    await queue?.close()
    await kafka?.remove()
  })

  test('a publish to many leaders is acknowledged by each, in the order of its entries', async () => {
    const topic = uniqueName('many')
    await queue.createTopic(topic)
    const publisher = await queue.publisher()
    onTestFinished(() => publisher.close())
    for (let round = 0; round < 3; round++) {
      const batches = [5, 3, 1, 0, 2, 4].map((partition) => ({
        topic,
        partition,
        records: records(10 * partition + 1, `${round} `),
      }))
      expect(await publisher.publish(batches)).toEqual(batches.map(({ records }) => BigInt(round * records.length)))
    }
    expect((await queue.ranges(topic)).map(({ end }) => end)).toEqual([3n, 33n, 63n, 93n, 123n, 153n])
  })

  test('a leader that dies takes one publisher with it, and acknowledged events stay', async () => {
    const topic = uniqueName('dying')
    await queue.createTopic(topic)
    const admin = new Kafka({ brokers: [...kafka.brokers], logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    onTestFinished(() => admin.disconnect())
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    const leader = topics[0]?.partitions.find(({ partitionId }) => partitionId === 0)?.leader as number
    const publisher = await queue.publisher()
    const at = { topic, partition: 0 }
    expect(await publisher.publish([{ ...at, records: records(10, 'before ') }])).toEqual([0n])
    await kafka.kill(leader)
    await expect(publisher.publish([{ ...at, records: records(10, 'lost ') }])).rejects.toThrow(/./)
    const [base] = await eventually(
      async () => {
        const next = await queue.publisher()
        onTestFinished(() => next.close())
        return next.publish([{ ...at, records: records(10, 'after ') }])
      },
      { within: 40_000, what: 'another leader takes over' },
    )
    expect(base).toBe(10n)
    expect(keys(await readAll(queue, topic))).toEqual([...keys(records(10, 'before ')), ...keys(records(10, 'after '))])
    await kafka.start(leader)
  })
})

requires('kafka')('what Kafka is sent', () => {
  let queue: Queue
  let admin: ReturnType<Kafka['admin']>
  const made: string[] = []
  beforeAll(async () => {
    const brokers = await sharedKafka()
    queue = await openKafka({ brokers, topics: { partitions: 1, replication: 1 } })
    admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
  })
  afterAll(async () => {
    await admin?.deleteTopics({ topics: made })
    await admin?.disconnect()
    await queue?.close()
  })

  test('more than a request holds is split, and stands together all the same', async () => {
    const topic = uniqueName('split')
    made.push(topic)
    await queue.createTopic(topic)
    const publisher = await queue.publisher()
    onTestFinished(() => publisher.close())
    const large = records(30, 'large ', 400_000)
    expect(await publisher.publish([{ topic, partition: 0, records: large }])).toEqual([0n])
    expect(keys(await readAll(queue, topic))).toEqual(keys(large))
  })

  test('a topic with a smaller limit of its own refuses before anything is written', async () => {
    const topic = uniqueName('small')
    made.push(topic)
    await admin.createTopics({
      topics: [{ topic, numPartitions: 1, replicationFactor: 1, configEntries: [{ name: 'max.message.bytes', value: '20000' }] }],
    })
    await queue.createTopic(topic)
    const publisher = await queue.publisher()
    const batch = [...records(100, 'small ', 1_000), ...records(1, 'large ', 20_000)]
    await expect(publisher.publish([{ topic, partition: 0, records: batch }])).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_TOO_LARGE',
      fields: { topic, record: 100 },
    })
    expect(await readAll(queue, topic)).toEqual([])
    expect(queue.traits.maxRecordBytes).toBe(20_000 - 61)
    const next = await queue.publisher()
    onTestFinished(() => next.close())
    // what is more than a batch of the topic goes out in several
    await next.publish([{ topic, partition: 0, records: records(100, 'small ', 1_000) }])
    expect(await readAll(queue, topic)).toHaveLength(100)
  })
})
