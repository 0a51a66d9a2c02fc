import pg from 'pg'
import type { Change } from '../core/change.ts'
import { MillraceError } from '../core/errors.ts'
import type { SourceSettings } from './options.ts'
import { quoted } from './publication.ts'
import { sourceError } from './source-error.ts'

/**
 * A row of the outbox that may have to be published: a change whose position is yet to be given. `committedAt` is when it
 * was created, for want of when it was committed.
 */
export type RefillRow = Omit<Change, 'position'>

/**
 * The outbox as a snapshot shows it, less what is told to be known. The ids stand in a temporary table of the snapshot's
 * transaction, so that memory does not grow with them, and nothing of it is left.
 */
export interface RefillRows {
  /** ids of events that the queue holds */
  known(ids: readonly string[]): Promise<void>
  /** how many are left */
  count(): Promise<number>
  /** those that are left, by (created_at, id); asked for once */
  left(): AsyncIterable<readonly RefillRow[]>
  close(): Promise<void>
}

/** rows of one fetch: each may be as large as an event may */
const FETCH_ROWS = 64
const NO_LIMITS =
  "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set lock_timeout = 0; set work_mem = '16MB'"

/** The snapshot must still be held by whoever exported it. */
export async function openRefillRows(options: {
  readonly config: pg.ClientConfig
  readonly settings: SourceSettings
  readonly createdAt: string
  readonly snapshot: string
}): Promise<RefillRows> {
  const { config, settings, snapshot } = options
  const { table, columns } = settings
  const name = `${quoted(table.schema)}.${quoted(table.name)}`
  const id = quoted(columns.id)
  const createdAt = quoted(options.createdAt)
  const client = new pg.Client(config)
  // told by the statement that is under way
  client.on('error', () => {})
  const query = (text: string, values?: unknown[]): Promise<pg.QueryResult> =>
    client.query(text, values).catch((error: unknown) => {
      throw sourceError(error, 'query')
    })
  try {
    await client.connect()
    await client.query(NO_LIMITS)
    await client.query('begin isolation level repeatable read')
    await client.query(`set transaction snapshot ${pg.escapeLiteral(snapshot)}`)
    await client.query(
      `create temporary table millrace_missing on commit drop as select ${id} as id, ${id}::text as text, ${createdAt} as created_at from ${name}`,
    )
    await client.query('create index on pg_temp.millrace_missing (text)')
    await client.query('analyze pg_temp.millrace_missing')
  } catch (error) {
    await client.end().catch(() => {})
    throw sourceError(error, 'query')
  }

  return {
    async known(ids) {
      if (ids.length > 0) await query('delete from pg_temp.millrace_missing where text = any($1::text[])', [ids])
    },
    async count() {
      const { rows } = await query('select count(*)::float8 as count from pg_temp.millrace_missing')
      return rows[0].count
    },
    async *left() {
      const column = (column: string | null | undefined): string => (column == null ? 'null' : `o.${quoted(column)}::text`)
      const payload = `o.${quoted(columns.payload)}`
      await query(
        `declare millrace_left no scroll cursor for
         select m.text as id, ${column(columns.aggregateType)} as "aggregateType", ${column(columns.aggregateId)} as "aggregateId",
           ${column(columns.type)} as type, case when pg_typeof(${payload}) = 'bytea'::regtype then null else ${payload}::text end as payload,
           case when pg_typeof(${payload}) = 'bytea'::regtype then ${payload}::text end as hex,
           ${column(columns.headers)} as headers, ${column(columns.orderingKey)} as "orderingKey", ${column(columns.version)} as version,
           extract(epoch from m.created_at)::float8 * 1000 as "createdAt"
         from pg_temp.millrace_missing m join ${name} o on o.${id} = m.id
         order by m.created_at, m.id`,
      )
      for (;;) {
        const { rows } = await query(`fetch ${FETCH_ROWS} from millrace_left`)
        if (rows.length === 0) return
        yield rows.map((row) => refillRow(row as Fetched, settings))
      }
    },
    async close() {
      await client.end().catch(() => {})
    },
  }
}

interface Fetched {
  readonly id: string | null
  readonly aggregateType: string | null
  readonly aggregateId: string | null
  readonly type: string | null
  readonly payload: string | null
  readonly hex: string | null
  readonly headers: string | null
  readonly orderingKey: string | null
  readonly version: string | null
  readonly createdAt: number | null
}

const AGGREGATE_TYPE = /^[A-Za-z0-9._-]{1,120}$/
/** what a row occupies beside its texts, about (bytes) */
const OBJECT_BYTES = 512

/** @throws MILLRACE_OUTBOX_ROW_INVALID for a row without a place in a chain */
function refillRow(row: Fetched, settings: SourceSettings): RefillRow {
  const { table, columns } = settings
  const invalid = (column: string, expected: string): MillraceError =>
    new MillraceError(
      'MILLRACE_OUTBOX_ROW_INVALID',
      `the outbox row ${row.id} cannot become an event: column ${column} of ${table.schema}.${table.name}: expected ${expected}`,
      {
        remedy: 'a constraint on the table refuses such rows at the writer; the row itself must be dealt with by a person',
        fields: { id: row.id, table: `${table.schema}.${table.name}`, column },
      },
    )
  if (row.aggregateType === null || !AGGREGATE_TYPE.test(row.aggregateType))
    throw invalid(columns.aggregateType, `a value that matches ${AGGREGATE_TYPE.source}`)
  if (row.aggregateId === null || row.aggregateId === '')
    throw invalid(columns.aggregateId, 'a value that is not null and not empty')
  const type = row.type ?? ''
  const fault = type === '' ? invalid(columns.type, 'a value that is not null and not empty') : null
  const payload = row.hex === null ? bytes(row.payload) : Buffer.from(row.hex.slice(2), 'hex')
  return {
    // within what a Date holds: a writer may have put any time
    committedAt: Number.isFinite(row.createdAt) ? Math.max(-8.64e15, Math.min(8.64e15, Math.floor(row.createdAt as number))) : 0,
    id: row.id ?? '',
    aggregateType: row.aggregateType,
    aggregateId: Buffer.from(row.aggregateId),
    type,
    payload,
    headers: row.headers,
    orderingKey: bytes(row.orderingKey),
    version: row.version ?? '1',
    fault,
    bytes: OBJECT_BYTES + (payload?.length ?? 0) + (row.headers?.length ?? 0),
  }
}

const bytes = (text: string | null): Buffer | null => (text === null ? null : Buffer.from(text))
