import { type Admin, Kafka, logLevel } from 'kafkajs'
import { expect, test, vi } from 'vitest'
import { startContainerKafka } from '../support/kafka/container.ts'
import { requires } from '../support/requires.ts'

// servers start here, on machines that are busy
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 })

requires('docker')('Kafka in a container', () => {
  test('keeps what it acknowledged over kill -9, a restart and an orderly shutdown, at the same address', async () => {
    const kafka = await startContainerKafka()
    try {
      const client = new Kafka({ brokers: [...kafka.brokers], logLevel: logLevel.NOTHING, retry: { retries: 20 } })
      await withAdmin(client, (admin) =>
        admin.createTopics({ topics: [{ topic: 'kept', numPartitions: 1 }], waitForLeaders: true }),
      )
      await publish(client, 'one')
      await kafka.kill()
      expect(kafka.pid()).toBe(0)
      await kafka.start()
      await publish(client, 'two')
      await kafka.stop()
      await kafka.start()
      expect(await withAdmin(client, (admin) => admin.fetchTopicOffsets('kept'))).toMatchObject([{ low: '0', high: '2' }])
    } finally {
      await kafka.remove()
    }
  })

  test('three nodes make one cluster', async () => {
    const kafka = await startContainerKafka({ brokers: 3 })
    try {
      const client = new Kafka({ brokers: [...kafka.brokers], logLevel: logLevel.NOTHING })
      const { brokers } = await withAdmin(client, (admin) => admin.describeCluster())
      expect(brokers.map(({ nodeId }) => nodeId).sort()).toEqual([1, 2, 3])
    } finally {
      await kafka.remove()
    }
  })
})

async function withAdmin<Result>(client: Kafka, work: (admin: Admin) => Promise<Result>): Promise<Result> {
  const admin = client.admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

async function publish(client: Kafka, value: string): Promise<void> {
  const producer = client.producer({ allowAutoTopicCreation: false })
  await producer.connect()
  try {
    await producer.send({ topic: 'kept', acks: -1, messages: [{ value }] })
  } finally {
    await producer.disconnect()
  }
}
