import { afterAll, beforeAll, expect, test } from 'vitest'
import type { KafkaOptions } from '../../connectors/queues/kafka.ts'
import type { Log } from '../../src/core/connector.ts'
import { type Authority, createAuthority } from '../support/certificates.ts'
import { type KafkaOptions as ClusterOptions, type KafkaCluster, startKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { openKafka } from './kafka-queue.ts'

const SECRET = 'right-canary'

/** what the cluster says to a first request; everything that was logged on the way is beside it */
async function knock(options: KafkaOptions): Promise<{ answer: string; said: string }> {
  const lines: string[] = []
  const note = (fields: object, message: string): void => void lines.push(JSON.stringify(fields) + message)
  const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log }
  const queue = await openKafka({ requestTimeout: '5s', ...options }, 'login', log)
  const answer = await queue.topics(['none']).then(
    () => 'let in',
    (error) => {
      lines.push(JSON.stringify(error), String(error), String(error.cause?.stack), JSON.stringify(error.cause))
      return error.code as string
    },
  )
  await queue.close()
  return { answer, said: lines.join('\n') }
}

requires('own-kafka')('a Kafka with TLS', () => {
  let authority: Authority
  let kafka: KafkaCluster
  let brokers: string[]
  beforeAll(async () => {
    authority = await createAuthority()
    const certificate = await authority.issue('localhost')
    kafka = await startKafka({ tls: { ...certificate, clientCa: authority.certificate } })
    brokers = [...kafka.brokers]
  })
  afterAll(() => kafka?.remove())

  async function client(): Promise<{ cert: string; key: string }> {
    const { certificate, key } = await authority.issue('relay')
    return { cert: certificate, key }
  }

  test('is reached by the authority and the name that its certificate bears', async () => {
    const tls = { ca: authority.certificate, servername: 'localhost', ...(await client()) }
    expect((await knock({ brokers, tls })).answer).toBe('let in')
  })

  test('is not trusted under another name, unless the name is not to be looked at', async () => {
    const tls = { ca: authority.certificate, ...(await client()) }
    expect((await knock({ brokers, tls })).answer).toBe('MILLRACE_TLS')
    expect((await knock({ brokers, tls: { ...tls, mode: 'verify-ca' } })).answer).toBe('let in')
  })

  test('is not trusted on the word of an authority that we do not know', async () => {
    const stranger = await createAuthority('somebody else')
    const tls = { servername: 'localhost', ...(await client()) }
    expect((await knock({ brokers, tls: { ...tls, ca: stranger.certificate } })).answer).toBe('MILLRACE_TLS')
    expect((await knock({ brokers, tls })).answer).toBe('MILLRACE_TLS')
  })

  test('is not spoken to in the clear, nor without the certificate that it asks for', async () => {
    expect((await knock({ brokers })).answer).toBe('MILLRACE_QUEUE_UNREACHABLE')
    expect((await knock({ brokers, tls: { ca: authority.certificate, servername: 'localhost' } })).answer).toBe('MILLRACE_TLS')
  })
})

const mechanisms = [
  ['PLAIN', 'plain'],
  ['SCRAM-SHA-256', 'scram-sha-256'],
  ['SCRAM-SHA-512', 'scram-sha-512'],
] as const

requires('own-kafka')('a Kafka with logins', () => {
  test.each(mechanisms)('lets in by %s, and asks for the password at each connect', async (mechanism, word) => {
    await withKafka({ sasl: { mechanism, users: { relay: SECRET } } }, async (brokers) => {
      let asked = 0
      const password = (): string => {
        asked++
        return SECRET
      }
      const right = await knock({ brokers, sasl: { mechanism: word, username: 'relay', password } })
      expect(right.answer).toBe('let in')
      expect(asked).toBeGreaterThan(0)
      const before = asked
      expect((await knock({ brokers, sasl: { mechanism: word, username: 'relay', password } })).answer).toBe('let in')
      expect(asked).toBeGreaterThan(before)
      const wrong = await knock({ brokers, sasl: { mechanism: word, username: 'relay', password: `not-${SECRET}` } })
      expect(wrong.answer).toBe('MILLRACE_QUEUE_AUTH')
      expect(right.said + wrong.said).not.toContain(SECRET)
      expect((await knock({ brokers })).answer).toBe('MILLRACE_QUEUE_UNREACHABLE')
    })
  })

  test('lets in by a token, and says when it is not one', async () => {
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
    const token = (lifetime: number) => async () => {
      const expires = Math.floor(Date.now() / 1_000) + lifetime
      return { value: `${part({ alg: 'none' })}.${part({ sub: 'relay', iat: expires - 120, exp: expires })}.` }
    }
    await withKafka({ sasl: { mechanism: 'OAUTHBEARER' } }, async (brokers) => {
      expect((await knock({ brokers, sasl: { mechanism: 'oauthbearer', token: token(60) } })).answer).toBe('let in')
      expect((await knock({ brokers, sasl: { mechanism: 'oauthbearer', token: token(-60) } })).answer).toBe('MILLRACE_QUEUE_AUTH')
    })
  })
})

async function withKafka(options: ClusterOptions, work: (brokers: string[]) => Promise<void>): Promise<void> {
  const kafka = await startKafka(options)
  try {
    await work([...kafka.brokers])
  } finally {
    await kafka.remove()
  }
}
