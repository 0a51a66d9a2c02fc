import kafkajs, { type Admin } from 'kafkajs'
import { eventually } from '../../support/eventually.ts'
import { topicOfOrders } from '../parts.ts'
import type { Trial } from './trial.ts'

/** What an operator's tools do to the topic of the trial. */
async function withAdmin<T>({ kafka }: Trial, work: (admin: Admin) => Promise<T>): Promise<T> {
  if (kafka === null) throw new Error('the trial has no Kafka')
  const admin = new kafkajs.Kafka({ brokers: [...kafka.brokers], logLevel: kafkajs.logLevel.NOTHING }).admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

export const addPartitions = (trial: Trial, count: number): Promise<unknown> =>
  withAdmin(trial, (admin) => admin.createPartitions({ topicPartitions: [{ topic: topicOfOrders(trial.pipeline), count }] }))

export const deleteTopic = (trial: Trial): Promise<unknown> =>
  withAdmin(trial, (admin) => admin.deleteTopics({ topics: [topicOfOrders(trial.pipeline)] }))

export const createTopic = (trial: Trial): Promise<unknown> =>
  withAdmin(trial, (admin) =>
    admin.createTopics({ topics: [{ topic: topicOfOrders(trial.pipeline), numPartitions: 3 }], waitForLeaders: true }),
  )

/** Until every replica is in sync, of all topics there are: the next broker may die. */
export const allInSync = (trial: Trial): Promise<unknown> =>
  withAdmin(trial, (admin) =>
    eventually(
      async () => {
        const { topics } = await admin.fetchTopicMetadata()
        return topics.every(({ partitions }) => partitions.every(({ isr, replicas }) => isr.length === replicas.length))
      },
      { within: 60_000, what: 'all replicas to be in sync' },
    ),
  )

/** As retention does: all that stands in the topic now is gone, its offsets stay. */
export const emptyTopic = (trial: Trial): Promise<unknown> =>
  withAdmin(trial, async (admin) => {
    const topic = topicOfOrders(trial.pipeline)
    const offsets = await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: offsets.map(({ partition, high }) => ({ partition, offset: high })) })
  })
