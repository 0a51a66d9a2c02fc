import { setTimeout as wait } from 'node:timers/promises'
import { Kafka, logLevel } from 'kafkajs'

/** The bench's own eyes on the broker, the same for both sides. */
export interface Topics {
  /** with three partitions, as both sides are given them */
  create(topic: string): Promise<void>
  /** records in the log, as its offsets count them */
  length(topic: string): Promise<number>
  /** resolves when a member of the group has been assigned its partitions */
  followed(group: string): Promise<void>
  remove(topics: readonly string[]): Promise<void>
  /** topics that begin so */
  named(prefix: string): Promise<readonly string[]>
  close(): Promise<void>
}

export const PARTITIONS = 3

export async function openTopics(brokers: readonly string[]): Promise<Topics> {
  const admin = new Kafka({ brokers: [...brokers], clientId: 'bench', logLevel: logLevel.NOTHING }).admin()
  await admin.connect()
  return {
    async create(topic) {
      await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS, replicationFactor: 1 }], waitForLeaders: true })
    },
    async length(topic) {
      let records = 0
      for (const { offset, low } of await admin.fetchTopicOffsets(topic)) records += Number(offset) - Number(low)
      return records
    },
    async followed(group) {
      const deadline = Date.now() + 60_000
      for (;;) {
        const { groups } = await admin.describeGroups([group])
        if (groups[0]?.state === 'Stable' && groups[0].members.some((member) => member.memberAssignment.length > 0)) return
        if (Date.now() > deadline) throw new Error(`nobody follows in the group ${group} within 60 s: ${groups[0]?.state}`)
        await wait(50)
      }
    },
    async remove(topics) {
      if (topics.length > 0) await admin.deleteTopics({ topics: [...topics] })
    },
    async named(prefix) {
      return (await admin.listTopics()).filter((topic) => topic.startsWith(prefix))
    },
    close: () => admin.disconnect(),
  }
}
