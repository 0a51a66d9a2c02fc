import pg from 'pg'
import { type PostgresServer, startPostgresServer } from '../../../src/cli/demo/postgres-server.ts'
import type { KafkaCluster, KafkaOptions } from '../../support/kafka/cluster.ts'
import { startKafka } from '../../support/kafka/start.ts'
import { POSTGRES_15 } from '../../support/machine.ts'
import { steadyPort } from '../../support/port.ts'
import { startTcpProxy, type Tap, type TcpProxy } from '../../support/tcp-proxy.ts'
import type { PostgresVersion } from './row.ts'

/** The services that rows stand on: shared ones, started when the first row asks, and such of a row's own. */
export interface Stage {
  /** a new, empty database on the shared server of that version */
  database(version: PostgresVersion): Promise<StageDatabase>
  /** a server of the caller's own, to kill and restart; the caller removes it */
  ownPostgres(version: PostgresVersion, settings?: Readonly<Record<string, string>>, folder?: string): Promise<PostgresServer>
  /** the shared Kafka of one broker; its clients go through `front` */
  kafka(): Promise<FrontedKafka>
  /** a Kafka of the caller's own, to kill and restart; the caller removes it */
  ownKafka(options?: KafkaOptions): Promise<FrontedKafka>
  /** what the servers that were started call themselves */
  versions(): readonly string[]
  close(): Promise<void>
}

export interface StageDatabase {
  readonly name: string
  readonly url: string
  query(text: string, values?: readonly unknown[]): Promise<pg.QueryResult>
  /** slots included */
  drop(): Promise<void>
}

/** A Kafka whose clients all go through a proxy: one for each broker. */
export interface FrontedKafka {
  readonly cluster: KafkaCluster
  /** addresses of the proxies, which is what the brokers advertise */
  readonly brokers: readonly string[]
  /** the proxy before each broker */
  readonly fronts: readonly TcpProxy[]
  /** looks at what passes the proxies until it is set to null; each connection gets a tap of its own */
  tap(open: (() => Tap) | null): void
  remove(): Promise<void>
}

const SHARED_SETTINGS = { fsync: 'off', max_slot_wal_keep_size: '8GB', max_wal_senders: '32' }

export function openStage(): Stage {
  const servers = new Map<PostgresVersion, Promise<PostgresServer>>()
  let kafka: Promise<FrontedKafka> | undefined
  let count = 0

  const versions = new Map<PostgresVersion, string>()
  const ownPostgres: Stage['ownPostgres'] = async (version, settings = {}, parent) => {
    // a steady port: what redials a dead server must not be given its port
    const port = await steadyPort()
    const server = await startPostgresServer({
      settings,
      port,
      ...(version === 15 && { bin: POSTGRES_15 }),
      ...(parent !== undefined && { parent }),
    })
    if (!versions.has(version)) {
      const { rows } = await once(server.url(), 'show server_version')
      versions.set(version, rows[0].server_version.split(' ')[0])
    }
    return server
  }
  const ownKafka = async (options: KafkaOptions = {}): Promise<FrontedKafka> => {
    const fronts = new Map<string, TcpProxy>()
    let open: (() => Tap) | null = null
    const cluster = await startKafka({
      ...options,
      front: async (port) => {
        const proxy = await startTcpProxy({ port }, { tap: () => open?.() ?? null })
        fronts.set(proxy.address, proxy)
        return proxy.address
      },
    })
    const inOrder = cluster.brokers.flatMap((address) => fronts.get(address) ?? [])
    if (inOrder.length === 0)
      throw new Error('the fault matrix needs Kafka as bare JVMs: there is no Java, or its jars are missing')
    return {
      cluster,
      brokers: cluster.brokers,
      fronts: inOrder,
      tap(next) {
        open = next
      },
      async remove() {
        await Promise.all(inOrder.map((front) => front.remove()))
        await cluster.remove()
      },
    }
  }

  return {
    ownPostgres,
    ownKafka,
    async database(version) {
      let server = servers.get(version)
      if (server === undefined) servers.set(version, (server = ownPostgres(version, SHARED_SETTINGS)))
      return createDatabase(await server, `m${process.pid}_${++count}`)
    },
    kafka() {
      kafka ??= ownKafka()
      return kafka
    },
    versions: () => [...versions.entries()].sort(([a], [b]) => a - b).map(([, version]) => version),
    async close() {
      await (await kafka?.catch(() => undefined))?.remove()
      for (const server of servers.values()) await (await server.catch(() => undefined))?.remove()
    },
  }
}

async function createDatabase(server: PostgresServer, name: string): Promise<StageDatabase> {
  await once(server.url(), `create database ${name}`)
  const url = server.url(name)
  return {
    name,
    url,
    query: (text, values) => once(url, text, values),
    async drop() {
      const slots = `select slot_name, active_pid from pg_replication_slots where database = '${name}'`
      for (let left = 100; left > 0; left--) {
        const { rows } = await once(server.url(), slots)
        if (rows.length === 0) break
        for (const { slot_name, active_pid } of rows)
          if (active_pid === null) await once(server.url(), `select pg_drop_replication_slot('${slot_name}')`).catch(() => {})
          else await once(server.url(), `select pg_terminate_backend(${active_pid})`)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      await once(server.url(), `drop database if exists ${name} with (force)`)
    },
  }
}

/** one statement over a connection of its own */
export async function once(url: string, text: string, values: readonly unknown[] = []): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 })
  client.on('error', () => {})
  await client.connect()
  try {
    return await client.query(text, [...values])
  } finally {
    await client.end()
  }
}
