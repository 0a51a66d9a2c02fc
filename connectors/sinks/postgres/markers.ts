import pg from 'pg'

/** markers forgotten in one transaction */
const BATCH = 5_000

/**
 * Forgets the delete markers of a sink that are older than `retention` (ms, by the server's clock), in bounded
 * transactions, and records below which position deletes of a target may have left no trace: a fold that covers less
 * is made again before it is written (PROTOCOL 2.5). With them go the guards of rows that stay deleted.
 *
 * A marker newer than the first event that is parked stays, however old: its row may be shared by several keys, and a
 * parked event that is redriven in a year would bring it back. (Of a row of its own, the later delete is parked behind it.)
 * @returns how many were forgotten
 */
export async function forgetMarkers(pool: pg.Pool, schema: string, sink: string, retention: number): Promise<number> {
  const s = pg.escapeIdentifier(schema)
  let forgotten = 0
  for (;;) {
    const { rows } = await pool.query<{ count: string }>(
      `with old as materialized (
  select target, key, position from ${s}.deleted
  where sink = $1 and deleted_at < clock_timestamp() - make_interval(secs => $2::float8 / 1000)
    and position <= coalesce((select min(p.position) from ${s}.parked p where p.sink = $1), position)
  order by target, key limit ${BATCH} for update
), gone as (
  delete from ${s}.deleted d using old where d.sink = $1 and d.target = old.target and d.key = old.key
), unguarded as (
  delete from ${s}.guard g using old where g.sink = $1 and g.target = old.target and g.key = old.key and g.position <= old.position
), recorded as (
  update ${s}.target t set forgotten_below = greatest(t.forgotten_below, old.below)
  from (select target, max(position) as below from old group by target) as old
  where t.sink = $1 and t.target = old.target
)
select count(*) from old`,
      [sink, retention],
    )
    const count = Number(rows[0]?.count ?? 0)
    forgotten += count
    if (count < BATCH) return forgotten
  }
}
