import type pg from 'pg'
import type { StateCopy } from '../core/source.ts'

const UNDEFINED_TABLE = '42P01'

/** The copy of the relay's state in the source's own database: one row per source in `millrace.relay_state`. */
export function stateCopy(pool: pg.Pool, source: string): StateCopy {
  return {
    async read() {
      try {
        const { rows } = await pool.query('select state from millrace.relay_state where source = $1', [source])
        return rows[0]?.state ?? null
      } catch (error) {
        if ((error as { code?: string }).code === UNDEFINED_TABLE) return null
        throw error
      }
    },
    // a copy that a crash of the server could take back would look like a database that was restored
    async write(state, over) {
      const { rowCount } = await pool.query(
        `with durable as (select set_config('synchronous_commit', 'local', true))
         insert into millrace.relay_state as kept (source, state, updated_at)
         select $1, $2, clock_timestamp() from durable where $4 or $3::text is null
           or exists (select from millrace.relay_state where source = $1 and state = $3)
         on conflict (source) do update set state = excluded.state, updated_at = excluded.updated_at
         where $4 or kept.state = $3`,
        [source, state, over ?? null, over === undefined],
      )
      return rowCount === 1
    },
  }
}
