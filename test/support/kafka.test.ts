import { Kafka, logLevel } from 'kafkajs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type KafkaCluster, sharedKafka, startKafka } from './kafka.ts'
import { requires } from './requires.ts'

const client = (brokers: readonly string[], more: object = {}) =>
  new Kafka({ clientId: 'support', brokers: [...brokers], logLevel: logLevel.NOTHING, ...more })

requires('kafka')('the broker of the run', () => {
  test('answers, and is the same for everyone who asks', async () => {
    const [first, second] = await Promise.all([sharedKafka(), sharedKafka()])
    expect(first).toEqual(second)
    const admin = client(first).admin()
    await admin.connect()
    expect((await admin.describeCluster()).brokers).toHaveLength(1)
    await admin.disconnect()
  })
})

requires('own-kafka')('a Kafka of the test', () => {
  let kafka: KafkaCluster
  beforeAll(async () => {
    kafka = await startKafka({ brokers: 3 })
  })
  afterAll(() => kafka?.remove())

  test('keeps what it acknowledged when a node is killed and comes back on its port', async () => {
    const admin = client(kafka.brokers).admin()
    await admin.connect()
    await admin.createTopics({ topics: [{ topic: 'kept', numPartitions: 1, replicationFactor: 3 }], waitForLeaders: true })
    const producer = client(kafka.brokers).producer({ allowAutoTopicCreation: false })
    await producer.connect()
    await producer.send({ topic: 'kept', acks: -1, messages: [{ value: 'before' }] })

    const before = kafka.pid(1)
    await kafka.kill(1)
    expect(kafka.pid(1)).toBe(0)
    await producer.send({ topic: 'kept', acks: -1, messages: [{ value: 'while it is down' }] })
    await kafka.start(1)
    expect(kafka.pid(1)).not.toBe(before)
    await producer.send({ topic: 'kept', acks: -1, messages: [{ value: 'after' }] })

    expect(await admin.fetchTopicOffsets('kept')).toMatchObject([{ low: '0', high: '3' }])
    await producer.disconnect()
    await admin.disconnect()
  })
})

requires('own-kafka')('a Kafka with SASL', () => {
  test.each(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512', 'OAUTHBEARER'] as const)('lets in by %s and nobody else', async (mechanism) => {
    const kafka = await startKafka({ sasl: { mechanism, users: { relay: 'right' } } })
    try {
      const admin = client(kafka.brokers, { sasl: login(mechanism, 'right'), retry: { retries: 0 } }).admin()
      await admin.connect()
      expect((await admin.describeCluster()).brokers).toHaveLength(1)
      await admin.disconnect()
      const stranger = client(kafka.brokers, { sasl: login(mechanism, 'wrong'), retry: { retries: 0 } }).admin()
      await expect(stranger.connect()).rejects.toThrow()
    } finally {
      await kafka.remove()
    }
  })
})

function login(mechanism: string, password: string): object {
  if (mechanism !== 'OAUTHBEARER') return { mechanism, username: 'relay', password }
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)
  const expires = password === 'right' ? now + 60 : now - 3_600
  const value = `${part({ alg: 'none' })}.${part({ sub: 'relay', iat: expires - 60, exp: expires })}.`
  return { mechanism, oauthBearerProvider: async () => ({ value }) }
}
