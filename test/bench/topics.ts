import { Kafka, logLevel } from 'kafkajs'
import { until } from './until.ts'

/** The bench's own eyes on the broker, the same for both sides. */
export interface Topics {
  /** with three partitions, as both sides are given them */
  create(topic: string): Promise<void>
  /** records in the log, as its offsets count them */
  length(topic: string): Promise<number>
  /** resolves when a member of the group has been assigned its partitions */
  followed(group: string): Promise<void>
  remove(topics: readonly string[]): Promise<void>
  close(): Promise<void>
}

export const PARTITIONS = 3

export async function openTopics(brokers: readonly string[]): Promise<Topics> {
  const admin = new Kafka({ brokers: [...brokers], clientId: 'bench', logLevel: logLevel.NOTHING }).admin()
  await admin.connect()
  return {
    async create(topic) {
      await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS, replicationFactor: 1 }], waitForLeaders: false })
      // kafkajs' own waiting gives up when the broker has not heard of the topic yet
      await until(`the topic ${topic} can be used`, () =>
        admin.fetchTopicOffsets(topic).then(
          (partitions) => partitions.length === PARTITIONS,
          () => false,
        ),
      )
    },
    async length(topic) {
      let records = 0
      for (const { offset, low } of await admin.fetchTopicOffsets(topic)) records += Number(offset) - Number(low)
      return records
    },
    async followed(group) {
      await until(`somebody follows in the group ${group}`, async () => {
        const { groups } = await admin.describeGroups([group])
        return groups[0]?.state === 'Stable' && groups[0].members.some((member) => member.memberAssignment.length > 0)
      })
    },
    async remove(topics) {
      if (topics.length > 0) await admin.deleteTopics({ topics: [...topics] })
    },
    close: () => admin.disconnect(),
  }
}
