import { type Admin, Kafka, type KafkaConfig, logLevel } from 'kafkajs'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { createAuthority } from './certificates.ts'
import { type KafkaCluster, type KafkaOptions, sharedKafka, startKafka } from './kafka.ts'
import { requires } from './requires.ts'

// servers start here, on machines that are busy
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 })

const client = (brokers: readonly string[], more: Partial<KafkaConfig> = {}): Kafka =>
  new Kafka({ clientId: 'support', brokers: [...brokers], logLevel: logLevel.NOTHING, retry: { retries: 0 }, ...more })

/** The number of nodes that a client sees; one that is not let in fails by its first request at the latest. */
async function nodesSeen(admin: Admin): Promise<number> {
  try {
    await admin.connect()
    return (await admin.describeCluster()).brokers.length
  } finally {
    await admin.disconnect()
  }
}

async function own(options: KafkaOptions): Promise<KafkaCluster> {
  const kafka = await startKafka(options)
  onTestFinished(() => kafka.remove())
  return kafka
}

requires('kafka')('the broker of the run', () => {
  test('answers, and is the same for everyone who asks', async () => {
    const [first, second] = await Promise.all([sharedKafka(), sharedKafka()])
    expect(first).toEqual(second)
    expect(await nodesSeen(client(first).admin())).toBe(1)
  })
})

requires('own-kafka')('a Kafka of three nodes', () => {
  let kafka: KafkaCluster
  beforeAll(async () => {
    kafka = await startKafka({ brokers: 3 })
  })
  afterAll(() => kafka?.remove())

  test('keeps what it acknowledged when a node is killed and comes back on its port', async () => {
    const patient = client(kafka.brokers, { retry: { retries: 20, initialRetryTime: 100 } })
    const admin = patient.admin()
    await admin.connect()
    await admin.createTopics({ topics: [{ topic: 'kept', numPartitions: 1, replicationFactor: 3 }], waitForLeaders: true })
    const producer = patient.producer({ allowAutoTopicCreation: false })
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

requires('own-kafka')('a Kafka that is guarded', () => {
  test.each(['PLAIN', 'SCRAM-SHA-256', 'OAUTHBEARER'] as const)('lets in by %s and nobody else', async (mechanism) => {
    const kafka = await own({ sasl: { mechanism, users: { relay: 'right' } } })
    expect(await nodesSeen(client(kafka.brokers, { sasl: login(mechanism, 'right') }).admin())).toBe(1)
    await expect(nodesSeen(client(kafka.brokers, { sasl: login(mechanism, 'wrong') }).admin())).rejects.toThrow()
  })

  test('shows its certificate, and asks for one', async () => {
    const authority = await createAuthority()
    const tls = await authority.issue('localhost', '127.0.0.1')
    const { certificate: cert, key } = await authority.issue('relay')
    const kafka = await own({ tls: { ...tls, clientCa: authority.certificate } })
    expect(await nodesSeen(client(kafka.brokers, { ssl: { ca: authority.certificate, cert, key } }).admin())).toBe(1)
    await expect(nodesSeen(client(kafka.brokers, { ssl: { ca: authority.certificate } }).admin())).rejects.toThrow()
    await expect(nodesSeen(client(kafka.brokers, { ssl: { cert, key } }).admin())).rejects.toThrow()
  })
})

function login(mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'OAUTHBEARER', password: string): NonNullable<KafkaConfig['sasl']> {
  if (mechanism === 'PLAIN') return { mechanism: 'plain', username: 'relay', password }
  if (mechanism === 'SCRAM-SHA-256') return { mechanism: 'scram-sha-256', username: 'relay', password }
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const expires = Math.floor(Date.now() / 1000) + (password === 'right' ? 60 : -60)
  const value = `${part({ alg: 'none' })}.${part({ sub: 'relay', iat: expires - 120, exp: expires })}.`
  return { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value }) }
}
