import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { startTcpProxy, type Tap, type TcpProxy } from './tcp-proxy.ts'

let echo: Server
let proxy: TcpProxy
let client: Socket
let received: Buffer
/** what reached the server */
let requested: number

beforeEach(async () => {
  requested = 0
  echo = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      requested += chunk.length
      socket.write(chunk)
    })
  })
  await once(echo.listen(0, '127.0.0.1'), 'listening')
  proxy = await startTcpProxy({ port: (echo.address() as AddressInfo).port })
  client = await dial()
})

afterEach(async () => {
  client.destroy()
  await proxy.remove()
  await new Promise((resolve) => echo.close(resolve))
})

async function dial(): Promise<Socket> {
  const socket = connect(proxy.port, '127.0.0.1')
  received = Buffer.alloc(0)
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk])
  })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

const until = (condition: () => boolean): Promise<void> => expect.poll(condition, { timeout: 5_000, interval: 5 }).toBe(true)
/** Unlike `once`, does not mind that an error came before it. */
const closing = (socket: Socket): Promise<void> => new Promise((resolve) => socket.once('close', () => resolve()))

async function roundTrip(text: string): Promise<string> {
  const before = received.length
  client.write(text)
  await until(() => received.length >= before + text.length)
  return received.subarray(before).toString()
}

test('passes bytes unchanged in both directions, whatever their number', async () => {
  const sent = Buffer.alloc(1_000_000, 'millrace')
  client.write(sent)
  await until(() => received.length === sent.length)
  expect(received.equals(sent)).toBe(true)
  expect(proxy.connections()).toBe(1)
})

test('cut resets what is open; the next dial gets through', async () => {
  const closed = closing(client)
  proxy.cut()
  await closed
  client = await dial()
  expect(await roundTrip('again')).toBe('again')
})

test('refuse lets nobody in until it is restored', async () => {
  const closed = closing(client)
  proxy.refuse()
  await closed
  await closing(connect(proxy.port, '127.0.0.1').on('error', () => {}))
  proxy.restore()
  client = await dial()
  expect(await roundTrip('again')).toBe('again')
})

test('hold swallows replies only, keeps the connection open, and gives them back', async () => {
  proxy.hold('to-client')
  client.write('asked')
  await until(() => requested === 5)
  expect(received).toHaveLength(0)
  expect(client.closed).toBe(false)
  proxy.restore()
  await until(() => received.toString() === 'asked')
})

test('holdAfter lets exactly so many bytes pass', async () => {
  const passed = proxy.holdAfter(3, 'to-server')
  client.write('abcdef')
  await passed
  await until(() => received.length === 3)
  expect(requested).toBe(3)
  proxy.restore()
  await until(() => received.toString() === 'abcdef')
})

test('cutAfter lets exactly so many bytes arrive and then closes', async () => {
  const passed = proxy.cutAfter(4, 'to-client')
  const closed = closing(client)
  client.write('abcdef')
  await passed
  await closed
  expect(received.toString()).toBe('abcd')
})

test('delay makes every reply late and none overtake', async () => {
  proxy.delay(50, 'to-client')
  const start = performance.now()
  expect(await roundTrip('one')).toBe('one')
  expect(performance.now() - start).toBeGreaterThanOrEqual(45)
  expect(await roundTrip('two')).toBe('two')
})

test('an end on one side is an end on the other', async () => {
  const closed = closing(client)
  client.end()
  await closed
  await until(() => proxy.connections() === 0)
})

test('strand leaves what is connected open and deaf for ever; a new dial gets through', async () => {
  expect(proxy.strand()).toBe(1)
  const old = client
  old.write('lost')
  client = await dial()
  expect(await roundTrip('new')).toBe('new')
  proxy.restore()
  expect(requested).toBe(3)
  expect(old.closed).toBe(false)
  old.destroy()
})

test('what was held back when it was stranded is lost', async () => {
  const passed = proxy.holdAfter(2, 'to-server')
  client.write('abcd')
  await passed
  proxy.strand()
  const old = client
  client = await dial()
  proxy.restore()
  expect(await roundTrip('new')).toBe('new')
  expect(requested).toBe(5)
  old.destroy()
})

test('a tap sees every piece of its connection, and says which are lost and which end it', async () => {
  const seen: string[] = []
  const verdicts = { lost: 'lose', fatal: 'cut' } as const
  const tap: Tap = (direction, bytes) => {
    seen.push(`${direction} ${bytes}`)
    return direction === 'to-client' ? 'pass' : (verdicts[String(bytes) as keyof typeof verdicts] ?? 'pass')
  }
  await proxy.remove()
  proxy = await startTcpProxy({ port: (echo.address() as AddressInfo).port }, { tap: () => tap })
  client = await dial()
  client.write('lost')
  await until(() => seen.length === 1)
  expect(await roundTrip('kept')).toBe('kept')
  const closed = closing(client)
  client.write('fatal')
  await closed
  expect(received.toString()).toBe('kept')
  expect(seen).toEqual(['to-server lost', 'to-server kept', 'to-client kept', 'to-server fatal'])
})
