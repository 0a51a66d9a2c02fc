import { createRequire } from 'node:module'
import { expect, onTestFinished, test } from 'vitest'
import { BrokerLink, loadKafkajs } from '../../connectors/queues/kafka/kafkajs.ts'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { openKafka, silent } from './kafka-queue.ts'

const require = createRequire(import.meta.url)

/*
 * What connectors/queues/kafka/kafkajs.ts takes from kafkajs beside its public API. Where this fails, a new version of
 * kafkajs must be read before it is used.
 */

test('kafkajs is the version that was read, here and in package.json', () => {
  expect(require('kafkajs/package.json').version).toBe('2.2.4')
  expect(require('../../package.json').dependencies.kafkajs).toBe('2.2.4')
})

test('the modules behind its public API are where they were', async () => {
  const kafkajs = await loadKafkajs()
  expect(kafkajs.Broker.prototype).toHaveProperty('connect')
  expect(kafkajs.ConnectionPool.prototype).toHaveProperty('send')
  expect(kafkajs.ConnectionPool.prototype).toHaveProperty('getConnectionByRequest')
  expect(kafkajs.createLogger).toBeTypeOf('function')
  expect(kafkajs.MemberMetadata.decode(kafkajs.MemberMetadata.encode({ version: 0, topics: ['a', 'b'] })).topics).toEqual([
    'a',
    'b',
  ])
  expect(
    kafkajs.MemberAssignment.decode(kafkajs.MemberAssignment.encode({ version: 0, assignment: { a: [2] } }))?.assignment,
  ).toEqual({ a: [2] })
  for (const authenticator of Object.values(kafkajs.authenticators))
    expect(authenticator({ username: 'u', password: 'p' })({ saslAuthenticate: async () => '' })).toHaveProperty('authenticate')
})

test('the requests that it encodes for us are of the versions that were read', async () => {
  const { requests, apiKeys } = await loadKafkajs()
  expect({ Produce: apiKeys['Produce'], Fetch: apiKeys['Fetch'] }).toEqual({ Produce: 0, Fetch: 1 })
  const highest = (api: string): number => Math.max(...(requests[api] as { versions: string[] }).versions.map(Number))
  expect(
    Object.fromEntries(
      [
        'Metadata',
        'ListOffsets',
        'CreateTopics',
        'DescribeConfigs',
        'GroupCoordinator',
        'JoinGroup',
        'SyncGroup',
        'Heartbeat',
        'LeaveGroup',
        'OffsetCommit',
      ].map((api) => [api, highest(api)]),
    ),
  ).toEqual({
    Metadata: 6,
    ListOffsets: 3,
    CreateTopics: 3,
    DescribeConfigs: 2,
    GroupCoordinator: 2,
    JoinGroup: 5,
    SyncGroup: 3,
    Heartbeat: 3,
    LeaveGroup: 3,
    OffsetCommit: 5,
  })
})

test('a connection and its queue of requests have the parts that we use', async () => {
  const { ConnectionPool, createLogger } = await loadKafkajs()
  const pool = new ConnectionPool({
    host: '127.0.0.1',
    port: 1,
    connectionTimeout: 1_000,
    requestTimeout: 1_000,
    logger: createLogger({ level: 0, logCreator: () => () => {} }),
  })
  expect(pool.pool).toHaveLength(2)
  for (const connection of pool.pool) {
    for (const part of ['authenticate', 'failIfNotConnected', 'nextCorrelationId', 'connect', 'disconnect'])
      expect(connection).toHaveProperty(part, expect.any(Function))
    for (const part of ['push', 'maybeThrottle', 'checkPendingRequests', 'scheduleCheckPendingRequests'])
      expect(connection.requestQueue).toHaveProperty(part, expect.any(Function))
    expect(connection.requestQueue).toMatchObject({ pending: [], throttledUntil: -1, throttleCheckTimeoutId: null })
    // as it is called after each answer: kafkajs' own sets a timer of minus 1.7e12 ms here
    expect(connection.requestQueue.scheduleCheckPendingRequests.toString()).toContain('this.throttledUntil - Date.now()')
  }
})

test('a connection that is destroyed gives way at once', async () => {
  const link = new BrokerLink(
    await loadKafkajs(),
    { host: '127.0.0.1', port: 1 },
    { clientId: 'x', tls: false, sasl: undefined, requestTimeout: 500, log: silent },
  )
  link.destroy()
  await expect(link.connect()).rejects.toThrow('closed by us')
})

requires('kafka')('a client that talks to a broker', () => {
  test('causes no warning of Node', async () => {
    const warnings: string[] = []
    const note = ({ name, message }: Error): void => void warnings.push(`${name}: ${message}`)
    process.on('warning', note)
    onTestFinished(() => void process.off('warning', note))
    const queue = await openKafka({ brokers: await sharedKafka() })
    onTestFinished(() => queue.close())
    await queue.topics(['none'])
    await queue.check([])
    await new Promise((resolve) => setImmediate(resolve))
    expect(warnings).toEqual([])
  })
})
