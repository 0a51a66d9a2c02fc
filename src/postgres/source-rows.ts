import pg from 'pg'
import { MillraceError } from '../core/errors.ts'
import { type Lsn, parseLsn } from '../core/position.ts'
import { clientConfig } from './connection.ts'
import { type PostgresSourceOptions, settle } from './options.ts'
import { sourceError } from './source-error.ts'

/**
 * What a query of the user's gives, in one snapshot of the source whose place in the stream is known on both sides:
 * whatever was committed below `from` is in it, and whatever is in it was committed below `upTo`. So a row that a
 * replica shows from below `from`, once it has applied all below `upTo`, must be what the query gives (PROTOCOL 2.5).
 */
export interface SourceRows {
  readonly from: Lsn
  readonly upTo: Lsn
  /** asked for once */
  rows(): AsyncIterable<readonly SourceRow[]>
  close(): Promise<void>
}

export interface SourceRow {
  readonly aggregateId: string
  /** null: the aggregate id orders */
  readonly orderingKey: string | null
  /** JSON, as the database writes it */
  readonly payload: string | null
}

/** rows of one fetch: each may be as large as an event may */
const FETCH_ROWS = 64
/** how long a transaction that was writing when the snapshot was to be taken is waited for (ms) */
const WRITERS_PATIENCE = 10_000
const WRITERS_POLL = 50
const LIMITS =
  'set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set lock_timeout = 10000; set default_transaction_read_only = on'

/**
 * @param query gives `aggregate_id`, `payload` and, where it is not the aggregate id, `ordering_key`
 * @throws MILLRACE_CONFIG_INVALID when it gives something else, MILLRACE_SOURCE_NOT_READY when it fails
 */
export async function readSourceRows(
  options: PostgresSourceOptions,
  query: string,
  wait: (ms: number) => Promise<void>,
): Promise<SourceRows> {
  const client = new pg.Client({ ...clientConfig(settle(options)), query_timeout: 0 })
  // told by the statement that is under way
  client.on('error', () => {})
  const text = query.trim().replace(/;$/, '')
  const ask = async (statement: string, values?: unknown[]): Promise<pg.QueryResult> => client.query(statement, values)
  try {
    await client.connect()
    await client.query(LIMITS)
    const from = await passedWriters(ask, wait)
    await ask('begin isolation level repeatable read, read only')
    const { fields } = await ask(`select * from (\n${text}\n) q limit 0`)
    const names = new Set(fields.map(({ name }) => name))
    if (!names.has('aggregate_id') || !names.has('payload')) throw wrongColumns([...names])
    // the snapshot is the first statement's
    const { rows } = await ask('select pg_current_wal_insert_lsn()::text as lsn')
    const ordering = names.has('ordering_key') ? 'q.ordering_key::text' : 'null'
    await ask(
      `declare millrace_source no scroll cursor for select q.aggregate_id::text as "aggregateId", ${ordering} as "orderingKey", q.payload::text as payload from (\n${text}\n) q`,
    )
    return {
      from,
      upTo: parseLsn(rows[0].lsn),
      async *rows() {
        for (;;) {
          const fetched = await ask(`fetch ${FETCH_ROWS} from millrace_source`).catch((error: unknown) => {
            throw sourceError(error, 'query')
          })
          if (fetched.rows.length === 0) return
          yield fetched.rows as SourceRow[]
        }
      },
      close: () => client.end().catch(() => {}),
    }
  } catch (error) {
    await client.end().catch(() => {})
    throw sourceError(error, 'query')
  }
}

/**
 * An LSN below which every commit is visible to whoever looks from now on. A commit stands in the WAL a little before it
 * can be seen (as long as a synchronous standby takes, with one), so whoever was writing then is waited for.
 */
async function passedWriters(
  ask: (statement: string, values?: unknown[]) => Promise<pg.QueryResult>,
  wait: (ms: number) => Promise<void>,
): Promise<Lsn> {
  const { rows } = await ask('select pg_current_wal_insert_lsn()::text as lsn')
  const running = await ask('select x::text as xid from pg_snapshot_xip(pg_current_snapshot()) x')
  const xids = running.rows.map(({ xid }) => xid as string)
  for (let waited = 0; xids.length > 0 && waited < WRITERS_PATIENCE; waited += WRITERS_POLL) {
    const still = await ask(
      'select exists (select from pg_snapshot_xip(pg_current_snapshot()) x where x::text = any($1::text[])) as still',
      [xids],
    )
    if (!still.rows[0].still) break
    await wait(WRITERS_POLL)
  }
  return parseLsn(rows[0].lsn)
}

function wrongColumns(names: readonly string[]): MillraceError {
  return new MillraceError(
    'MILLRACE_CONFIG_INVALID',
    `a query of "verify" must give the columns aggregate_id and payload, and gives ${names.length === 0 ? 'none' : names.join(', ')}`,
    { remedy: 'select id as aggregate_id, to_json(o) as payload from orders o' },
  )
}
