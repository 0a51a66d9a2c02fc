import { Kafka, logLevel } from 'kafkajs'

/** Removes the topics whose names begin with one of the prefixes, and the groups likewise: what the demo made in a broker that is not its own. */
export async function removeFromKafka(brokers: readonly string[], prefixes: readonly string[]): Promise<void> {
  const admin = new Kafka({ brokers: [...brokers], clientId: 'millrace-demo', logLevel: logLevel.NOTHING }).admin()
  const ours = (name: string): boolean => prefixes.some((prefix) => name.startsWith(prefix))
  try {
    await admin.connect()
    const groups = (await admin.listGroups()).groups.map((group) => group.groupId).filter(ours)
    if (groups.length > 0) await admin.deleteGroups(groups)
    const topics = (await admin.listTopics()).filter(ours)
    if (topics.length > 0) await admin.deleteTopics({ topics })
  } finally {
    await admin.disconnect()
  }
}
