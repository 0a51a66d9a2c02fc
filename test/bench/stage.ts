import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { startJavaKafka } from '../support/kafka/java.ts'
import { buildPackage } from './built-package.ts'
import { openTopics, type Topics } from './topics.ts'

/** What a measurement stands on: two Postgres servers and a broker, new for each, the same for both sides. */
export interface Stage {
  /** our command line, as users have it */
  readonly main: string
  /** a folder that goes with the stage */
  readonly home: string
  readonly brokers: readonly string[]
  readonly topics: Topics
  /** a new, empty database on the server that events come from; its URL */
  sourceDatabase(name: string): Promise<string>
  /** a new, empty database on the server that follows; its URL */
  replicaDatabase(name: string): Promise<string>
  close(): Promise<void>
}

export interface StageOptions {
  /** folder with Postgres' binaries; default: those that npm brings */
  readonly bin?: string | undefined
}

/** As a production server would stand, as far as a small machine goes: durable, and no checkpoint while the clock runs. */
const SETTINGS = { max_wal_size: '16GB', checkpoint_timeout: '1h', max_slot_wal_keep_size: '32GB', shared_buffers: '512MB' }

/** A broker's usual JVM, not the small one that starts fast for tests. */
const BROKER_JVM = ['-Xms512m', '-Xmx1g', '-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20', '-Djava.awt.headless=true']

const open = new Set<() => Promise<void>>()

/** for a run that is interrupted */
export async function closeStages(): Promise<void> {
  await Promise.all([...open].map((close) => close()))
}

export async function openStage({ bin }: StageOptions): Promise<Stage> {
  const opened: (() => Promise<unknown>)[] = []
  const close = async (): Promise<void> => {
    open.delete(close)
    for (const end of opened.splice(0).reverse()) await end().catch(() => {})
  }
  open.add(close)
  try {
    const home = await mkdtemp(join(tmpdir(), 'millrace-bench-'))
    opened.push(() => rm(home, { recursive: true, force: true }))
    const built = await buildPackage()
    opened.push(() => built.remove())
    const options = { settings: SETTINGS, ...(bin !== undefined && { bin }) }
    const source = await startPostgresServer(options)
    opened.push(() => source.remove())
    const replica = await startPostgresServer(options)
    opened.push(() => replica.remove())
    const kafka = await startJavaKafka({ jvm: BROKER_JVM })
    opened.push(() => kafka.remove())
    const topics = await openTopics(kafka.brokers)
    opened.push(() => topics.close())
    return {
      main: built.main,
      home,
      brokers: kafka.brokers,
      topics,
      sourceDatabase: (name) => createDatabase(source, name),
      replicaDatabase: (name) => createDatabase(replica, name),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

async function createDatabase(server: PostgresServer, name: string): Promise<string> {
  await execute(server.url(), `create database ${name}`)
  return server.url(name)
}

/** runs the statements one by one, over a connection of their own */
export async function execute(url: string, ...statements: readonly string[]): Promise<void> {
  await withClient(url, async (client) => {
    for (const statement of statements) await client.query(statement)
  })
}

export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}
