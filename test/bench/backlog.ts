import pg from 'pg'

/** A table that holds outbox rows, and what this load writes into it. */
export interface OutboxTable {
  readonly table: string
  readonly columns: {
    readonly aggregateType: string
    readonly aggregateId: string
    readonly type: string
    readonly payload: string
  }
  readonly payload: 'json' | 'jsonb'
}

/** Debezium's own column names, with the payload type its documentation shows. */
export const DEBEZIUM_OUTBOX: OutboxTable = {
  table: 'public.outbox',
  columns: { aggregateType: 'aggregatetype', aggregateId: 'aggregateid', type: 'type', payload: 'payload' },
  payload: 'jsonb',
}

export const MILLRACE_OUTBOX: OutboxTable = {
  table: 'millrace.outbox',
  columns: { aggregateType: 'aggregate_type', aggregateId: 'aggregate_id', type: 'type', payload: 'payload' },
  payload: 'json',
}

export const CREATE_DEBEZIUM_OUTBOX = `create table public.outbox (id uuid primary key default gen_random_uuid(),
  aggregatetype text not null, aggregateid text not null, type text not null, payload jsonb, created_at timestamptz not null default now())`

/** What the events say, as a table: the replica. */
export const CREATE_ORDERS = `create table public.orders (id bigint primary key, seq bigint not null, status text not null,
  customer text not null, total numeric(12, 2) not null, pad text not null)`

/** keys that the events go round */
export const KEYS = 100_000
/** the key of event `seq`, which counts from 1: every key once, then every key again, far apart */
export const keyOf = (seq: number): number => Number((BigInt(seq) * 7_919n) % BigInt(KEYS))
const KEY_SQL = `(g * 7919::bigint) % ${KEYS}`

const PAD = 'x'.repeat(220)
const PAYLOAD_SQL = `'{"id":' || ${KEY_SQL} || ',"seq":' || g || ',"status":"paid","customer":"c' || g || '","total":"12.34","pad":"${PAD}"}'`

/** inserts one such event, in the transaction of its statement; its parameters are key and seq */
export function insertEvent({ table, columns: { aggregateType, aggregateId, type, payload } }: OutboxTable): {
  text: string
  values: (key: number, seq: number) => string[]
} {
  return {
    text: `insert into ${table} (${aggregateType}, ${aggregateId}, ${type}, ${payload}) values ('order', $1, 'OrderChanged', $2)`,
    values: (key, seq) => [
      String(key),
      `{"id":${key},"seq":${seq},"status":"paid","customer":"c${seq}","total":"12.34","pad":"${PAD}"}`,
    ],
  }
}

export interface BacklogShape {
  readonly rows: number
  readonly rowsPerTransaction: number
}

/** Writes the rows as events 1 to `rows` into the outbox, in transactions of the size asked for, from one connection. */
export async function writeBacklog(url: string, outbox: OutboxTable, { rows, rowsPerTransaction }: BacklogShape): Promise<void> {
  const { aggregateType, aggregateId, type, payload } = outbox.columns
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query('set synchronous_commit = off')
    await client.query(`do $do$ declare first bigint; begin
      for first in select * from generate_series(1, ${rows}, ${rowsPerTransaction}) loop
        insert into ${outbox.table} (${aggregateType}, ${aggregateId}, ${type}, ${payload})
        select 'order', (${KEY_SQL})::text, 'OrderChanged', (${PAYLOAD_SQL})::${outbox.payload}
        from generate_series(first, least(first + ${rowsPerTransaction - 1}, ${rows})) g;
        commit;
      end loop;
    end $do$`)
    await client.query('checkpoint')
  } finally {
    await client.end()
  }
}

/**
 * How far the replica is, roughly: at `rows` or at half of them, or at 0 before. A mark is passed when the last 64 keys
 * before it show their event, or a later one: partitions are applied in order, and among 64 events every partition's
 * last one is found. Reads 64 rows by their key.
 */
export async function shownUpTo(replica: pg.Client, rows: number): Promise<number> {
  const half = Math.floor(rows / 2)
  return (await passed(replica, rows)) ? rows : (await passed(replica, half)) ? half : 0
}

async function passed(replica: pg.Client, mark: number): Promise<boolean> {
  const last = Array.from({ length: Math.min(64, mark, KEYS) }, (_, index) => mark - index)
  const { rows } = await replica.query(
    `select count(*)::int as shown from unnest($1::bigint[], $2::bigint[]) as mark (id, seq) join public.orders o on o.id = mark.id and o.seq >= mark.seq`,
    [last.map(keyOf), last],
  )
  return (rows[0] as { shown: number }).shown === last.length
}

/** @throws unless the replica is what the events make of it, each key at its last event */
export async function assertReplica(replica: pg.Client, rows: number): Promise<void> {
  const { rows: found } = await replica.query(
    `with expected as (select ${KEY_SQL} as id, max(g) as seq from generate_series(1, $1::bigint) g group by 1)
     select count(*)::int as differ from expected full join public.orders o using (id)
     where o.seq is distinct from expected.seq or o.total <> 12.34 or o.customer <> 'c' || o.seq or o.pad <> '${PAD}'`,
    [rows],
  )
  const { differ } = found[0] as { differ: number }
  if (differ > 0) throw new Error(`the replica differs from its events in ${differ} keys`)
}
