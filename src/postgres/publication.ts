import pg from 'pg'
import type { OutboxColumns, SourceSettings } from './options.ts'

/**
 * The statement that makes the publication: inserts of the outbox, nothing else. It must have been committed before the
 * slot is made: Postgres 15 fails on rows from before, Postgres 18 skips them with a warning in its own log.
 */
export function publicationStatement(settings: Pick<SourceSettings, 'publication' | 'table'>, partitioned: boolean): string {
  const options = partitioned ? "publish = 'insert', publish_via_partition_root = true" : "publish = 'insert'"
  return `create publication ${quoted(settings.publication)} for table ${quoted(settings.table.schema)}.${quoted(settings.table.name)} with (${options})`
}

/** the columns that an event is made of */
export function describeColumns(columns: OutboxColumns): readonly string[] {
  return Object.values(columns).filter((column) => typeof column === 'string')
}

export const quoted = (name: string): string => pg.escapeIdentifier(name)
