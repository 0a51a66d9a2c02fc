import { afterAll, afterEach, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import type { Publisher, Queue, QueueRecord } from '../../src/core/queue.ts'
import { eventually } from '../support/eventually.ts'
import { type KafkaCluster, sharedKafka, startKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { openKafka, uniqueName } from './kafka-queue.ts'
import { type Admin, adminOf, keysOf, readAll, recordsOf } from './kafka-steps.ts'

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
    await publish(recordsOf(3, 'before '))
  })
  afterEach(async () => {
    proxy.restore()
    await queue.close()
  })

  test('an answer that is lost leaves the outcome unknown, and nothing is sent again', async () => {
    proxy.hold('to-client')
    const begun = performance.now()
    await expect(publish(recordsOf(5, 'held '))).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    expect(performance.now() - begun).toBeGreaterThan(2_000)
    await expect(publish(recordsOf(1, 'after '))).rejects.toMatchObject({ code: 'MILLRACE_INTERNAL' })
    proxy.restore()
    expect(keysOf(await readAll(queue, topic))).toEqual([...keysOf(recordsOf(3, 'before ')), ...keysOf(recordsOf(5, 'held '))])
  })

  test('an answer that breaks off leaves the outcome unknown, although the broker could be asked again', async () => {
    const cut = proxy.cutAfter(5, 'to-client')
    await expect(publish(recordsOf(5, 'broken off '))).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    await cut
    expect(keysOf(await readAll(queue, topic))).toEqual([
      ...keysOf(recordsOf(3, 'before ')),
      ...keysOf(recordsOf(5, 'broken off ')),
    ])
  })

  test('a connection that is cut before the request has arrived leaves the outcome unknown, and the next publisher goes on', async () => {
    const cut = proxy.cutAfter(200_000, 'to-server')
    await expect(publish(recordsOf(50, 'cut ', 10_000))).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    await cut
    publisher = await queue.publisher()
    expect(await publish(recordsOf(2, 'after '))).toEqual([3n])
    expect(keysOf(await readAll(queue, topic))).toEqual([...keysOf(recordsOf(3, 'before ')), ...keysOf(recordsOf(2, 'after '))])
  })

  test('a broker that is killed in mid-publish has what it acknowledged when it is back, in order and once', async () => {
    const acknowledged: string[] = []
    let tried = 0
    const flowing = (async () => {
      for (;;) {
        const batch = recordsOf(200, `${tried++}/`, 2_000)
        await publish(batch)
        acknowledged.push(...keysOf(batch))
      }
    })()
    flowing.catch(() => {})
    await eventually(() => acknowledged.length > 2_000, { what: 'events flow' })
    await kafka.kill()
    await expect(flowing).rejects.toMatchObject({ code: expect.stringMatching(/^MILLRACE_(PUBLISH_UNKNOWN|QUEUE_UNREACHABLE)$/) })
    await expect(queue.ranges(topic)).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_UNREACHABLE' })
    await kafka.start()
    const found = keysOf(await eventually(() => readAll(queue, topic), { within: 20_000, what: 'the log can be read' })).slice(3)
    expect(found.slice(0, acknowledged.length)).toEqual(acknowledged)
    expect(found.length - acknowledged.length).toBeOneOf([0, 200])
  })

  test('a topic that is deleted under a publisher is not made again', async () => {
    const admin = await adminOf([proxy.address])
    onTestFinished(() => admin.disconnect())
    await admin.deleteTopics({ topics: [topic] })
    await expect(publish(recordsOf(1, 'after '))).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    publisher = await queue.publisher()
    await expect(publish(recordsOf(1, 'after '))).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_NOT_READY' })
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

requires('kafka')('what Kafka is sent', () => {
  let queue: Queue
  let admin: Admin
  const made: string[] = []
  beforeAll(async () => {
    const brokers = await sharedKafka()
    queue = await openKafka({ brokers, topics: { partitions: 1, replication: 1 } })
    admin = await adminOf(brokers)
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
    const large = recordsOf(30, 'large ', 400_000)
    expect(await publisher.publish([{ topic, partition: 0, records: large }])).toEqual([0n])
    expect(keysOf(await readAll(queue, topic))).toEqual(keysOf(large))
  })

  test('a topic with a smaller limit of its own refuses before anything is written', async () => {
    const topic = uniqueName('small')
    made.push(topic)
    await admin.createTopics({
      topics: [{ topic, numPartitions: 1, replicationFactor: 1, configEntries: [{ name: 'max.message.bytes', value: '20000' }] }],
    })
    await queue.createTopic(topic)
    const publisher = await queue.publisher()
    const batch = [...recordsOf(100, 'small ', 1_000), ...recordsOf(1, 'large ', 20_000)]
    await expect(publisher.publish([{ topic, partition: 0, records: batch }])).rejects.toMatchObject({
      code: 'MILLRACE_EVENT_TOO_LARGE',
      fields: { topic, record: 100 },
    })
    expect(await readAll(queue, topic)).toEqual([])
    expect(queue.traits.maxRecordBytes).toBe(20_000 - 61)
    const next = await queue.publisher()
    onTestFinished(() => next.close())
    // what is more than a batch of the topic goes out in several
    await next.publish([{ topic, partition: 0, records: recordsOf(100, 'small ', 1_000) }])
    expect(await readAll(queue, topic)).toHaveLength(100)
  })
})
