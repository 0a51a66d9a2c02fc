import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import pg from 'pg'
import kafka from '../../connectors/queues/kafka.ts'
import local from '../../connectors/queues/local.ts'
import postgresSink from '../../connectors/sinks/postgres.ts'
import type { Clock } from '../../src/core/clock.ts'
import type { ConnectorDeps, Log, OptionsSchema } from '../../src/core/connector.ts'
import type { Queue } from '../../src/core/queue.ts'
import type { Sink } from '../../src/core/sink.ts'
import { topicOf } from '../../src/core/topic-template.ts'
import { initRelayState } from '../../src/pipeline/init-state.ts'
import { migrate } from '../../src/postgres/migrate.ts'
import { openPostgresSource, type PostgresSource } from '../../src/postgres/source.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { REPLICA_TABLE, SOURCE_TABLE } from './workload.ts'

/** The pipeline under test, as its processes are told of it. */
export interface Pipeline {
  readonly name: string
  readonly sourceUrl: string
  readonly replicaUrl: string
  readonly queue:
    | { readonly kind: 'kafka'; readonly brokers: readonly string[] }
    | { readonly kind: 'local'; readonly path: string }
  /** of its mapping, as its relay and its state know it; default: FINGERPRINT */
  readonly fingerprint?: string
  /** how its processes reach the databases, where that changes while they run */
  readonly access?: Access
  /** another pipeline whose topics it shares: its sink follows its own source only */
  readonly beside?: string
}

export interface Access {
  /** of both databases; read at every connect, as `${file:…}` is */
  readonly passwordFile?: string
  /** PEM: who signed the servers' certificates */
  readonly ca?: string
  /** the file that says which address a name has, see `believeNames` */
  readonly names?: string
}

const accessOptions = ({ passwordFile, ca }: Access = {}): object => ({
  ...(passwordFile !== undefined && { password: () => readFile(passwordFile, 'utf8') }),
  ...(ca !== undefined && { tls: { ca } }),
})

export const FINGERPRINT = 'faults'

/** Errors only, on stderr: what a test prints when it fails. */
export const stderrLog: Log = {
  debug: () => {},
  info: () => {},
  warn: (fields, message) => console.error(`warn ${message}`, summary(fields)),
  error: (fields, message) => console.error(`error ${message}`, summary(fields)),
  child: () => stderrLog,
}
export const quietLog: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => quietLog }

/** ms */
const HASTE = 30
/** A hasty one waits for nothing longer than a moment. Its wall clock is what `Date.now` has become. */
export const clockOf = (hasty = false): Clock => ({
  ...systemClock,
  now: () => Date.now(),
  ...(hasty && { wait: (ms, signal) => systemClock.wait(Math.min(ms, HASTE), signal) }),
})

/** One line that tells a parent process what a person would be told. */
export const haltText = (error: Error & { readonly code?: string; readonly remedy?: string }): string =>
  JSON.stringify({ code: error.code ?? 'unknown', message: error.message, remedy: error.remedy ?? null })

const summary = (fields: object): string => {
  const { err, ...rest } = fields as { err?: Error }
  return `${JSON.stringify(rest)} ${err?.message ?? ''}`
}

const deps = (pipeline: Pipeline, log: Log): ConnectorDeps => ({ log, pipeline: pipeline.name, now: Date.now })

async function parsed<Options>(schema: OptionsSchema<Options>, value: unknown): Promise<Options> {
  const result = await schema['~standard'].validate(value)
  if (result.issues) throw new Error(JSON.stringify(result.issues))
  return result.value
}

/** ms that those under faults wait for an answer of the queue; who judges has more patience, for a machine under load */
export const ANSWER_WITHIN = 5_000

export async function openQueue(pipeline: Pipeline, log: Log = quietLog, requestTimeout = 30_000): Promise<Queue> {
  // the topic is the pipeline's own: the tests share a broker
  const topics = { name: topicTemplate(pipeline), partitions: 3 }
  const { kind, ...options } = pipeline.queue
  return kind === 'kafka'
    ? kafka.open(await parsed(kafka.options, { ...options, topics, requestTimeout }), deps(pipeline, log))
    : local.open(await parsed(local.options, { ...options, topics }), deps(pipeline, log))
}

export const topicTemplate = (pipeline: Pipeline): string => `${pipeline.beside ?? pipeline.name}.{aggregate_type}`
export const topicOfOrders = (pipeline: Pipeline): string => topicOf(topicTemplate(pipeline), 'order')

export function openSource(pipeline: Pipeline, log: Log = quietLog): Promise<PostgresSource> | PostgresSource {
  return openPostgresSource(
    { name: pipeline.name, url: pipeline.sourceUrl, acceptUnlimitedWal: true, ...accessOptions(pipeline.access) },
    { log, now: Date.now },
  )
}

/** What a person writes below the sink. */
export const sinkOptions = (pipeline: Pipeline, erased: 'delete' | 'ignore' = 'delete') => ({
  url: pipeline.replicaUrl,
  statementTimeout: '20s',
  idleInTransactionTimeout: '5s',
  tables: [
    { from: 'order', into: 'public.orders', key: 'id', guard: 'column', on: { OrderChanged: 'upsert', OrderErased: erased } },
  ],
})

export async function openSink(pipeline: Pipeline, log: Log = quietLog, options: object = sinkOptions(pipeline)): Promise<Sink> {
  return postgresSink.open(await parsed(postgresSink.options, { ...options, ...accessOptions(pipeline.access) }), {
    ...deps(pipeline, log),
    sink: 'replica',
    topicTemplate: topicTemplate(pipeline),
  })
}

/** Everything that `millrace init` makes, and the tables on both sides. */
export async function prepare(pipeline: Pipeline): Promise<void> {
  await query(pipeline.sourceUrl, async (client) => {
    await migrate(client)
    await client.query(SOURCE_TABLE)
  })
  await query(pipeline.replicaUrl, (client) => client.query(REPLICA_TABLE))
  const queue = await openQueue(pipeline)
  const source = await openSource(pipeline)
  const sink = await openSink(pipeline)
  try {
    await source.init()
    const session = await source.open({ signal: AbortSignal.timeout(30_000) })
    const { identity } = session
    await session.close()
    await initRelayState({
      source,
      queue,
      identify: async () => identity,
      fingerprint: pipeline.fingerprint ?? FINGERPRINT,
      newStreamId: randomUUID,
    })
    await sink.init()
  } finally {
    await Promise.allSettled([source.close(), queue.close(), sink.close()])
  }
}

export async function query<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}
