import { CompressionTypes, Kafka, logLevel } from 'kafkajs'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { Queue, StoredRecord } from '../../src/core/queue.ts'
import { eventually } from '../support/eventually.ts'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { openKafka, uniqueName } from './kafka-queue.ts'
import { type Admin, adminOf, join, keysOf, publish, readAll, recordsOf, take } from './kafka-steps.ts'

requires('kafka')('following a log of Kafka', () => {
  let brokers: string[]
  let queue: Queue
  let admin: Admin
  const made: string[] = []
  beforeAll(async () => {
    brokers = await sharedKafka()
    queue = await openKafka({ brokers, topics: { partitions: 1, replication: 1 } })
    admin = await adminOf(brokers)
  })
  afterAll(async () => {
    const existing = new Set(await admin?.listTopics())
    await admin?.deleteTopics({ topics: made.filter((topic) => existing.has(topic)) })
    await admin?.disconnect()
    await queue?.close()
  })
  async function newTopic(): Promise<string> {
    const topic = uniqueName('follow')
    made.push(topic)
    await queue.createTopic(topic)
    return topic
  }

  test('passes over the markers of transactions, committed or not', async () => {
    const topic = await newTopic()
    const producer = new Kafka({ brokers, logLevel: logLevel.NOTHING }).producer({
      transactionalId: uniqueName('tx'),
      idempotent: true,
      maxInFlightRequests: 1,
    })
    await producer.connect()
    onTestFinished(() => producer.disconnect())
    for (const outcome of ['commit', 'abort', 'commit'] as const) {
      const transaction = await producer.transaction()
      await transaction.send({
        topic,
        messages: [
          { key: outcome, value: null },
          { key: outcome, value: null },
        ],
      })
      await transaction[outcome]()
    }
    await publish(queue, topic, recordsOf(1, 'after '))
    const member = await join(queue, [topic], uniqueName('group'))
    const [assignment] = await member.holding(1)
    const expected = [
      [0n, 'commit'],
      [1n, 'commit'],
      [3n, 'abort'],
      [4n, 'abort'],
      [6n, 'commit'],
      [7n, 'commit'],
      [9n, 'after 0'],
    ]
    expect((await take(assignment, 0n, 7)).map(({ offset, key }) => [offset, String(key && Buffer.from(key))])).toEqual(expected)
    expect(keysOf(await take(assignment, 8n, 1))).toEqual(['after 0'])
    const read: StoredRecord[] = []
    for await (const batch of queue.read({ topic, partition: 0 }, { start: 2n, end: 9n })) read.push(...batch)
    expect(read.map(({ offset }) => offset)).toEqual([3n, 4n, 6n, 7n])
  })

  test.each(['gzip', 'zstd'] as const)('reads what was written with %s, by us or by others', async (compression) => {
    const topic = await newTopic()
    const packed = await openKafka({ brokers, compression })
    onTestFinished(() => packed.close())
    const batch = recordsOf(500, 'packed ')
    await publish(packed, topic, batch)
    expect(keysOf(await readAll(queue, topic))).toEqual(keysOf(batch))
    if (compression !== 'gzip') return
    const producer = new Kafka({ brokers, logLevel: logLevel.NOTHING }).producer()
    await producer.connect()
    await producer.send({ topic, compression: CompressionTypes.GZIP, messages: [{ key: 'theirs', value: 'x' }] })
    await producer.disconnect()
    expect(keysOf(await readAll(queue, topic)).at(-1)).toBe('theirs')
  })

  test('reports show as the offsets of the group', async () => {
    const topic = await newTopic()
    const group = uniqueName('group')
    await publish(queue, topic, recordsOf(10, ''))
    const member = await join(queue, [topic], group)
    const [assignment] = await member.holding(1)
    assignment.report(3n)
    assignment.report(7n)
    await eventually(
      async () => (await admin.fetchOffsets({ groupId: group, topics: [topic] }))[0]?.partitions[0]?.offset === '7',
      { what: 'the group says 7' },
    )
    // and reading never begins there
    expect(keysOf(await take(assignment, 0n, 1))[0]).toBe('0')
  })

  test('a topic that is deleted ends its reader with an error', async () => {
    const topic = await newTopic()
    await publish(queue, topic, recordsOf(3, ''))
    const member = await join(queue, [topic], uniqueName('group'))
    const [assignment] = await member.holding(1)
    const following = take(assignment, 0n, 4)
    following.catch(() => {})
    await admin.deleteTopics({ topics: [topic] })
    await expect(following).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_NOT_READY', fields: { topic } })
  })

  test('partitions that are added are shared out at the next rebalance', async () => {
    const topic = await newTopic()
    const group = uniqueName('group')
    const member = await join(queue, [topic], group)
    await member.holding(1)
    await admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] })
    await eventually(async () => (await queue.topics([topic])).get(topic) === 2, { what: 'the topic has grown' })
    const other = await join(queue, [topic], group)
    await Promise.all([member.holding(1), other.holding(1)])
    expect([...member.held(), ...other.held()].map(({ partition }) => partition).sort()).toEqual([0, 1])
  })
})
