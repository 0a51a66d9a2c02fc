import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import postgresSink from '../../connectors/sinks/postgres.ts'
import { MillraceError } from '../../src/core/errors.ts'
import { policyFor } from '../../src/core/policy.ts'
import type { TlsOptions } from '../../src/core/tls.ts'
import { clientConfig } from '../../src/postgres/connection.ts'
import { settle } from '../../src/postgres/options.ts'
import { startReplication } from '../../src/postgres/replication.ts'
import { openPostgresSource } from '../../src/postgres/source.ts'
import { quietLog } from '../faults/parts.ts'
import { type Authority, type Certificate, createAuthority } from '../support/certificates.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { type SecurePostgres, startSecurePostgres } from './secure-postgres.ts'

let authority: Authority
let postgres: SecurePostgres
let proxy: TcpProxy
/** what was sent to the server, by connection */
let sent: Buffer[][] = []
let good: Certificate

beforeAll(async () => {
  authority = await createAuthority()
  good = await authority.issue('localhost', '127.0.0.1')
  postgres = await startSecurePostgres(authority.certificate)
  await postgres.query('create role relay login replication')
  await postgres.admit(['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'])
  proxy = await startTcpProxy(
    { port: postgres.server.port },
    {
      tap: () => {
        const pieces: Buffer[] = []
        sent.push(pieces)
        return (direction, bytes) => {
          if (direction === 'to-server') pieces.push(Buffer.from(bytes))
          return 'pass'
        }
      },
    },
  )
})
afterAll(async () => {
  await proxy?.remove()
  await postgres?.remove()
})

interface Way {
  readonly host?: string
  readonly tls?: TlsOptions
  readonly sslmode?: string
}

const urlOf = ({ host = 'localhost', sslmode }: Way): string =>
  `postgres://relay@${host}:${proxy.port}/postgres${sslmode === undefined ? '' : `?sslmode=${sslmode}`}`

/** Each kind of connection there is; resolves with the error, or null when it was let in. */
const CONNECTIONS: Readonly<Record<string, (way: Way) => Promise<unknown>>> = {
  async 'an ordinary connection'(way) {
    const source = openPostgresSource({ name: 'shop', url: urlOf(way), tls: way.tls }, { log: quietLog, now: Date.now })
    return source
      .slotStatus()
      .then(
        () => null,
        (error: unknown) => error,
      )
      .finally(() => source.close())
  },
  async 'a replication connection'(way) {
    const config = clientConfig(settle({ name: 'shop', url: urlOf(way), tls: way.tls }))
    const handler = { chunk() {}, copyData() {}, chunkEnd() {}, ended() {} }
    const opening = startReplication({ config, slot: 'none', publication: 'none', handler, signal: AbortSignal.timeout(20_000) })
    return opening.then(
      () => null,
      // let in, and then told that there is no such slot
      (error: MillraceError) => (error.code === 'MILLRACE_SLOT_MISSING' ? null : error),
    )
  },
  async 'a sink'(way) {
    const tables = [{ from: 'order', into: 'orders', key: 'id', on: { OrderPlaced: 'upsert' } }]
    const options = await postgresSink.options['~standard'].validate({ url: urlOf(way), tls: way.tls, tables })
    if (options.issues) throw new Error(JSON.stringify(options.issues))
    const deps = { log: quietLog, pipeline: 'shop', sink: 'replica', now: Date.now }
    const sink = await postgresSink.open(options.value, deps).catch((error: unknown) => error)
    if (sink instanceof Error) return sink
    const opened = sink as Awaited<ReturnType<typeof postgresSink.open>>
    return opened
      .checkpoints()
      .then(
        () => null,
        (error: MillraceError) => (error.code === 'MILLRACE_SINK_NOT_READY' ? null : error),
      )
      .finally(() => opened.close())
  },
}

describe.each(Object.keys(CONNECTIONS))('%s', (kind) => {
  const knock = (way: Way): Promise<unknown> => {
    sent = []
    return (CONNECTIONS[kind] as (way: Way) => Promise<unknown>)(way)
  }
  const right = () => ({ ca: authority.certificate })

  /** nothing was said in the clear, not even who asks, and nothing else was tried */
  function refused(error: unknown): void {
    expect(error).toBeInstanceOf(MillraceError)
    expect(error).toMatchObject({ code: 'MILLRACE_TLS', remedy: expect.stringMatching(/tls\.ca/) })
    expect(policyFor(error)).toBe('halt')
    expect(sent).toHaveLength(1)
    expect(Buffer.concat(sent.flat()).includes('relay')).toBe(false)
  }

  test('is made to the server that shows the right name and the right authority', async () => {
    await postgres.show(good)
    for (const host of ['localhost', '127.0.0.1']) expect(await knock({ host, tls: right() })).toBeNull()
    expect(await knock({ tls: { ca: authority.certificate, mode: 'verify-full' }, sslmode: 'verify-full' })).toBeNull()
    expect(Buffer.concat(sent.flat()).includes('relay')).toBe(false)
  })

  test('is not made to one of another name, unless the name is not to be looked at', async () => {
    await postgres.show(await authority.issue('elsewhere.example'))
    for (const host of ['localhost', '127.0.0.1']) refused(await knock({ host, tls: right() }))
    expect(await knock({ tls: { ...right(), mode: 'verify-ca' } })).toBeNull()
  })

  test('looks for the name that was demanded, not for the one that was dialled', async () => {
    await postgres.show(await authority.issue('db.example'))
    for (const host of ['localhost', '127.0.0.1'])
      expect(await knock({ host, tls: { ...right(), servername: 'db.example' } }), host).toBeNull()
    await postgres.show(good)
    for (const host of ['localhost', '127.0.0.1']) refused(await knock({ host, tls: { ...right(), servername: 'db.example' } }))
  })

  test('is not made on the word of an authority that we do not know, whatever is said of the name', async () => {
    const stranger = await createAuthority('somebody else')
    await postgres.show(await stranger.issue('localhost'))
    for (const mode of ['verify-full', 'verify-ca'] as const) refused(await knock({ tls: { ...right(), mode } }))
    refused(await knock({ tls: {} }))
    refused(await knock({ sslmode: 'verify-full' }))
  })

  test('is not made on an expired certificate', async () => {
    await postgres.show(await authority.issueExpired('localhost'))
    for (const mode of ['verify-full', 'verify-ca'] as const) refused(await knock({ tls: { ...right(), mode } }))
  })

  test('is not made in the clear where TLS is demanded', async () => {
    await postgres.show(null)
    refused(await knock({ tls: right() }))
    refused(await knock({ sslmode: 'verify-full' }))
    // the one question whether it speaks TLS, eight bytes, and no second one
    expect(Buffer.concat(sent.flat())).toHaveLength(8)
  })

  test('is made in the clear only where that is said, and the server may refuse it', async () => {
    await postgres.show(good)
    expect(await knock({ tls: { mode: 'disable' } })).toBeNull()
    expect(await knock({})).toBeNull()
    await postgres.admit(['hostssl all all 127.0.0.1/32 trust', 'hostssl replication all 127.0.0.1/32 trust'])
    expect(await knock({ tls: { mode: 'disable' } })).toMatchObject({ code: expect.stringMatching(/_AUTH$/) })
    expect(sent).toHaveLength(1)
    expect(await knock({ tls: right() })).toBeNull()
  })

  test('shows a certificate of its own where the server asks for one', async () => {
    await postgres.show(good)
    await postgres.admit(['hostssl all all 127.0.0.1/32 cert', 'hostssl replication all 127.0.0.1/32 cert'])
    const { certificate: cert, key } = await authority.issue('relay')
    expect(await knock({ tls: { ...right(), cert, key } })).toBeNull()
    expect(await knock({ tls: right() })).toMatchObject({ code: expect.stringMatching(/_AUTH$/) })
    const another = await authority.issue('somebody')
    expect(await knock({ tls: { ...right(), cert: another.certificate, key: another.key } })).toMatchObject({
      code: expect.stringMatching(/_AUTH$/),
    })
    const forged = await (await createAuthority('somebody else')).issue('relay')
    expect(await knock({ tls: { ...right(), cert: forged.certificate, key: forged.key } })).toMatchObject({
      code: expect.stringMatching(/_TLS$|_AUTH$/),
    })
    const broken = await knock({ tls: { ...right(), cert, key: key.replace(/[A-Za-z0-9]{20}/, 'x') } }).catch((error) => error)
    expect(broken).toMatchObject({ code: 'MILLRACE_TLS' })
    await postgres.admit(['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'])
  })

  test('is not made where url and tls contradict each other', async () => {
    for (const [mode, sslmode] of [
      ['disable', 'verify-full'],
      ['verify-full', 'disable'],
      ['verify-ca', 'verify-full'],
    ] as const)
      expect(await knock({ tls: { ...right(), mode }, sslmode }).catch((error: unknown) => error)).toMatchObject({
        code: 'MILLRACE_CONFIG_INVALID',
        message: expect.stringContaining(`sslmode=${sslmode}`),
      })
    expect(sent).toEqual([])
  })
})
