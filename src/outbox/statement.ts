/** A row of `millrace.outbox`, as the parameters that it is written by. */
export interface OutboxRow {
  readonly id: string
  readonly aggregateType: string
  readonly aggregateId: string
  readonly type: string
  /** JSON text; null is a tombstone */
  readonly payload: string | null
  /** JSON text */
  readonly headers: string | null
  readonly orderingKey: string | null
  readonly version: number
}

/** One SQL statement, for any client. It returns no rows. */
export interface Statement {
  readonly text: string
  readonly values: unknown[]
}

/*
 * Plain inserts with ids made here, not calls of millrace.emit: no rows to return, which is one thing less that clients
 * differ in. JSON goes as text and is cast: a client that asks the server for a parameter's type would otherwise make
 * JSON of the JSON.
 */
const INTO = 'insert into millrace.outbox (id, aggregate_type, aggregate_id, type, payload, headers, ordering_key, version)'
const ONE = `${INTO} values ($1::uuid, $2::text, $3::text, $4::text, $5::text::json, $6::text::json, $7::text, $8::int)`
const MANY =
  `${INTO} select e.id, e.aggregate_type, e.aggregate_id, e.type, e.payload::json, e.headers::json, e.ordering_key, e.version ` +
  'from json_to_recordset($1::text::json) as e(id uuid, aggregate_type text, aggregate_id text, type text, ' +
  'payload text, headers text, ordering_key text, version int)'

export function insertOne(row: OutboxRow): Statement {
  const { id, aggregateType, aggregateId, type, payload, headers, orderingKey, version } = row
  return { text: ONE, values: [id, aggregateType, aggregateId, type, payload, headers, orderingKey, version] }
}

/** In the given order, whatever their number: one parameter carries them all. */
export function insertMany(rows: readonly OutboxRow[]): Statement {
  const records = rows.map((row) => ({
    id: row.id,
    aggregate_type: row.aggregateType,
    aggregate_id: row.aggregateId,
    type: row.type,
    payload: row.payload,
    headers: row.headers,
    ordering_key: row.orderingKey,
    version: row.version,
  }))
  return { text: MANY, values: [JSON.stringify(records)] }
}
