import pg from 'pg'
import { type Lsn, parseLsn } from '../core/position.ts'
import { clientConfig } from './connection.ts'
import { type PostgresSourceOptions, settle } from './options.ts'
import { quoted } from './publication.ts'
import { sourceError } from './source-error.ts'

/**
 * The ids of the outbox's rows, in order, by short statements: no snapshot is held, so that the database's vacuum is not
 * held back either. What is inserted behind the walk is not seen.
 */
export interface OutboxWalk {
  chunks(): AsyncIterable<readonly OutboxId[]>
  /** All that was seen so far was committed below it, and it is flushed: a relay that runs comes there. */
  committedUpTo(): Promise<Lsn>
  close(): Promise<void>
}

export interface OutboxId {
  readonly id: string
  /** ms since the Unix epoch; null: the table does not say */
  readonly createdAt: number | null
}

const CHUNK = 5_000
const STATEMENT_TIMEOUT = 60_000

/** @param createdAt the column; null: there is none */
export async function walkOutbox(options: PostgresSourceOptions, createdAt: string | null): Promise<OutboxWalk> {
  const settings = settle(options)
  const { table, columns } = settings
  const client = new pg.Client({ ...clientConfig(settings), statement_timeout: STATEMENT_TIMEOUT })
  // told by the statement that is under way
  client.on('error', () => {})
  const query = (text: string, values?: unknown[]): Promise<pg.QueryResult> =>
    client.query(text, values).catch((error: unknown) => {
      throw sourceError(error, 'query')
    })
  try {
    await client.connect()
  } catch (error) {
    throw sourceError(error, 'connect')
  }
  const id = `o.${quoted(columns.id)}`
  const created = createdAt === null ? 'null::float8' : `extract(epoch from o.${quoted(createdAt)})::float8 * 1000`
  const select = `select ${id}::text as id, ${created} as "createdAt" from ${quoted(table.schema)}.${quoted(table.name)} o`

  return {
    async *chunks() {
      let after: string | null = null
      for (;;) {
        const where: string = after === null ? '' : ` where ${id} > $1`
        const { rows }: { rows: OutboxId[] } = await query(
          `${select}${where} order by ${id} limit ${CHUNK}`,
          after === null ? [] : [after],
        )
        const found = rows.filter((row) => row.id !== null)
        if (found.length > 0) yield found
        if (rows.length < CHUNK || found.length === 0) return
        after = (found.at(-1) as OutboxId).id
      }
    },
    async committedUpTo() {
      const { rows } = await query('select pg_current_wal_insert_lsn()::text as lsn')
      await query("set synchronous_commit = 'local'")
      // what a transaction without synchronous_commit wrote is not sent before it is flushed: a commit of our own does it
      await query('update millrace.relay_state set updated_at = updated_at where source = $1', [settings.name])
      return parseLsn(rows[0].lsn)
    },
    close: () => client.end().catch(() => {}),
  }
}
