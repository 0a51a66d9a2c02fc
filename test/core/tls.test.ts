import { describe, expect, test } from 'vitest'
import { isLocal, postgresConnection, tlsFor } from '../../src/core/tls.ts'

describe('TLS', () => {
  test.each(['localhost', '127.0.0.1', '127.8.9.10', '::1', '[::1]', '/var/run/postgresql'])('%s is this machine', (host) => {
    expect(isLocal(host)).toBe(true)
    expect(tlsFor(host, undefined)).toBe(false)
  })

  test.each(['db.example.com', '10.0.0.1', '127.0.0.1.example.com', 'localhost.example.com', '1127.0.0.1', '::', ''])(
    '%s is not, so that its certificate is verified when nothing is said',
    (host) => {
      expect(isLocal(host)).toBe(false)
      expect(tlsFor(host, undefined)).toEqual({ rejectUnauthorized: true })
    },
  )

  test('whoever says anything about it has it verified in full, on this machine too', () => {
    expect(tlsFor('localhost', {})).toEqual({ rejectUnauthorized: true })
    expect(tlsFor('db', { ca: 'CA', cert: 'CERT', key: 'KEY', servername: 'db.example.com' })).toEqual({
      rejectUnauthorized: true,
      ca: 'CA',
      cert: 'CERT',
      key: 'KEY',
      servername: 'db.example.com',
    })
  })

  test('verify-ca leaves out the name only, and disable says it', () => {
    const verifyCa = tlsFor('db', { mode: 'verify-ca', ca: 'CA' })
    expect(verifyCa).toMatchObject({ rejectUnauthorized: true, ca: 'CA' })
    expect(verifyCa !== false && verifyCa.checkServerIdentity?.()).toBeUndefined()
    expect(verifyCa).toHaveProperty('checkServerIdentity')
    expect(tlsFor('db.example.com', { mode: 'disable' })).toBe(false)
  })
})

describe('a Postgres URL', () => {
  const fields = (url: string) => postgresConnection({ url })

  test('gives the fields of a connection', () => {
    expect(fields('postgres://me:s%40crit@db.example.com:6543/shop%20two')).toEqual({
      host: 'db.example.com',
      port: 6543,
      user: 'me',
      database: 'shop two',
      password: 's@crit',
      ssl: { rejectUnauthorized: true },
    })
  })

  test('leaves the usual to be supplied', () => {
    expect(fields('postgresql://localhost')).toEqual({
      host: 'localhost',
      port: 5432,
      user: 'postgres',
      database: 'postgres',
      password: undefined,
      ssl: false,
    })
    expect(fields('postgres://me@localhost').database).toBe('me')
    expect(fields('postgres:///shop').host).toBe('localhost')
    expect(fields('postgres://[::1]:5433/shop')).toMatchObject({ host: '::1', port: 5433, ssl: false })
    expect(fields('postgres:///shop?host=/run/pg&port=5444')).toMatchObject({ host: '/run/pg', port: 5444, ssl: false })
  })

  test('says how it is secured, or the config does, but not both differently', () => {
    expect(fields('postgres://localhost/shop?sslmode=verify-full').ssl).toEqual({ rejectUnauthorized: true })
    expect(fields('postgres://db.example.com/shop?sslmode=disable').ssl).toBe(false)
    const url = 'postgres://db.example.com/shop?sslmode=verify-ca'
    expect(postgresConnection({ url, tls: { mode: 'verify-ca', ca: 'CA' } }).ssl).toMatchObject({ ca: 'CA' })
    for (const tls of [{ mode: 'disable' }, { mode: 'verify-full' }, {}] as const)
      expect(() => postgresConnection({ url, tls })).toThrow(expect.objectContaining({ code: 'MILLRACE_CONFIG_INVALID' }))
  })

  test('takes a password of the config before its own', () => {
    const password = () => 'fresh'
    expect(postgresConnection({ url: 'postgres://me:old@localhost/shop', password }).password).toBe(password)
  })

  test.each([
    ['postgres://me:hunter2@db/shop?sslmode=require', 'sslmode=require'],
    ['postgres://me:hunter2@db/shop?sslmode=prefer', 'sslmode=prefer'],
    ['postgres://me:hunter2@db/shop?application_name=x', 'application_name'],
    ['mysql://me:hunter2@db/shop', 'mysql://'],
    ['me:hunter2@db/shop', 'me://'],
    ['postgres://me:hunter2@db:port/shop', 'not a Postgres URL'],
    ['postgres://me:%zzhunter2@db/shop', 'not a Postgres URL'],
    ['postgres://me:hunter2@db/shop?port=many', 'a port that is none'],
    ['postgres://me:hunter2@db/shop?port=65536', 'a port that is none'],
    ['postgres://me:hunter2@db/shop%00', 'a null character'],
  ])('%s is refused without showing the password', (url, what) => {
    const refusal = expect.objectContaining({ code: 'MILLRACE_CONFIG_INVALID', message: expect.stringContaining(what) })
    expect(() => fields(url)).toThrow(refusal)
    expect(() => fields(url)).not.toThrow(/hunter2/)
  })
})
