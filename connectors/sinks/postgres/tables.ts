import { type Generated, Kysely, PostgresDialect } from 'kysely'
import type pg from 'pg'
import type { KeptMapping } from './mapping.ts'

/** The sink's own tables (`ddl.ts`). bigint comes as text; what is JSON (`parked-event.ts`) goes in as text and is selected as text. */
export interface Tables {
  checkpoint: {
    sink: string
    source: string
    topic: string
    partition: number
    position: string | null
    offset: string | null
    owner_epoch: string
    parked_version: Generated<string>
    beginning: string | null
    updated_at: Date
  }
  target: {
    sink: string
    target: string
    source: string | null
    mapping: KeptMapping
    forgotten_below: string | null
  }
  parked: {
    sink: string
    topic: string
    partition: number
    digest: Buffer
    order: string
    position: string
    reason: string
    events: string
    bytes: string
    parked_at: Date
  }
  parked_event: {
    sink: string
    topic: string
    partition: number
    digest: Buffer
    position: string
    offset: string
    event: string
    value: Buffer | null
    reason: string | null
    bytes: string
    parked_at: Date
  }
  parked_audit: {
    id: Generated<string>
    sink: string
    topic: string
    partition: number
    order: string
    at: Generated<Date>
    action: 'redrive' | 'skip'
    skipped: string | null
    actor: string
    note: string | null
    applied: string
    remaining: string
  }
}

export function typedTables(pool: pg.Pool, schema: string): Kysely<Tables> {
  return new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) }).withSchema(schema)
}
