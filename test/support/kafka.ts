import { inject } from 'vitest'

export type { KafkaCluster, KafkaOptions } from './kafka/cluster.ts'
/** A Kafka of the test's own, to kill and restart. Use inside `requires('own-kafka')`, and `remove()` it. */
export { startKafka } from './kafka/start.ts'

/**
 * The broker that all test files of the run share, started when the first of them asks: `host:port`. Make topics and groups
 * with names of your own; they go with the broker. Use inside `requires('kafka')`.
 */
export async function sharedKafka(): Promise<string[]> {
  const answer = await fetch(inject('kafkaDoor'), { method: 'POST' })
  if (!answer.ok) throw new Error(await answer.text())
  return (await answer.json()) as string[]
}
