import { migrationSql } from '../postgres/migrate.ts'
import { settle, type TableName } from '../postgres/options.ts'
import { type DatabaseRole, roleSql } from '../postgres/roles.ts'
import { configError } from './config-issues.ts'
import type { ParsedConfig } from './config-schema.ts'
import { type Surroundings, sourceOptions } from './open.ts'
import { loadSink, optionsFor } from './registry.ts'

export const SQL_ROLES = ['owner', 'relay', 'writer', 'sink'] as const satisfies readonly DatabaseRole[]
export type SqlRole = DatabaseRole

/** What the role needs and nothing beyond it, as this pipeline is configured. */
export async function sqlFor(role: SqlRole, config: ParsedConfig, around: Surroundings): Promise<string> {
  if (role === 'sink') return sinkSql(config, around)
  const { publication, table } = settle(sourceOptions(config, around))
  const statements = role === 'owner' ? await migrationSql({ maxEventBytes: config.source?.outbox.maxEventBytes }) : undefined
  return roleSql(role, { name: config.name, publication, outbox: table, statements })
}

/** of every Postgres sink: they may live in different databases, so each is a script of its own */
async function sinkSql(config: ParsedConfig, around: Surroundings): Promise<string> {
  const { BOOKKEEPING, bookkeepingSql } = await import('../../connectors/sinks/postgres/ddl.ts')
  const { copySchema, SHARED_TABLES } = await import('../../connectors/sinks/postgres/copy-tables.ts')
  const scripts: string[] = []
  for (const [name, { kind, start: _start, sources: _sources, ...rest }] of Object.entries(config.sinks)) {
    if (kind !== 'postgres') continue
    const connector = await loadSink(kind, name, around)
    const { schema, tables } = (await optionsFor(connector, rest, around, ['sinks', name])) as PostgresSinkSettings
    const making = copySchema(schema)
    const bookkeeping: readonly TableName[] = [
      ...BOOKKEEPING.filter((name) => name !== 'checkpoint' && name !== 'deleted').map((name) => ({ schema, name })),
      ...SHARED_TABLES.map((name) => ({ schema: making, name })),
    ]
    const statements = bookkeepingSql(schema)
      .map((statement) => `${statement};`)
      .join('\n')
    scripts.push(
      `-- sink ${name}\n${roleSql('sink', { name: config.name, statements, schema, making, tables: [...bookkeeping, ...tables.map(({ into }) => into)] })}`,
    )
  }
  if (scripts.length > 0) return scripts.join('\n')
  throw configError(around.origin, [{ path: ['sinks'], message: 'expected a sink of kind "postgres", found none' }])
}

interface PostgresSinkSettings {
  readonly schema: string
  readonly tables: readonly { readonly into: TableName }[]
}
