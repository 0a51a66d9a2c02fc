import { randomBytes } from 'node:crypto'
import { CompressionTypes, Kafka, logLevel, Partitioners } from 'kafkajs'
import type { Queue, QueueRecord } from '../../src/core/queue.ts'
import { openKafka } from '../connectors/kafka-queue.ts'

/**
 * How fast records are written to Kafka and read again, beside kafkajs' own producer and consumer, in one run: records of
 * 300 bytes with the eight headers of an event, acks=all, one request of 1,000 in flight.
 *
 *     node test/bench/kafka-publish.ts [--brokers 127.0.0.1:9092] [--events 300000] [--rounds 3]
 */
const BATCH = 1_000
const option = (name: string, otherwise: string): string => {
  const at = process.argv.indexOf(`--${name}`)
  return at === -1 ? otherwise : (process.argv[at + 1] ?? otherwise)
}
const brokers = option('brokers', '127.0.0.1:9092').split(',')
const events = Math.floor(Number(option('events', '300000')) / BATCH) * BATCH
const rounds = Number(option('rounds', '3'))

const position = (n: number): string => `00000001-${n.toString(16).padStart(16, '0')}-00000001`
const payload = Buffer.from(JSON.stringify({ id: 42, total: '10.00', note: 'x'.repeat(262) }))

/** as a relay would make them: a position and its predecessor of each event's own */
function batchFrom(first: number): readonly QueueRecord[] {
  return Array.from({ length: BATCH }, (_, i) => ({
    key: Buffer.from(`order-${(first + i) % 5_000}`),
    value: payload,
    headers: [
      ['id', `3f2504e0-4f89-11d3-9a0c-${(first + i).toString(16).padStart(12, '0')}`],
      ['type', 'OrderPlaced'],
      ['millrace-source', 'shop'],
      ['millrace-position', position(first + i)],
      ['millrace-committed-at', '1763727000000'],
      ['millrace-format', '1'],
      ['schema-version', '1'],
      ['millrace-prev', position(first + i - 1)],
    ],
  }))
}

interface Figure {
  readonly rate: number
  /** microseconds of this process' CPU an event */
  readonly cpu: number
}

async function measure(work: () => Promise<void>): Promise<Figure> {
  const cpu = process.cpuUsage()
  const begun = performance.now()
  await work()
  const seconds = (performance.now() - begun) / 1_000
  const { user, system } = process.cpuUsage(cpu)
  return { rate: events / seconds, cpu: (user + system) / events }
}

async function publishOurs(queue: Queue, topic: string): Promise<void> {
  const publisher = await queue.publisher()
  for (let n = 0; n < events; n += BATCH) await publisher.publish([{ topic, partition: 0, records: batchFrom(n) }])
  await publisher.close()
}

async function publishKafkajs(kafka: Kafka, topic: string): Promise<void> {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, retry: { retries: 0 } })
  await producer.connect()
  for (let n = 0; n < events; n += BATCH) {
    const messages = batchFrom(n).map(({ key, value, headers }) => ({
      key: key as Buffer,
      value: value as Buffer,
      partition: 0,
      headers: Object.fromEntries(headers) as Record<string, string>,
    }))
    await producer.send({ topic, acks: -1, compression: CompressionTypes.None, messages })
  }
  await producer.disconnect()
}

async function readOurs(queue: Queue, topic: string): Promise<void> {
  const start = (await queue.ranges(topic))[0]?.start ?? 0n
  let read = 0
  for await (const batch of queue.read({ topic, partition: 0 }, { start, end: start + BigInt(events) })) read += batch.length
  if (read !== events) throw new Error(`${read} of ${events} records were read`)
}

async function readKafkajs(kafka: Kafka, topic: string): Promise<void> {
  const consumer = kafka.consumer({ groupId: `bench-${randomBytes(4).toString('hex')}` })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  let read = 0
  await new Promise<void>((resolve) => {
    void consumer.run({
      eachBatch: async ({ batch }) => {
        read += batch.messages.length
        if (read >= events) resolve()
      },
    })
  })
  await consumer.disconnect()
}

const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING })
const admin = kafka.admin()
await admin.connect()
const queue = await openKafka({ brokers, topics: { partitions: 1, replication: 1 } }, 'bench')
const figures = { 'publish, ours': [], 'publish, kafkajs': [], 'read, ours': [], 'read, kafkajs': [] } as Record<string, Figure[]>
for (let round = 0; round <= rounds; round++) {
  const topic = `bench-${randomBytes(4).toString('hex')}`
  const theirs = `${topic}-kafkajs`
  await queue.createTopic(topic)
  await queue.createTopic(theirs)
  const found: Record<string, Figure> = {
    'publish, ours': await measure(() => publishOurs(queue, topic)),
    'publish, kafkajs': await measure(() => publishKafkajs(kafka, theirs)),
    'read, ours': await measure(() => readOurs(queue, topic)),
    'read, kafkajs': await measure(() => readKafkajs(kafka, theirs)),
  }
  // the first round warms up
  if (round > 0) for (const [what, figure] of Object.entries(found)) figures[what]?.push(figure)
  await admin.deleteTopics({ topics: [topic, theirs] })
}
await queue.close()
await admin.disconnect()

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0
const middle = (what: string): Figure => ({
  rate: median((figures[what] ?? []).map(({ rate }) => rate)),
  cpu: median((figures[what] ?? []).map(({ cpu }) => cpu)),
})
for (const what of Object.keys(figures)) {
  const { rate, cpu } = middle(what)
  console.log(
    `${what.padEnd(18)} ${Math.round(rate).toLocaleString('en').padStart(9)} events/s  ${cpu.toFixed(2).padStart(6)} µs CPU an event`,
  )
}
for (const what of ['publish', 'read'])
  console.log(`${what}: ${(middle(`${what}, ours`).rate / middle(`${what}, kafkajs`).rate).toFixed(2)} times kafkajs`)
console.log(`peak RSS ${Math.round(process.resourceUsage().maxRSS / 1024)} MB, ${events} events, median of ${rounds} rounds`)
