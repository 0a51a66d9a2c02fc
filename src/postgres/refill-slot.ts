import pg from 'pg'
import { MillraceError } from '../core/errors.ts'
import { type Lsn, parseLsn } from '../core/position.ts'
import { type Catalog, readCatalog, readSlot } from './catalog.ts'
import { clientConfig, openPool } from './connection.ts'
import { type PostgresSourceOptions, settle } from './options.ts'
import { publicationFaults, slotForeignness } from './preflight.ts'
import { publicationStatement } from './publication.ts'
import { openRefillRows, type RefillRows } from './refill-rows.ts'
import { sourceError } from './source-error.ts'
import { createPublication } from './source-setup.ts'

/**
 * Making a stream's slot anew: what `millrace init` never does, because whatever was committed since the old one is
 * passed over. For `resume` and `init --new-epoch`, which account for it.
 */
export interface SlotRenewal {
  /** what there is; @throws what no new slot would mend: a foreign slot of the name, a publication of another shape */
  look(): Promise<Catalog>
  /** @returns whether there was one. @throws MILLRACE_SLOT_IN_USE while a relay holds it */
  dropSlot(): Promise<boolean>
  /** Safe to repeat. @returns whether there was none */
  makePublication(): Promise<boolean>
  /** The publication must stand and the slot must not. */
  makeSlot(): Promise<NewSlot>
  close(): Promise<void>
}

/** A slot at whose consistent point the database can still be read. */
export interface NewSlot {
  /** commits at and above it are what the slot sends; what was committed below is visible in its snapshot */
  readonly start: Lsn
  /**
   * The outbox as it was at the slot's start.
   * @param createdAt the column that orders rows
   */
  rows(createdAt: string): Promise<RefillRows>
  /** lets go of the snapshot */
  release(): Promise<void>
}

/** how long a new slot waits for one transaction that is writing (ms) */
const WRITERS_TIMEOUT = 45_000
const LOCK_NOT_AVAILABLE = '55P03'

export function openSlotRenewal(options: PostgresSourceOptions): SlotRenewal {
  const settings = settle(options)
  const config = clientConfig(settings)
  const pool = openPool(config)
  const query = <T>(work: () => Promise<T>): Promise<T> =>
    work().catch((error: unknown) => {
      throw sourceError(error, 'query')
    })

  return {
    look: () =>
      query(async () => {
        const catalog = await readCatalog(pool, settings)
        const { slot, outbox, publication } = catalog
        const foreign = slot === null ? null : slotForeignness(slot, catalog.database)
        if (foreign !== null)
          throw new MillraceError('MILLRACE_SOURCE_CHANGED', `the slot ${settings.slot} ${foreign}`, {
            remedy:
              'it is left alone: name a slot of its own for this pipeline (source.slot), or drop it by hand if nobody needs it',
          })
        if (outbox === null)
          throw new MillraceError(
            'MILLRACE_SCHEMA_OUTDATED',
            `the outbox table ${settings.table.schema}.${settings.table.name} does not exist`,
            { remedy: 'run: millrace init; or correct source.outbox.table' },
          )
        const faults = publication === null ? [] : publicationFaults(publication, outbox, settings)
        if (faults.length > 0)
          throw new MillraceError('MILLRACE_SOURCE_NOT_READY', `the publication ${settings.publication} ${faults.join(', ')}`, {
            remedy: `it must be as this makes it: ${publicationStatement(settings, outbox.kind === 'p')}`,
          })
        return catalog
      }),

    dropSlot: () =>
      query(async () => {
        const slot = await readSlot(pool, settings.slot)
        if (slot === null) return false
        if (slot.activePid !== null) throw slotInUse(settings.slot, slot.activePid)
        await pool.query('select pg_drop_replication_slot($1)', [settings.slot])
        return true
      }),

    makePublication: () =>
      query(async () => {
        const { publication, outbox } = await readCatalog(pool, settings)
        if (publication !== null) return false
        await createPublication(pool, settings, outbox?.kind === 'p')
        return true
      }),

    async makeSlot() {
      const { rows } = await query(() => pool.query("select current_setting('server_version_num')::int as version"))
      const client = new pg.Client({ ...config, ...({ replication: 'database' } as object) })
      client.on('error', () => {})
      try {
        await client.connect()
        // without a bound it waits for every transaction that was writing when it began
        await client.query(`set lock_timeout = ${WRITERS_TIMEOUT}`)
        const made = await client.query(createCommand(settings.slot, rows[0].version)).catch((error: unknown) => {
          if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error
          throw new MillraceError(
            'MILLRACE_SOURCE_NOT_READY',
            `the slot could not be made in ${WRITERS_TIMEOUT / 1_000} s: it waits for transactions that were writing when it began`,
            { remedy: 'select pid, xact_start, query from pg_stat_activity where backend_xid is not null order by xact_start' },
          )
        })
        const { consistent_point: start, snapshot_name: snapshot } = made.rows[0] as Record<string, string>
        return {
          start: parseLsn(start as string),
          rows: (createdAt) => openRefillRows({ config, settings, createdAt, snapshot: snapshot as string }),
          release: () => client.end().catch(() => {}),
        }
      } catch (error) {
        await client.end().catch(() => {})
        throw sourceError(error, 'query')
      }
    },

    close: () => pool.end(),
  }
}

export function slotInUse(slot: string, pid: number): MillraceError {
  return new MillraceError('MILLRACE_SLOT_IN_USE', `the slot ${slot} is held by a relay (server process ${pid})`, {
    remedy: 'stop the relay first',
  })
}

/** `slot` is `^[a-z0-9_]{1,63}$`. From Postgres 17 on the slot follows to a standby that synchronizes slots. */
function createCommand(slot: string, version: number): string {
  return `CREATE_REPLICATION_SLOT "${slot}" LOGICAL pgoutput (SNAPSHOT 'export'${version >= 170_000 ? ', FAILOVER' : ''})`
}
