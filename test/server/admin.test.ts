import { request } from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type AdminServer, type AdminSurface, startAdmin } from '../../src/server/admin.ts'

const state = { live: true, ready: true, broken: false }
const surface: AdminSurface = {
  live: () => state.live,
  ready: () => state.ready,
  metrics: async () => 'millrace_halted 0\n',
  status: async () => {
    if (state.broken) throw new Error('postgres://u:hidden@h/d is down')
    return { schema: 1 }
  },
}

let server: AdminServer
beforeEach(async () => {
  Object.assign(state, { live: true, ready: true, broken: false })
  server = await startAdmin(surface, { host: '127.0.0.1', port: 0 })
})
afterEach(() => server.close())

interface Answer {
  readonly status: number
  readonly body: string
  readonly headers: Readonly<Record<string, unknown>>
}

function ask(path: string, { host, method = 'GET' }: { host?: string; method?: string } = {}): Promise<Answer> {
  const { port } = new URL(server.url)
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: '127.0.0.1', port, path, method, headers: { host: host ?? `127.0.0.1:${port}` } },
      (response) => {
        let body = ''
        response.on('data', (chunk) => {
          body += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body, headers: response.headers }))
      },
    )
    asked.on('error', reject).end()
  })
}

test('health says up or down and nothing else', async () => {
  expect(await ask('/livez')).toMatchObject({ status: 200, body: 'up\n' })
  expect(await ask('/readyz')).toMatchObject({ status: 200, body: 'up\n' })
  Object.assign(state, { live: false, ready: false })
  expect(await ask('/livez')).toMatchObject({ status: 503, body: 'down\n' })
  expect(await ask('/readyz')).toMatchObject({ status: 503, body: 'down\n' })
})

test('metrics are plain text, the status is JSON, and no page of another origin may read either', async () => {
  const metrics = await ask('/metrics')
  expect(metrics).toMatchObject({ status: 200, body: 'millrace_halted 0\n' })
  expect(metrics.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
  const status = await ask('/status')
  expect(JSON.parse(status.body)).toEqual({ schema: 1 })
  for (const { headers } of [metrics, status])
    expect(Object.keys(headers).filter((name) => name.startsWith('access-control'))).toEqual([])
})

describe('what comes over loopback must name a loopback host', () => {
  test.each(['attacker.example', 'attacker.example:9464', '127.0.0.1.attacker.example', 'localhost.attacker.example'])(
    '%j is refused',
    async (host) => {
      for (const path of ['/livez', '/metrics', '/status']) expect(await ask(path, { host })).toMatchObject({ status: 403 })
    },
  )
  test.each(['localhost:9464', 'LOCALHOST', '[::1]:9464', '127.0.0.1'])('%j is served', async (host) => {
    expect(await ask('/status', { host })).toMatchObject({ status: 200 })
  })
})

test('nothing can be changed, and what is not there is not found', async () => {
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS'])
    expect(await ask('/status', { method })).toMatchObject({ status: 405 })
  expect(await ask('/')).toMatchObject({ status: 404 })
  expect(await ask('/status/../metrics')).toMatchObject({ status: 404 })
  expect(await ask('/livez', { method: 'HEAD' })).toMatchObject({ status: 200, body: '' })
})

test('an error stays inside', async () => {
  state.broken = true
  expect(await ask('/status')).toMatchObject({ status: 500, body: 'failed\n' })
})

test('an address that cannot be had is a clear error', async () => {
  const { port } = new URL(server.url)
  await expect(startAdmin(surface, { host: '127.0.0.1', port: Number(port) })).rejects.toMatchObject({
    code: 'MILLRACE_USAGE',
    message: `http: 127.0.0.1:${port} is in use by another process`,
    remedy: 'set http.port to a free one, or http: false to serve nothing',
  })
  await expect(startAdmin(surface, { host: '192.0.2.1', port: 0 })).rejects.toThrow(
    'http: 192.0.2.1 is not an address of this machine',
  )
})
