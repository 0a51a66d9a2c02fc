import { Kafka, logLevel } from 'kafkajs'

/** Removes what the demo made in a broker that is not its own: the topics and groups whose names begin with one of the prefixes. */
export async function removeFromKafka(brokers: readonly string[], prefixes: readonly string[]): Promise<void> {
  muteTimeoutWarning()
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

/** kafkajs sets a timer in the past, harmlessly, and Node 24 says so (tulios/kafkajs#1751); other warnings are printed as ever. */
function muteTimeoutWarning(): void {
  const printers = process.listeners('warning')
  process.removeAllListeners('warning')
  process.on('warning', (warning) => {
    if (warning.name !== 'TimeoutNegativeWarning') for (const print of printers) print(warning)
  })
}
