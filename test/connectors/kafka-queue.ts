import { randomBytes } from 'node:crypto'
import kafka, { type KafkaOptions } from '../../connectors/queues/kafka.ts'
import type { Log } from '../../src/core/connector.ts'
import type { Queue } from '../../src/core/queue.ts'

export const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent }

export const uniqueName = (what: string): string => `${what}-${process.pid}-${randomBytes(4).toString('hex')}`

/** The queue, opened as a config would open it. */
export async function openKafka(options: KafkaOptions, pipeline = 'test', log = silent): Promise<Queue> {
  const checked = await kafka.options['~standard'].validate(options)
  if (checked.issues) throw new Error(checked.issues.map(({ message, path }) => `${path?.join('.')}: ${message}`).join('; '))
  return kafka.open(checked.value, { log, pipeline, now: Date.now })
}
