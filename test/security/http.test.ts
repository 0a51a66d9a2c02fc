import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/runtime/config-schema.ts'
import { Secrets } from '../../src/runtime/secrets.ts'
import { type AdminServer, type AdminSurface, startAdmin } from '../../src/server/admin.ts'
import { SEED } from './fuzz/fuzz.ts'
import { dice, mutate } from './fuzz/mutate.ts'

/** Beside `test/server/admin.test.ts`: who asks badly, slowly, or from elsewhere. */

const SURFACE: AdminSurface = {
  live: () => true,
  ready: () => true,
  metrics: async () => 'millrace_halted 0\n',
  status: async () => ({ secret: 'of this machine' }),
}

let server: AdminServer
afterEach(() => server.close())
const listen = async (host: string): Promise<number> => {
  server = await startAdmin(SURFACE, { host, port: 0 })
  return Number(new URL(server.url).port)
}

/** what comes back until the server closes, or nothing comes any more */
async function send(port: number, bytes: string | Buffer, host = '127.0.0.1'): Promise<string> {
  const socket = connect(port, host)
  socket.on('error', () => {})
  let answer = ''
  socket.on('data', (chunk) => {
    answer += chunk.toString('latin1')
  })
  const closed = once(socket, 'close')
  socket.end(bytes)
  await closed
  return answer
}

const alive = async (port: number): Promise<void> =>
  expect(await send(port, 'GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n')).toContain('up\n')

describe('on loopback', () => {
  let port: number
  beforeEach(async () => {
    port = await listen('127.0.0.1')
  })

  test(`whatever is sent, it answers in words of its own and goes on (seed ${SEED})`, async () => {
    const corpus = [
      'GET /status HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n',
      'POST /status HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello',
      'GET /livez HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
      'GET http://[::1/metrics HTTP/1.1\r\nhost: [::1]:9464\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n',
    ].map((text) => Buffer.from(text))
    const ends = performance.now() + 2_000
    let cases = 0
    for (; performance.now() < ends; cases++) {
      const answer = await send(port, mutate(corpus, dice(SEED + cases)))
      expect(answer).not.toMatch(/ at |node:|\.ts:|\.js:|Error:/)
      for (const [, status] of answer.matchAll(/^HTTP\/1\.1 (\d+)/gm))
        expect([200, 400, 403, 404, 405, 408, 413, 417, 431]).toContain(Number(status))
    }
    console.info(`http: ${cases} cases, seed ${SEED}`)
    await alive(port)
  })

  test('headers beyond 8 KiB, and a method that is none, are refused', async () => {
    expect(await send(port, `GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ${'x'.repeat(9_000)}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 431/,
    )
    expect(await send(port, 'BREW /status HTTP/1.1\r\nhost: localhost\r\n\r\n')).toMatch(/^HTTP\/1\.1 400/)
    expect(await send(port, 'DELETE /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 405/)
    expect(await send(port, 'GET /status HTTP/1.1\r\nconnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 400/)
    await alive(port)
  })

  test('who says nothing, or a byte now and then, is closed within seconds, however many they are', async () => {
    const idle: Socket[] = []
    for (let left = 64; left > 0; left--) {
      const socket = connect(port, '127.0.0.1')
      socket.on('error', () => {})
      await once(socket, 'connect')
      if (left % 2 === 0) socket.write('GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ')
      idle.push(socket)
    }
    const dripping = setInterval(() => {
      for (const socket of idle) if (socket.writable && !socket.destroyed) socket.write('x')
    }, 500)
    const began = performance.now()
    await Promise.all(idle.map((socket) => (socket.destroyed ? undefined : once(socket.resume(), 'close'))))
    clearInterval(dripping)
    expect(performance.now() - began).toBeLessThan(9_000)
    await alive(port)
  }, 20_000)
})

describe('opened to other machines', () => {
  const elsewhere = Object.values(networkInterfaces())
    .flat()
    .find((each) => each !== undefined && each.family === 'IPv4' && !each.internal)?.address

  test('it tells them up or down and figures, and the status to this machine alone', async () => {
    const port = await listen('0.0.0.0')
    await alive(port)
    const ask = (path: string, host: string): Promise<string> =>
      send(port, `GET ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`, host)
    expect(await ask('/status', '127.0.0.1')).toContain('of this machine')
    // an address of this machine that is not a loopback one is reached as other machines reach it
    if (elsewhere === undefined) return console.info('no address beside loopback: the other half was not run')
    expect(await ask('/livez', elsewhere)).toContain('up\n')
    expect(await ask('/metrics', elsewhere)).toContain('millrace_halted')
    const refused = await ask('/status', elsewhere)
    expect(refused).toMatch(/^HTTP\/1\.1 404/)
    expect(refused).not.toContain('of this machine')
  })
})

test('it is closed to others until a config opens it', async () => {
  await listen('127.0.0.1')
  const context = { env: {}, folder: '/', secrets: new Secrets() }
  expect(parseConfig({ name: 'shop' }, 'config', context).http).toEqual({ host: '127.0.0.1', port: 9464 })
})
