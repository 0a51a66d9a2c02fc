import { ConfigResourceTypes } from 'kafkajs'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { KafkaOptions } from '../../connectors/queues/kafka.ts'
import type { Finding } from '../../src/core/finding.ts'
import type { Queue } from '../../src/core/queue.ts'
import { eventually } from '../support/eventually.ts'
import { type KafkaCluster, sharedKafka, startKafka } from '../support/kafka.ts'
import { steadyPort } from '../support/port.ts'
import { requires } from '../support/requires.ts'
import { openKafka, uniqueName } from './kafka-queue.ts'
import { type Admin, adminOf } from './kafka-steps.ts'

async function settingsOf(admin: Admin, topic: string): Promise<Record<string, string>> {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }],
  })
  return Object.fromEntries((resources[0]?.configEntries ?? []).map(({ configName, configValue }) => [configName, configValue]))
}

requires('kafka')('topics of Kafka', () => {
  let brokers: string[]
  let admin: Admin
  const made: string[] = []
  const name = (): string => {
    const topic = uniqueName('topics')
    made.push(topic)
    return topic
  }
  async function open(options: Partial<KafkaOptions> = {}, pipeline = 'test'): Promise<Queue> {
    const queue = await openKafka({ brokers, ...options }, pipeline)
    onTestFinished(() => queue.close())
    return queue
  }
  const make = (topic: string, settings: Record<string, string>): Promise<boolean> =>
    admin.createTopics({
      topics: [
        {
          topic,
          numPartitions: 2,
          replicationFactor: 1,
          configEntries: Object.entries(settings).map(([name, value]) => ({ name, value })),
        },
      ],
      waitForLeaders: false,
    })

  beforeAll(async () => {
    brokers = await sharedKafka()
    admin = await adminOf(brokers)
  })
  afterAll(async () => {
    const existing = new Set(await admin?.listTopics())
    await admin?.deleteTopics({ topics: made.filter((topic) => existing.has(topic)) })
    await admin?.disconnect()
  })

  test('are made with everything said that keeps events', async () => {
    const queue = await open({ topics: { partitions: 4, retention: '36h' } })
    const topic = name()
    await queue.createTopic(topic)
    expect(await queue.topics([topic])).toEqual(new Map([[topic, 4]]))
    expect(await settingsOf(admin, topic)).toMatchObject({
      'cleanup.policy': 'delete',
      'retention.ms': String(36 * 3_600_000),
      'retention.bytes': '-1',
      'min.insync.replicas': '1',
      'unclean.leader.election.enable': 'false',
    })
  })

  test('are not made where somebody else makes them: the command is said', async () => {
    const queue = await open({ topics: { create: false, partitions: 3, replication: 2 } })
    const topic = name()
    await expect(queue.createTopic(topic)).rejects.toMatchObject({
      code: 'MILLRACE_QUEUE_NOT_READY',
      remedy: expect.stringMatching(
        new RegExp(
          `^kafka-topics.sh .* --create --topic ${topic} --partitions 3 --replication-factor 2 --config cleanup.policy=delete`,
        ),
      ),
    })
    expect(await queue.topics([topic])).toEqual(new Map())
    await make(topic, {})
    await eventually(() => queue.createTopic(topic).then(() => true), { what: 'a topic that somebody made is taken as it is' })
  })

  test('that the cluster cannot hold are refused with its reason', async () => {
    const queue = await open({ topics: { replication: 7 } })
    await expect(queue.createTopic(name())).rejects.toMatchObject({
      code: 'MILLRACE_QUEUE_NOT_READY',
      message: expect.stringContaining('INVALID_REPLICATION_FACTOR'),
    })
  })

  test('for the state are compacted, and made by the first write only', async () => {
    const pipeline = uniqueName('state')
    const topic = `millrace.${pipeline}.state`
    made.push(topic)
    const queue = await open({}, pipeline)
    expect(await queue.state.read('')).toEqual(new Map())
    expect(await queue.topics([topic])).toEqual(new Map())
    await queue.state.write('a', '1')
    expect(await queue.topics([topic])).toEqual(new Map([[topic, 1]]))
    expect((await settingsOf(admin, topic))['cleanup.policy']).toBe('compact')
    const strict = await open({ topics: { create: false } }, uniqueName('state'))
    await expect(strict.state.write('a', '1')).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_NOT_READY' })
  })

  describe('are checked', () => {
    const about = (findings: readonly Finding[], text: string): Finding | undefined =>
      findings.find(({ message }) => message.includes(text))

    test('and a good one is', async () => {
      const queue = await open()
      const topic = name()
      await queue.createTopic(topic)
      const findings = await queue.check([topic])
      expect(about(findings, topic)).toMatchObject({
        level: 'ok',
        subject: 'queue',
        message: `${topic}: 6 partitions, events stay for 7 days`,
      })
      expect(findings.filter(({ level }) => level === 'blocker')).toEqual([])
      expect(about(findings, 'one broker')).toMatchObject({ level: 'warning' })
    })

    test.each([
      ['compacted', { 'cleanup.policy': 'compact' }, 'compaction removes events', 'blocker'],
      ['of a short retention', { 'retention.ms': '600000' }, 'less than an hour', 'blocker'],
      ['of a retention of hours', { 'retention.ms': '7200000' }, 'events stay for 2 hours', 'warning'],
      ['with unclean elections', { 'unclean.leader.election.enable': 'true' }, 'can drop acknowledged events', 'blocker'],
      ['that asks for more replicas than there are', { 'min.insync.replicas': '2' }, 'nothing can be published', 'blocker'],
      ['with a small limit', { 'max.message.bytes': '1000' }, 'larger events cannot be published', 'warning'],
    ])('and one that is %s is found', async (_, settings, text, level) => {
      const queue = await open()
      const topic = name()
      await make(topic, settings)
      await eventually(async () => (await queue.topics([topic])).size === 1, { what: 'the topic is known' })
      const finding = about(await queue.check([topic]), text)
      expect(finding).toMatchObject({ level, subject: 'queue' })
      expect(finding?.remedy).toBeTruthy()
    })

    test('and a missing one will be made, or is missed', async () => {
      const topic = name()
      expect(about(await (await open()).check([topic]), topic)).toMatchObject({ level: 'ok' })
      expect(about(await (await open({ topics: { create: false } })).check([topic]), topic)).toMatchObject({ level: 'blocker' })
    })

    test('and a broker that does not answer is named', async () => {
      const dead = `127.0.0.1:${await steadyPort()}`
      const some = await (await open({ brokers: [dead, ...brokers] })).check([])
      expect(about(some, dead)).toMatchObject({ level: 'warning' })
      const none = await (await open({ brokers: [dead] })).check([name()])
      expect(none).toEqual([expect.objectContaining({ level: 'blocker', message: expect.stringContaining(dead) })])
    })
  })
})

requires('own-kafka')('a log of Kafka that has been compacted', () => {
  let kafka: KafkaCluster
  beforeAll(async () => {
    kafka = await startKafka({ properties: { 'log.cleaner.backoff.ms': '100' } })
  })
  afterAll(() => kafka?.remove())

  test('is read over its holes to its end, and the state in it is the last written', async () => {
    const brokers = [...kafka.brokers]
    const queue = await openKafka({ brokers }, 'compacted')
    onTestFinished(() => queue.close())
    const topic = 'millrace.compacted.state'
    const at = { topic, partition: 0 }
    await queue.state.write('first', 'stays')
    const admin = await adminOf(brokers)
    onTestFinished(() => admin.disconnect())
    // a segment is closed by its age or its size, and only closed ones are cleaned
    await admin.alterConfigs({
      validateOnly: false,
      resources: [
        {
          type: ConfigResourceTypes.TOPIC,
          name: topic,
          configEntries: [
            { name: 'cleanup.policy', value: 'compact' },
            { name: 'segment.ms', value: '50' },
            { name: 'min.cleanable.dirty.ratio', value: '0.01' },
          ],
        },
      ],
    })
    let writes = 0
    await eventually(
      async () => {
        for (let n = 0; n < 20; n++) await queue.state.write(`key-${n % 3}`, `${writes++}`)
        const [range] = await queue.ranges(topic)
        const offsets: bigint[] = []
        for await (const batch of queue.read(at, range as { start: bigint; end: bigint }))
          offsets.push(...batch.map(({ offset }) => offset))
        expect(offsets.at(-1)).toBe((range?.end as bigint) - 1n)
        return offsets.some((offset, n) => n > 1 && offset !== (offsets[n - 1] as bigint) + 1n)
      },
      { within: 30_000, what: 'the cleaner leaves holes' },
    )
    expect(Object.fromEntries(await queue.state.read(''))).toEqual({
      first: 'stays',
      ...Object.fromEntries([0, 1, 2].map((key) => [`key-${key}`, String(lastWriteOf(key, writes))])),
    })
  })
})

/** of keys taken in turn in runs of 20 */
function lastWriteOf(key: number, writes: number): number {
  for (let n = writes - 1; ; n--) if ((n % 20) % 3 === key) return n
}
