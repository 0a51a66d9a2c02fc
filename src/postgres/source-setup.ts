import type pg from 'pg'
import { MillraceError } from '../core/errors.ts'
import { RESUME } from '../core/failover.ts'
import { readCatalog, readSlot } from './catalog.ts'
import type { SourceSettings } from './options.ts'
import { publicationFaults, SET_WAL_LEVEL, slotForeignness } from './preflight.ts'
import { publicationStatement, quoted } from './publication.ts'

export interface Teardown {
  readonly slot?: boolean | undefined
  readonly publication?: boolean | undefined
  /** the schema `millrace` with everything in it: outbox, functions, relay state */
  readonly schema?: boolean | undefined
}

/** a new slot waits for every transaction that is writing now (ms) */
const SLOT_TIMEOUT = 45_000
const QUERY_CANCELED = '57014'
const INSUFFICIENT_PRIVILEGE = '42501'

/**
 * The publication first, committed, then the slot; see {@link publicationStatement}. A slot that a stream has used is
 * never made anew: what was committed since would be passed over in silence.
 */
export async function initSource(pool: pg.Pool, settings: SourceSettings): Promise<readonly string[]> {
  const catalog = await readCatalog(pool, settings)
  const made: string[] = []
  const table = `${settings.table.schema}.${settings.table.name}`
  if (catalog.outbox === null)
    throw new MillraceError('MILLRACE_SCHEMA_OUTDATED', `the outbox table ${table} does not exist`, {
      remedy: 'apply the migrations first, or correct source.outbox.table',
    })
  if (catalog.walLevel !== 'logical')
    throw new MillraceError('MILLRACE_SOURCE_NOT_READY', `wal_level is ${catalog.walLevel}, logical decoding needs logical`, {
      remedy: SET_WAL_LEVEL,
    })
  if (catalog.slot !== null) {
    const foreign = slotForeignness(catalog.slot, catalog.database)
    if (foreign !== null)
      throw new MillraceError('MILLRACE_SOURCE_CHANGED', `the slot ${settings.slot} ${foreign}`, {
        remedy: 'name a slot of its own for this pipeline: source.slot',
      })
  }
  if (catalog.publication === null) {
    if (catalog.slot !== null)
      throw new MillraceError(
        'MILLRACE_PUBLICATION_MISSING',
        `the slot ${settings.slot} is there and the publication ${settings.publication} is not: rows from before the publication would be skipped`,
        { remedy: RESUME },
      )
    await createPublication(pool, settings, catalog.outbox.kind === 'p')
    made.push(`publication ${settings.publication} for ${table}`)
  } else {
    const faults = publicationFaults(catalog.publication, catalog.outbox, settings)
    if (faults.length > 0)
      throw new MillraceError('MILLRACE_SOURCE_NOT_READY', `the publication ${settings.publication} ${faults.join(', ')}`, {
        remedy: `it must be as this makes it: ${publicationStatement(settings, catalog.outbox.kind === 'p')}`,
      })
  }
  if (catalog.slot === null && catalog.stateTable?.written === true)
    throw new MillraceError('MILLRACE_SLOT_MISSING', `the slot ${settings.slot} is gone, and the stream was begun on it`, {
      remedy: RESUME,
    })
  if (catalog.slot === null) {
    await createSlot(pool, settings, catalog.version)
    made.push(`slot ${settings.slot}`)
  }
  return made
}

export async function createPublication(pool: pg.Pool, settings: SourceSettings, partitioned: boolean): Promise<void> {
  const statement = publicationStatement(settings, partitioned)
  try {
    await pool.query(statement)
  } catch (error) {
    if ((error as { code?: string }).code !== INSUFFICIENT_PRIVILEGE) throw error
    throw new MillraceError('MILLRACE_SOURCE_AUTH', `the role may not make the publication: ${(error as Error).message}`, {
      remedy: `let the owner of the table run: ${statement}`,
    })
  }
}

/** From Postgres 17 on the slot follows to a standby that synchronizes slots. */
async function createSlot(pool: pg.Pool, settings: SourceSettings, version: number): Promise<void> {
  const client = await pool.connect()
  try {
    await client.query(`set statement_timeout = ${SLOT_TIMEOUT}`)
    const failover = version >= 170_000 ? ', failover => true' : ''
    await client.query({
      text: `select pg_create_logical_replication_slot($1, 'pgoutput', temporary => false, twophase => false${failover})`,
      values: [settings.slot],
      // the server gives up first, and says why
      query_timeout: SLOT_TIMEOUT + 15_000,
    } as pg.QueryConfig)
  } catch (error) {
    if ((error as { code?: string }).code !== QUERY_CANCELED) throw error
    throw new MillraceError(
      'MILLRACE_SOURCE_NOT_READY',
      `the slot could not be made in ${SLOT_TIMEOUT / 1_000} s: it waits for transactions that were writing when it began`,
      {
        remedy: 'select pid, xact_start, query from pg_stat_activity where backend_xid is not null order by xact_start',
      },
    )
  } finally {
    // the connection has a setting of its own now
    client.release(true)
  }
}

export async function teardownSource(pool: pg.Pool, settings: SourceSettings, what: Teardown): Promise<readonly string[]> {
  const removed: string[] = []
  if (what.slot === true) {
    const slot = await readSlot(pool, settings.slot)
    if (slot !== null) {
      if (slot.activePid !== null)
        throw new MillraceError(
          'MILLRACE_SLOT_IN_USE',
          `the slot ${settings.slot} is held by a relay (server process ${slot.activePid})`,
          {
            remedy: 'stop the relay first',
          },
        )
      await pool.query('select pg_drop_replication_slot($1)', [settings.slot])
      removed.push(`slot ${settings.slot}`)
    }
  }
  if (what.publication === true) {
    const { rows } = await pool.query('select 1 from pg_publication where pubname = $1', [settings.publication])
    if (rows.length > 0) {
      await pool.query(`drop publication ${quoted(settings.publication)}`)
      removed.push(`publication ${settings.publication}`)
    }
  }
  if (what.schema === true) {
    const { rows } = await pool.query("select 1 from pg_namespace where nspname = 'millrace'")
    if (rows.length > 0) {
      await pool.query('drop schema millrace cascade')
      removed.push('schema millrace')
    }
  }
  return removed
}
