import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { openKafka } from './kafka-queue.ts'

/*
 * What a cluster that is still starting says of itself lasts for moments only, so it is said here by a broker of our own:
 * who serves, that there is no topic, and nothing else.
 */

const METADATA = 3
const API_VERSIONS = 18
const CREATE_TOPICS = 19

/** A broker that knows of so many that serve, itself first. */
async function startingBroker(serving: () => number) {
  const asked: number[] = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    let rest = Buffer.alloc(0)
    socket.on('error', () => {})
    socket.on('data', (bytes) => {
      rest = Buffer.concat([rest, bytes])
      while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
        const request = rest.subarray(4, 4 + rest.readInt32BE(0))
        rest = rest.subarray(4 + request.length)
        const api = request.readInt16BE(0)
        asked.push(api)
        const body = api === API_VERSIONS ? versions(request.readInt16BE(2)) : api === METADATA ? metadata() : null
        if (body === null) socket.destroy()
        else socket.write(frame(Buffer.concat([request.subarray(4, 8), body])))
      }
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  const metadata = (): Buffer =>
    Buffer.concat([
      int32(serving()),
      ...Array.from({ length: serving() }, (_, node) =>
        Buffer.concat([int32(node + 1), text('127.0.0.1'), int32(port + node), int16(-1)]),
      ),
      int32(1),
      int32(0),
    ])
  return { address: `127.0.0.1:${port}`, asked }
}

const int16 = (value: number): Buffer => Buffer.from(Int16Array.of(value).buffer).swap16()
const int32 = (value: number): Buffer => Buffer.from(Int32Array.of(value).buffer).swap32()
const text = (value: string): Buffer => Buffer.concat([int16(value.length), Buffer.from(value)])
const frame = (bytes: Buffer): Buffer => Buffer.concat([int32(bytes.length), bytes])
/** the oldest of each that we speak */
const APIS = [
  [METADATA, 1],
  [API_VERSIONS, 0],
  [CREATE_TOPICS, 0],
] as const
const versions = (version: number): Buffer =>
  version > 0
    ? Buffer.concat([int16(35), int32(0)])
    : Buffer.concat([
        int16(0),
        int32(APIS.length),
        ...APIS.map(([api, highest]) => Buffer.concat([int16(api), int16(0), int16(highest)])),
      ])

const NOWHERE = ['127.0.0.1:1', '127.0.0.1:2']

test.each([
  ['a broker that knows of none that serves, not even itself', 0, [], /knows of no broker that serves/],
  ['one of three brokers', 1, NOWHERE, /is to have 3 replicas, and of the 3 brokers that the config names 1 serve/],
  ['two of three brokers', 2, NOWHERE, /is to have 3 replicas, and of the 3 brokers that the config names 2 serve/],
])('%s is asked again, and makes no topic of too few replicas', async (_, serving, others, message) => {
  const { address, asked } = await startingBroker(() => serving)
  const queue = await openKafka({ brokers: [address, ...others], requestTimeout: 2_000 })
  onTestFinished(() => queue.close())
  for (const making of [queue.createTopic('orders'), queue.state.write('key', 'value')])
    await expect(making).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_UNREACHABLE', message: expect.stringMatching(message) })
  expect(asked).toContain(METADATA)
  expect(asked).not.toContain(CREATE_TOPICS)
})

test('a topic of as many replicas as the config says is made while the others are down', async () => {
  const { address, asked } = await startingBroker(() => 1)
  const queue = await openKafka({ brokers: [address, ...NOWHERE], topics: { replication: 1 }, requestTimeout: 2_000 })
  onTestFinished(() => queue.close())
  await expect(queue.createTopic('orders')).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_UNREACHABLE' })
  expect(asked).toContain(CREATE_TOPICS)
})
