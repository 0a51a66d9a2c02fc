import { settle } from '../../../src/postgres/options.ts'
import { fingerprint } from '../../../src/runtime/fingerprint.ts'
import { type Pipeline, sinkOptions, topicTemplate } from '../parts.ts'

/** The config that a person would write for the pipeline: `millrace` itself may run it, before, after or beside the processes. */
export function configOf(pipeline: Pipeline): object {
  return {
    name: pipeline.name,
    source: { url: pipeline.sourceUrl, acceptUnlimitedWal: true },
    queue: { ...pipeline.queue, topics: { name: topicTemplate(pipeline), partitions: 3 } },
    sinks: { replica: { kind: 'postgres', ...sinkOptions(pipeline) } },
    http: false,
  }
}

export function configFingerprint(pipeline: Pipeline): string {
  const { table, columns } = settle({ name: pipeline.name, url: pipeline.sourceUrl })
  return fingerprint({ table: `${table.schema}.${table.name}`, columns, topicTemplate: topicTemplate(pipeline) })
}
