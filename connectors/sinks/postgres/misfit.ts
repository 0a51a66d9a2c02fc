import type pg from 'pg'
import { said } from './failure.ts'
import type { PlannedStatement } from './plan.ts'

/**
 * The column whose value Postgres refuses, of the rows of a statement: it reports none for what does not become its
 * type, so each is tried alone. Null when all of them fit: then the table refuses the row (and names the column).
 */
export async function misfit(pool: pg.Pool, { feed, values: [rows] }: PlannedStatement): Promise<string | null> {
  for (const [index, { name, type }] of feed.columns.entries()) {
    const field = index === feed.aggregateKey ? 'k' : String(index)
    try {
      await pool.query(`select from json_to_recordset($1::json) as r("${field}" ${type})`, [rows])
    } catch (error) {
      if (said(error).state?.startsWith('22')) return name
      throw error
    }
  }
  return null
}
