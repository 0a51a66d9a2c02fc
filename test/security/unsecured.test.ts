import { expect, test } from 'vitest'
import { parseConfig } from '../../src/runtime/config-schema.ts'
import { Secrets } from '../../src/runtime/secrets.ts'
import { unsecured } from '../../src/runtime/unsecured.ts'

const said = (config: object): readonly string[] =>
  unsecured(parseConfig({ name: 'shop', ...config }, 'config', { env: {}, folder: '/', secrets: new Secrets() })).map(
    ({ subject, level, message }) => `${level} ${subject} ${/tls\.mode: [\w-]+/.exec(message)?.[0]}`,
  )

test('a connection that leaves this machine with less than the default is told loudly, wherever it was said', () => {
  const url = 'postgres://db.example/shop'
  expect(said({ source: { url, tls: { mode: 'disable' } } })).toEqual(['warning source tls.mode: disable'])
  expect(said({ source: { url: `${url}?sslmode=verify-ca` } })).toEqual(['warning source tls.mode: verify-ca'])
  expect(said({ sinks: { a: { kind: 'postgres', url: `${url}?sslmode=disable` } } })).toEqual([
    'warning sinks.a tls.mode: disable',
  ])
  const brokers = ['localhost:9092', 'kafka:9092']
  expect(said({ queue: { kind: 'kafka', brokers, tls: { mode: 'disable' } } })).toEqual(['warning queue tls.mode: disable'])
})

test('what is verified in full, or stays on this machine, is not', () => {
  expect(said({ source: { url: 'postgres://db.example/shop' } })).toEqual([])
  expect(said({ source: { url: 'postgres://db.example/shop', tls: { ca: 'x' } } })).toEqual([])
  expect(said({ source: { url: 'postgres://127.0.0.1/shop', tls: { mode: 'disable' } } })).toEqual([])
  expect(said({ source: { url: 'postgres:///shop?host=/run/postgresql&sslmode=disable' } })).toEqual([])
  expect(said({ queue: { kind: 'kafka', brokers: ['[::1]:9092', '127.0.0.1:9093'], tls: { mode: 'disable' } } })).toEqual([])
  expect(said({})).toEqual([])
})
