import { afterAll, beforeAll, expect, test } from 'vitest'
import type { KafkaOptions } from '../../connectors/queues/kafka.ts'
import { policyFor } from '../../src/core/policy.ts'
import { openKafka } from '../connectors/kafka-queue.ts'
import { quietLog } from '../faults/parts.ts'
import { type Authority, createAuthority } from '../support/certificates.ts'
import { type KafkaCluster, sharedKafka, startKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'

/** Beside `kafka-login.test.ts`: what a cluster with a wrong certificate, or none, is told of us. */

let authority: Authority
beforeAll(async () => {
  authority = await createAuthority()
})

async function knock(options: KafkaOptions): Promise<unknown> {
  const queue = await openKafka({ requestTimeout: '5s', ...options }, 'tls', quietLog)
  return queue
    .topics(['none'])
    .then(
      () => null,
      (error: unknown) => error,
    )
    .finally(() => queue.close())
}

requires('own-kafka')('a Kafka whose certificate is of yesterday', () => {
  let kafka: KafkaCluster
  beforeAll(async () => {
    kafka = await startKafka({ tls: await authority.issueExpired('localhost') })
  })
  afterAll(() => kafka?.remove())

  test('is not trusted, whatever is said of its name', async () => {
    for (const mode of ['verify-full', 'verify-ca'] as const) {
      const error = await knock({
        brokers: [...kafka.brokers],
        tls: { mode, ca: authority.certificate, servername: 'localhost' },
      })
      expect(error).toMatchObject({
        code: 'MILLRACE_TLS',
        message: expect.stringContaining('CERT_HAS_EXPIRED'),
        remedy: expect.stringContaining('queue.tls'),
      })
      expect(policyFor(error)).toBe('halt')
    }
  })
})

requires('kafka')('a Kafka that does not speak TLS, where it is demanded', () => {
  test('hears no word in the clear', async () => {
    const sent: Buffer[] = []
    const [broker] = (await sharedKafka()) as [string]
    const proxy = await startTcpProxy(
      { port: Number(broker.split(':')[1]) },
      {
        tap: () => (direction, bytes) => {
          if (direction === 'to-server') sent.push(Buffer.from(bytes))
          return 'pass'
        },
      },
    )
    try {
      const sasl = { mechanism: 'plain', username: 'relay', password: 'Canary-of-the-clear' } as const
      // a broker that ends, or a balancer without one, does the same: it is tried again, and the remedy says what else it can be
      expect(await knock({ brokers: [proxy.address], tls: { ca: authority.certificate }, sasl })).toMatchObject({
        code: 'MILLRACE_QUEUE_UNREACHABLE',
        remedy: expect.stringMatching(/TLS|tls/),
      })
      expect(sent.length).toBeGreaterThan(0)
      // each connection began with a handshake record, and nothing came after it
      for (const bytes of sent) expect(bytes.subarray(0, 2).toString('hex')).toBe('1603')
      expect(Buffer.concat(sent).includes('Canary-of-the-clear')).toBe(false)
    } finally {
      await proxy.remove()
    }
  })
})

requires('own-kafka')('a Kafka behind a loopback address that sends its clients elsewhere', () => {
  let kafka: KafkaCluster
  let broker: string
  beforeAll(async () => {
    kafka = await startKafka({
      sasl: { mechanism: 'PLAIN', users: { relay: 'Canary-of-the-way' } },
      front: async (port) => {
        broker = `127.0.0.1:${port}`
        return `elsewhere.invalid:${port}`
      },
    })
  })
  afterAll(() => kafka?.remove())

  test('is not followed there in the clear, where the password would go with it', async () => {
    const sasl = { mechanism: 'plain', username: 'relay', password: 'Canary-of-the-way' } as const
    const ranges = async (options: KafkaOptions): Promise<unknown> => {
      const queue = await openKafka({ requestTimeout: '5s', ...options }, 'tls', quietLog)
      return queue
        .createTopic('elsewhere')
        .then(
          () => null,
          (error: unknown) => error,
        )
        .finally(() => queue.close())
    }
    for (const tls of [undefined, { mode: 'disable' } as const])
      expect(await ranges({ brokers: [broker], sasl, tls })).toMatchObject({
        code: 'MILLRACE_TLS',
        message: expect.stringContaining('elsewhere.invalid'),
        remedy: expect.stringContaining('queue.tls'),
      })
  })
})
