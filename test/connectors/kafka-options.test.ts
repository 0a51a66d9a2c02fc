import { expect, test } from 'vitest'
import kafka, { type KafkaOptions } from '../../connectors/queues/kafka.ts'

const secret = 's3cret-canary'

async function issues(options: unknown): Promise<string[]> {
  const { issues } = await kafka.options['~standard'].validate(options)
  return (issues ?? []).map(({ path, message }) => `${(path ?? []).map(String).join('.')}: ${message}`)
}

async function checked(options: KafkaOptions) {
  const result = await kafka.options['~standard'].validate(options)
  if (result.issues) throw new Error(JSON.stringify(result.issues))
  return result.value
}

test('a list of brokers is enough, and the rest is safe', async () => {
  expect(await checked({ brokers: ['kafka:9092'] })).toEqual({
    brokers: ['kafka:9092'],
    compression: 'none',
    requestTimeout: 30_000,
    topics: { name: 'outbox.event.{aggregate_type}', create: true, partitions: 6, retention: 7 * 86_400_000 },
  })
})

test('durations are written as people write them', async () => {
  const { topics, requestTimeout } = await checked({ brokers: ['k:1'], requestTimeout: '5s', topics: { retention: '36h' } })
  expect([topics.retention, requestTimeout]).toEqual([36 * 3_600_000, 5_000])
  expect(await issues({ brokers: ['k:1'], topics: { retention: '7 days' } })).toEqual([
    'topics.retention: expected a duration: 7d, 36h, 90m, 30s, or ms as a number',
  ])
})

test('an unknown key is an error at its path', async () => {
  expect(await issues({ brokers: ['k:1'], topics: { partition: 3 } })).toEqual([expect.stringContaining('topics: ')])
  expect(await issues({ brokers: ['k:1'], idempotent: true })).toEqual([expect.stringContaining('idempotent')])
  expect(
    await issues({ brokers: ['k:1'], sasl: { mechanism: 'plain', username: 'u', password: secret, realm: 'x' } }),
  ).not.toEqual([])
})

test.each([[], ['kafka'], ['kafka:'], ['http://kafka:9092'], ['kafka:9092/x']].map((brokers) => [brokers]))(
  'brokers %j are refused',
  async (brokers) => {
    expect(await issues({ brokers })).toHaveLength(1)
  },
)

test('a readable password is refused where anybody could read it, and never repeated', async () => {
  const sasl = { mechanism: 'plain', username: 'relay', password: secret } as const
  const found = await issues({ brokers: ['kafka:9092'], tls: { mode: 'disable' }, sasl })
  expect(found).toEqual([expect.stringContaining('sasl.mechanism: plain sends the password readable')])
  expect(found.join()).not.toContain(secret)
  expect(await issues({ brokers: ['kafka:9092'], sasl })).toEqual([])
  expect(await issues({ brokers: ['127.0.0.1:9092', 'localhost:9093', '[::1]:9094'], sasl })).toEqual([])
  // one broker elsewhere, and the whole list is secured
  expect(await issues({ brokers: ['127.0.0.1:9092', 'kafka:9092'], sasl })).toEqual([])
})

test('more replicas in sync than there are replicas are refused', async () => {
  expect(await issues({ brokers: ['k:1'], topics: { replication: 1, minInsyncReplicas: 2 } })).toEqual([
    'topics.minInsyncReplicas: expected at most topics.replication (1): nothing could ever be published',
  ])
})

test('a codec that is not installed is named, with the command that installs it', async () => {
  const settings = await checked({ brokers: ['k:1'], compression: { type: 'snappy', codec: 'kafkajs-snappy-that-is-not-there' } })
  const deps = { log: { debug() {}, info() {}, warn() {}, error() {}, child: () => deps.log }, pipeline: 'p', now: Date.now }
  await expect(kafka.open(settings, deps)).rejects.toMatchObject({
    code: 'MILLRACE_CONFIG_INVALID',
    remedy: 'npm install kafkajs-snappy-that-is-not-there',
  })
})
