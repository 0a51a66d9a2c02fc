import pg from 'pg'
import type { Log } from '../core/connector.ts'
import type { ServerIdentity } from '../core/epoch.ts'
import { codeOf, MillraceError } from '../core/errors.ts'
import type { Finding } from '../core/finding.ts'
import { formatLsn, type Lsn } from '../core/position.ts'
import type { Source, StateCopy } from '../core/source.ts'
import { type Catalog, readCatalog, readPublicationIdentity, readSlot, type Slot } from './catalog.ts'
import { clientConfig, dropIdle, openPool } from './connection.ts'
import { type PostgresSourceOptions, type SourceSettings, settle } from './options.ts'
import { preflight } from './preflight.ts'
import { type ReplicationStream, startReplication } from './replication.ts'
import { identifyServer } from './server-identity.ts'
import { PostgresSession } from './session.ts'
import { sourceError } from './source-error.ts'
import { initSource, type Teardown, teardownSource } from './source-setup.ts'
import { stateCopy } from './state-copy.ts'

export interface PostgresSource extends Source {
  /**
   * Makes what is missing: the publication, then the slot. Safe to repeat; the migrations come first (`migrate.ts`).
   * @returns what was made, for people
   * @throws MILLRACE_SCHEMA_OUTDATED without the outbox table, MILLRACE_SOURCE_NOT_READY for a publication of another
   *   shape, MILLRACE_SOURCE_CHANGED for a slot that is not ours
   */
  init(): Promise<readonly string[]>
  /** Removes what is named and there. @returns what was removed. @throws MILLRACE_SLOT_IN_USE while a relay holds the slot */
  teardown(what: Teardown): Promise<readonly string[]>
  /** who the server is; needs no slot */
  identify(): Promise<ServerIdentity>
  /** null: there is no slot of the name */
  slotStatus(): Promise<Slot | null>
  /** Ends the connections for ordinary statements; sessions are closed by themselves. */
  close(): Promise<void>
}

export interface PostgresSourceDeps {
  readonly log: Log
  /** ms since the Unix epoch */
  readonly now: () => number
}

/** Connects when it is asked for something. @throws MILLRACE_CONFIG_INVALID */
export function openPostgresSource(options: PostgresSourceOptions, deps: PostgresSourceDeps): PostgresSource {
  const settings = settle(options)
  const config = clientConfig(settings)
  const pool = openPool(config)
  const query = <T>(work: (client: pg.Pool) => Promise<T>): Promise<T> =>
    work(pool).catch((error: unknown) => {
      throw sourceError(error, 'query')
    })
  const copy: StateCopy = stateCopy(pool, settings.name)

  /**
   * Only now that the slot is ours can nobody else move it. An address that moves to a promoted standby can leave our two
   * kinds of connection on two servers: then one would tell of a slot and a state that are not the stream's.
   */
  async function ownSlot(stream: ReplicationStream): Promise<Slot & { readonly confirmed: Lsn }> {
    const slot = await query(() => readSlot(pool, settings.slot))
    if (slot?.activePid !== stream.backendPid) {
      await dropIdle(pool)
      throw new MillraceError(
        'MILLRACE_SOURCE_UNREACHABLE',
        `the stream is sent by the server process ${stream.backendPid}, and the slot ${settings.slot} that statements see is ${slot === null ? 'missing' : `held by ${slot.activePid ?? 'nobody'}`}: they do not reach the same server`,
        {
          remedy:
            'give the direct address of the primary; while an address moves to another server, a relay tries again by itself',
        },
      )
    }
    if (slot.confirmed === null) throw new MillraceError('MILLRACE_SLOT_LOST', `the slot ${settings.slot} has no confirmed LSN`)
    return { ...slot, confirmed: slot.confirmed }
  }

  return {
    name: settings.name,
    stateCopy: { read: () => query(() => copy.read()), write: (state, over) => query(() => copy.write(state, over)) },

    async check(): Promise<readonly Finding[]> {
      try {
        const findings: Finding[] = [...(await poolerFindings(config))]
        const catalog = await readCatalog(pool, settings)
        return [...findings, ...preflight(catalog, settings).map(({ refuses: _, ...finding }) => finding)]
      } catch (error) {
        const { message, remedy } = sourceError(error, 'connect')
        return [{ level: 'blocker', subject: 'source', message, ...(remedy !== undefined && { remedy }) }]
      }
    },

    init: () => query(() => initSource(pool, settings)),
    teardown: (what) => query(() => teardownSource(pool, settings, what)),
    slotStatus: () => query(() => readSlot(pool, settings.slot)),

    async identify() {
      const client = new pg.Client({ ...config, replication: 'database', query_timeout: 10_000 } as pg.ClientConfig)
      client.on('error', () => {})
      try {
        await client.connect()
        return await identifyServer(client)
      } catch (error) {
        throw sourceError(error, 'connect')
      } finally {
        await client.end().catch(() => {})
      }
    },

    async open({ signal }) {
      signal.throwIfAborted()
      const catalog = await query(() => readCatalog(pool, settings))
      refuse(catalog, settings)
      for (const { level, message, remedy } of preflight(catalog, settings))
        if (level === 'warning') deps.log.warn({ source: settings.name, remedy }, message)

      const session = new PostgresSession({
        settings,
        outboxOid: catalog.outbox?.oid ?? null,
        publication: catalog.publication?.identity ?? '',
        log: deps.log,
        now: deps.now,
        publicationNow: () => query(() => readPublicationIdentity(pool, settings)),
        slot: async () => {
          const slot = await readSlot(pool, settings.slot)
          return slot?.confirmed == null ? null : { confirmed: slot.confirmed, active: slot.activePid !== null }
        },
      })
      const stream = await startReplication({
        config,
        slot: settings.slot,
        publication: settings.publication,
        handler: session,
        signal,
      }).catch(async (error: unknown) => {
        // one SQLSTATE stands for a lost slot and for one that a standby keeps for its primary
        if (codeOf(error) === 'MILLRACE_SLOT_LOST') refuse(await query(() => readCatalog(pool, settings)), settings)
        throw error
      })
      try {
        const slot = await ownSlot(stream)
        session.own(stream, { ...stream.server, walEnd: slot.currentWal }, slot.confirmed, signal)
        return session
      } catch (error) {
        stream.destroy()
        throw error
      }
    },

    close: () => pool.end(),
  }
}

/** @throws the first observation that keeps a session from beginning, with where the server stands */
function refuse(catalog: Catalog, settings: SourceSettings): void {
  const found = preflight(catalog, settings).find(({ refuses }) => refuses !== null)
  if (found === undefined || found.refuses === null) return
  throw new MillraceError(found.refuses, found.message, {
    ...(found.remedy !== undefined && { remedy: found.remedy }),
    fields: { walEnd: formatLsn(catalog.walEnd) },
  })
}

/**
 * A pooler in transaction mode cannot carry a replication stream, and one in any mode hides the server's own answers.
 * It gives itself away: the process number it told at connect is not the one the server has.
 */
async function poolerFindings(config: pg.ClientConfig): Promise<readonly Finding[]> {
  const client = new pg.Client({ ...config, query_timeout: 10_000 })
  client.on('error', () => {})
  try {
    await client.connect()
    const { rows } = await client.query('select pg_backend_pid() as pid')
    const { processID } = client as unknown as { readonly processID: number | null }
    if (processID === null || rows[0].pid === processID) return []
    return [
      {
        level: 'blocker',
        subject: 'source',
        message: 'the url leads to a pooler, not to the server itself',
        remedy: 'give the direct address of the server: a replication stream needs it',
      },
    ]
  } finally {
    await client.end().catch(() => {})
  }
}
