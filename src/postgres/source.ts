import pg from 'pg'
import type { Log } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import type { Finding } from '../core/finding.ts'
import type { Source, SourceOpenOptions, StateCopy } from '../core/source.ts'
import { readCatalog, readSlot, type Slot } from './catalog.ts'
import { clientConfig, openPool } from './connection.ts'
import { type PostgresSourceOptions, settle } from './options.ts'
import { type Observation, preflight } from './preflight.ts'
import { startReplication } from './replication.ts'
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

  return {
    name: settings.name,
    stateCopy: { read: () => query(() => copy.read()), write: (state) => query(() => copy.write(state)) },

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

    async open({ epoch, signal }: SourceOpenOptions) {
      signal.throwIfAborted()
      const catalog = await query(() => readCatalog(pool, settings))
      const observed = preflight(catalog, settings)
      refuseFirst(observed)
      for (const { level, message, remedy } of observed)
        if (level === 'warning') deps.log.warn({ source: settings.name, remedy }, message)

      const session = new PostgresSession({
        settings,
        epoch,
        publication: catalog.publication?.identity ?? '',
        log: deps.log,
        now: deps.now,
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
      })
      try {
        // only now that the slot is ours can nobody else move it
        const slot = await query(() => readSlot(pool, settings.slot))
        if (slot?.confirmed == null)
          throw new MillraceError('MILLRACE_SLOT_LOST', `the slot ${settings.slot} has no confirmed LSN`)
        session.begin(stream, slot.confirmed, signal)
        return session
      } catch (error) {
        stream.destroy()
        throw error
      }
    },

    close: () => pool.end(),
  }
}

function refuseFirst(observed: readonly Observation[]): void {
  for (const { refuses, message, remedy } of observed)
    if (refuses !== null) throw new MillraceError(refuses, message, remedy === undefined ? {} : { remedy })
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
