import type { KafkaCluster, KafkaOptions } from './cluster.ts'
import { startContainerKafka } from './container.ts'
import { javaMissing } from './jars.ts'
import { startJavaKafka } from './java.ts'

/** Bare JVMs first: they start sooner than containers, and no image has to be had. */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaCluster> {
  return (await javaMissing()) === null ? startJavaKafka(options) : startContainerKafka(options)
}
