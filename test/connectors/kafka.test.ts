import { beforeAll } from 'vitest'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { openKafka, uniqueName } from './kafka-queue.ts'
import { adminOf } from './kafka-steps.ts'
import { PARTITIONS, queueContract } from './queue-contract.ts'

requires('kafka')('the queue kafka', () => {
  let brokers: string[]
  beforeAll(async () => {
    brokers = await sharedKafka()
  })

  queueContract('kafka', async () => {
    const pipeline = uniqueName('contract')
    const admin = await adminOf(brokers)
    const made: string[] = []
    return {
      open: () => openKafka({ brokers, topics: { partitions: PARTITIONS } }, pipeline),
      topic() {
        const name = uniqueName('contract')
        made.push(name)
        return name
      },
      async trim({ topic, partition }, before) {
        // kafkajs looks for the leader in metadata that it must have read before
        await admin.fetchTopicOffsets(topic)
        await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] })
      },
      async remove() {
        const existing = new Set(await admin.listTopics())
        const topics = [...made, `millrace.${pipeline}.state`].filter((topic) => existing.has(topic))
        await admin.deleteTopics({ topics })
        await admin.disconnect()
      },
    }
  })
})
