import postgresSink, { type PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import type { Log, SinkDeps } from '../../src/core/connector.ts'
import type { Sink } from '../../src/core/sink.ts'

export const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent }

/** Opens the Postgres sink as the runtime does: options checked by its schema. */
export async function openSink(options: PostgresSinkOptions, deps: Partial<SinkDeps> = {}): Promise<Sink> {
  const parsed = await postgresSink.options['~standard'].validate(options)
  if (parsed.issues) throw new Error(JSON.stringify(parsed.issues))
  return postgresSink.open(parsed.value, { log: silent, pipeline: 'shop', sink: 'replica', now: Date.now, ...deps })
}

/** what the schema says of options that it refuses */
export async function issuesOf(options: unknown): Promise<readonly string[]> {
  const { issues } = await postgresSink.options['~standard'].validate(options)
  return (issues ?? []).map(
    ({ path, message }) =>
      `${(path ?? []).map((part) => String(typeof part === 'object' ? part.key : part)).join('.')}: ${message}`,
  )
}

export const ORDERS = 'create table orders (id text primary key, total numeric, note text, _millrace_position text collate "C")'
export const topic = 'outbox.event.order'
export const at = (partition: number) => ({ topic, partition })
