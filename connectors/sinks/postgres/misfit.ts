import { faultOf, said } from './failure.ts'
import { payloadReader } from './payload.ts'
import type { PlannedStatement } from './plan.ts'

/** a query on a connection that is free, and stays usable when it fails */
export type Ask = (text: string, values: string[]) => Promise<unknown>

/**
 * The column whose value Postgres refuses, of a statement that writes one row: for what does not become its type it
 * names none, so each is tried alone. Null when all of them fit: then it is the row that the table refuses.
 */
export async function misfit(ask: Ask, { feed, values }: PlannedStatement): Promise<string | null> {
  const row = (values[0] as Buffer).subarray(1, -1)
  const slots = payloadReader(feed.columns.map((_, index) => [index === feed.aggregateKey ? 'k' : String(index)])).read(row)
  for (const [index, { name, type }] of feed.columns.entries()) {
    if (slots[index * 2] === -1) continue
    const value = row.toString('utf8', slots[index * 2], slots[index * 2 + 1])
    try {
      await ask(`select from json_to_record($1::json) as r(v ${type})`, [`{"v":${value}}`])
    } catch (error) {
      if (faultOf(said(error)) === 'data') return name
      throw error
    }
  }
  return null
}
