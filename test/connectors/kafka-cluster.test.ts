import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { Finding } from '../../src/core/finding.ts'
import type { Queue } from '../../src/core/queue.ts'
import { eventually } from '../support/eventually.ts'
import { type KafkaCluster, startKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { openKafka, uniqueName } from './kafka-queue.ts'
import { type Admin, adminOf, join, keysOf, publish, readAll, recordsOf, take } from './kafka-steps.ts'

requires('own-kafka')('a Kafka of three brokers', () => {
  let kafka: KafkaCluster
  let queue: Queue
  let admin: Admin
  beforeAll(async () => {
    kafka = await startKafka({ brokers: 3 })
    queue = await openKafka({ brokers: [...kafka.brokers], requestTimeout: '10s', topics: { partitions: 6 } })
    admin = await adminOf(kafka.brokers)
  })
  afterAll(async () => {
    await admin?.disconnect().catch(() => {})
    await queue?.close()
    await kafka?.remove()
  })
  const leaderOf = async (topic: string): Promise<number> => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    return topics[0]?.partitions.find(({ partitionId }) => partitionId === 0)?.leader as number
  }

  /** The leader of the group's partition of the offsets topic, which goes by Java's hash of its name. */
  const coordinatorOf = async (group: string): Promise<number> => {
    const { topics } = await admin.fetchTopicMetadata({ topics: ['__consumer_offsets'] })
    const partitions = topics[0]?.partitions ?? []
    const hash = [...group].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) | 0, 0)
    const own = Math.abs(hash) % partitions.length
    return partitions.find(({ partitionId }) => partitionId === own)?.leader as number
  }

  test('a publish to many leaders is acknowledged by each, in the order of its entries', async () => {
    const topic = uniqueName('many')
    await queue.createTopic(topic)
    const publisher = await queue.publisher()
    onTestFinished(() => publisher.close())
    for (let round = 0; round < 3; round++) {
      const batches = [5, 3, 1, 0, 2, 4].map((partition) => ({
        topic,
        partition,
        records: recordsOf(10 * partition + 1, `${round} `),
      }))
      expect(await publisher.publish(batches)).toEqual(batches.map(({ records }) => BigInt(round * records.length)))
    }
    expect((await queue.ranges(topic)).map(({ end }) => end)).toEqual([3n, 33n, 63n, 93n, 123n, 153n])
  })

  test('a topic of fewer replicas than there could be is found', async () => {
    const [scarce, full] = [uniqueName('scarce'), uniqueName('full')]
    const single = await openKafka({ brokers: [...kafka.brokers], topics: { partitions: 1, replication: 1 } })
    onTestFinished(() => single.close())
    await single.createTopic(scarce)
    await queue.createTopic(full)
    const about = (findings: readonly Finding[], level: Finding['level']): readonly string[] =>
      findings.filter((finding) => finding.level === level).map(({ message }) => message)
    const found = await queue.check([scarce, full])
    expect(about(found, 'warning')).toEqual([
      `${scarce}: replication is 1 and could be 3: the loss of a broker can lose acknowledged events`,
    ])
    expect(about(found, 'blocker')).toEqual([])
    expect(about(await single.check([scarce]), 'warning')).toEqual([])
  })

  test('a leader that dies takes one publisher with it, and acknowledged events stay', async () => {
    const topic = uniqueName('dying')
    await queue.createTopic(topic)
    const leader = await leaderOf(topic)
    const publisher = await queue.publisher()
    const at = { topic, partition: 0 }
    expect(await publisher.publish([{ ...at, records: recordsOf(10, 'before ') }])).toEqual([0n])
    await kafka.kill(leader)
    await expect(publisher.publish([{ ...at, records: recordsOf(10, 'lost ') }])).rejects.toThrow(/./)
    const [base] = await eventually(
      async () => {
        const next = await queue.publisher()
        onTestFinished(() => next.close())
        return next.publish([{ ...at, records: recordsOf(10, 'after ') }])
      },
      { within: 40_000, what: 'another leader takes over' },
    )
    expect(base).toBe(10n)
    expect(keysOf(await readAll(queue, topic))).toEqual([...keysOf(recordsOf(10, 'before ')), ...keysOf(recordsOf(10, 'after '))])
    await kafka.start(leader)
  })

  test('a follower goes on where the partition goes, and a publisher that is not told stops', async () => {
    const topic = uniqueName('moving')
    const single = await openKafka({ brokers: [...kafka.brokers], topics: { partitions: 1, replication: 1 } })
    onTestFinished(() => single.close())
    await single.createTopic(topic)
    const publisher = await queue.publisher()
    onTestFinished(() => publisher.close())
    await publisher.publish([{ topic, partition: 0, records: recordsOf(5, 'before ') }])
    const member = await join(queue, [topic], uniqueName('group'))
    const [assignment] = await member.holding(1)
    const found: string[] = []
    void (async () => {
      for await (const batch of assignment.read(0n)) found.push(...keysOf(batch))
    })()
    const to = (await leaderOf(topic)) === 1 ? 2 : 1
    await admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment: [{ partition: 0, replicas: [to] }] }] })
    const acknowledged = keysOf(recordsOf(5, 'before '))
    const publishing = async (): Promise<void> => {
      for (let n = 0; ; n++) {
        await publisher.publish([{ topic, partition: 0, records: recordsOf(5, `${n}/`) }])
        acknowledged.push(...keysOf(recordsOf(5, `${n}/`)))
      }
    }
    // the old leader says so as soon as it knows
    await expect(publishing()).rejects.toMatchObject({ code: 'MILLRACE_PUBLISH_UNKNOWN' })
    await eventually(async () => (await leaderOf(topic)) === to, { within: 20_000, what: 'the partition has moved' })
    await publish(queue, topic, recordsOf(5, 'after '))
    acknowledged.push(...keysOf(recordsOf(5, 'after ')))
    await eventually(() => found.at(-1) === 'after 4', { within: 20_000, what: 'the follower is at the end' })
    expect(found).toEqual(acknowledged)
    expect(assignment.signal.aborted).toBe(false)
  })

  test('a member whose coordinator dies keeps its partitions, and the next coordinator takes its reports', async () => {
    const topic = uniqueName('coordinated')
    const group = uniqueName('group')
    await queue.createTopic(topic)
    const member = await join(queue, [topic], group)
    const held = await member.holding(6)
    const [assignment] = held
    const coordinator = await coordinatorOf(group)
    await kafka.kill(coordinator)
    await eventually(
      async () => {
        assignment.report(7n)
        const [found] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
        return found?.partitions.some(({ offset }) => offset === '7')
      },
      { within: 40_000, what: 'the report of a member from before arrives' },
    )
    expect(member.held()).toEqual(held)
    await kafka.start(coordinator)
  })

  test('a member whose cluster goes away gives up its partitions and says why', async () => {
    const topic = uniqueName('away')
    await queue.createTopic(topic)
    const member = await join(queue, [topic], uniqueName('group'))
    const [assignment] = await member.holding(6)
    const following = take(assignment, 0n, 1)
    following.catch(() => {})
    await Promise.all([1, 2, 3].map((node) => kafka.kill(node)))
    await expect(member.ended).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_UNREACHABLE' })
    await following.catch((error) => expect(error).toMatchObject({ code: 'MILLRACE_QUEUE_UNREACHABLE' }))
    expect(assignment.signal.aborted).toBe(true)
  })
})
