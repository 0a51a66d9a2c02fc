import { execFile } from 'node:child_process'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { eventually } from './eventually.ts'
import { POSTGRES_15 } from './machine.ts'
import { steadyPort } from './port.ts'
import { startTcpProxy, type TcpProxy } from './tcp-proxy.ts'

/** A primary and its streaming standby, behind one address that follows whoever is the primary. */
export interface PostgresPair {
  readonly primary: PostgresServer
  readonly standby: PostgresServer
  /** the standby receives WAL through it: held, the standby lags */
  readonly wal: TcpProxy
  /** leads to the primary; after `move` to the standby */
  readonly address: TcpProxy
  url(database?: string): string
  /** resolves once the standby has the slot in a form that a promotion keeps */
  followed(slot: string): Promise<void>
  /** resolves once the standby has all WAL that the primary has written until now */
  inSync(): Promise<void>
  /** promotes the standby; what the old primary does is the caller's */
  promote(): Promise<void>
  /** moves the address to the standby, promoted or not; the connections there were are cut, unless they are to stay */
  move(connections?: 'stay'): void
  remove(): Promise<void>
}

const STANDBY_SLOT = 'standby'

export async function startPostgresPair(options: {
  readonly version: 15 | 18
  /** commits and failover slots wait for the standby: it never lacks what somebody was told of */
  readonly synchronous: boolean
  readonly settings?: Readonly<Record<string, string>>
}): Promise<PostgresPair> {
  const { version, synchronous } = options
  const bin = version === 15 ? { bin: POSTGRES_15 } : {}
  const ends: (() => Promise<unknown>)[] = []
  const remove = async (): Promise<void> => {
    for (const end of ends.reverse()) await end()
  }
  try {
    const settings = {
      fsync: 'off',
      ...(synchronous && { synchronous_standby_names: '*' }),
      ...(synchronous && version >= 17 && { synchronized_standby_slots: STANDBY_SLOT }),
      ...options.settings,
    }
    const primary = await startPostgresServer({ ...bin, settings, port: await steadyPort() })
    ends.push(() => primary.remove())
    await queryOf(primary.url(), `select pg_create_physical_replication_slot('${STANDBY_SLOT}', true)`)
    const wal = await startTcpProxy({ port: primary.port })
    ends.push(() => wal.remove())
    await primary.stop()
    const standby = await startPostgresServer({
      ...bin,
      port: await steadyPort(),
      settings: {
        fsync: 'off',
        primary_conninfo: `host=127.0.0.1 port=${wal.port} user=postgres dbname=postgres application_name=standby`,
        primary_slot_name: STANDBY_SLOT,
        hot_standby_feedback: 'on',
        wal_receiver_status_interval: '1s',
        wal_retrieve_retry_interval: '200ms',
        ...options.settings,
      },
      async data(folder) {
        await promisify(execFile)('cp', ['-a', primary.dataDir, folder])
        await rm(join(folder, 'pg_replslot', STANDBY_SLOT), { recursive: true, force: true })
        await writeFile(join(folder, 'standby.signal'), '')
        await primary.start()
      },
    })
    ends.push(() => standby.remove())
    const target = { port: primary.port }
    const address = await startTcpProxy(target)
    ends.push(() => address.remove())

    const pair: PostgresPair = {
      primary,
      standby,
      wal,
      address,
      url: (database = 'postgres') => `postgres://postgres@${address.address}/${database}`,
      async followed(slot) {
        // begun before there is a slot it sleeps longer and longer, up to 30 s
        await queryOf(standby.url(), "alter system set sync_replication_slots = 'on'")
        await queryOf(standby.url(), 'select pg_reload_conf()')
        await eventually(
          async () => {
            // the slot must get beyond what the standby has reserved for it, which a running relay's does in time
            await queryOf(primary.url(), 'select pg_log_standby_snapshot()')
            const { rows } = await queryOf(
              standby.url(),
              `select 1 from pg_replication_slots where slot_name = '${slot}' and synced and not temporary`,
            )
            return rows.length > 0
          },
          { within: 60_000, what: `the slot ${slot} to follow to the standby` },
        )
      },
      async inSync() {
        const { rows } = await queryOf(primary.url(), 'select pg_current_wal_lsn()::text as lsn')
        await eventually(
          async () =>
            (await queryOf(standby.url(), `select pg_last_wal_replay_lsn() >= '${rows[0].lsn}' as done`)).rows[0].done === true,
          { within: 30_000, what: `the standby to have replayed ${rows[0].lsn}` },
        )
      },
      promote: () => queryOf(standby.url(), 'select pg_promote()').then(() => {}),
      move(connections) {
        target.port = standby.port
        if (connections !== 'stay') address.cut()
      },
      remove,
    }
    await pair.inSync()
    return pair
  } catch (error) {
    await remove()
    throw error
  }
}

async function queryOf(url: string, text: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  client.on('error', () => {})
  await client.connect()
  try {
    return await client.query(text)
  } finally {
    await client.end()
  }
}
