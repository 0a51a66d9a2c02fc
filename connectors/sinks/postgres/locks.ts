import pg from 'pg'
import type { Planning } from './plan.ts'
import { named } from './statements.ts'
import { type Statement, textArray } from './transaction.ts'

/** The locks of tables that several partitions write; null where there are none. */
export function lockTargets({ feeds, sink }: Planning, schema: string): Statement | null {
  const shared = [...new Set(feeds.flatMap(({ feed }) => (feed.target.shared ? [feed.target.name] : [])))].sort()
  if (shared.length === 0) return null
  const text = `select from ${pg.escapeIdentifier(schema)}.target where sink = $1 and target = any($2::text[]) order by target for update`
  return { ...named(text), values: [sink, textArray(shared)] }
}
