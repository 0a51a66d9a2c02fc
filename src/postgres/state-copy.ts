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
    async write(state) {
      await pool.query(
        `insert into millrace.relay_state as kept (source, state, updated_at) values ($1, $2, clock_timestamp())
         on conflict (source) do update set state = excluded.state, updated_at = excluded.updated_at`,
        [source, state],
      )
    },
  }
}
