import pg from 'pg'
import type { MillraceError } from '../../../src/core/errors.ts'
import type { Finding } from '../../../src/core/finding.ts'
import { type CatalogTable, readCatalog, type TableName } from './catalog.ts'
import { copySchema, SHARED_TABLES } from './copy-tables.ts'
import { BOOKKEEPING } from './ddl.ts'
import { sinkError } from './failure.ts'
import { isAppend, targetName, writtenColumns } from './mapping.ts'
import { GUARD_COLUMN, type PostgresSinkSettings, type TableSettings } from './options.ts'

const MIN_VERSION = 140_000

const bookkeepingTables = (schema: string): readonly TableName[] => BOOKKEEPING.map((name) => ({ schema, name }))
const copyTables = (schema: string): readonly TableName[] => SHARED_TABLES.map((name) => ({ schema: copySchema(schema), name }))

export async function bookkeepingStands(pool: pg.Pool, schema: string): Promise<boolean> {
  const tables = [...bookkeepingTables(schema), ...copyTables(schema)]
  const { rows } = await pool.query<{ stands: boolean }>(
    'select bool_and(to_regclass(format($1, schema, name)) is not null) as stands from unnest($2::text[], $3::text[]) t(schema, name)',
    ['%I.%I', tables.map((table) => table.schema), tables.map((table) => table.name)],
  )
  return rows[0]?.stands === true
}

/**
 * What stands between a sink and its tables; changes nothing.
 * @param mappingChanges what the tables were fed by and are no longer, as a claim would find it
 */
export async function checkSink(
  pool: pg.Pool,
  settings: PostgresSinkSettings,
  subject: string,
  mappingChanges: () => Promise<MillraceError | null>,
): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  const add = (level: Finding['level'], message: string, remedy?: string): void => {
    findings.push({ level, subject, message, ...(remedy !== undefined && { remedy }) })
  }
  try {
    const { rows } = await pool.query<{ version: number; standby: boolean }>(
      `select current_setting('server_version_num')::int as version, pg_is_in_recovery() as standby`,
    )
    const { version, standby } = rows[0] as { version: number; standby: boolean }
    if (version < MIN_VERSION) add('blocker', `the server is Postgres ${Math.floor(version / 10_000)}: a sink needs 14 or later`)
    if (standby) add('blocker', 'the server is a standby: it cannot be written to', 'give the address of the primary')
    const catalog = await readCatalog(pool, [
      ...settings.tables.map(({ into }) => into),
      ...bookkeepingTables(settings.schema),
      ...copyTables(settings.schema),
    ])
    checkBookkeeping(settings, catalog, add)
    await checkCopies(pool, settings, catalog, add)
    for (const table of settings.tables) checkTable(table, catalog.get(targetName(table)), add)
    const changed = findings.some(({ level }) => level === 'blocker') ? null : await mappingChanges()
    if (changed !== null) add('blocker', changed.message, changed.remedy)
  } catch (error) {
    const { message, remedy } = sinkError(error)
    add('blocker', message, remedy)
  }
  if (findings.length === 0)
    add('ok', `reaches its database; ${settings.tables.map(targetName).join(', ')}: columns, key and guard are there`)
  return findings
}

type Add = (level: Finding['level'], message: string, remedy?: string) => void

function checkBookkeeping({ schema }: PostgresSinkSettings, catalog: ReadonlyMap<string, CatalogTable>, add: Add): void {
  const missing = BOOKKEEPING.filter((name) => !catalog.has(`${schema}.${name}`))
  if (missing.length > 0)
    add('blocker', `its bookkeeping is missing (${missing.map((name) => `${schema}.${name}`).join(', ')})`, 'millrace init')
  for (const name of BOOKKEEPING) {
    const lacking = catalog.get(`${schema}.${name}`)?.lacking ?? []
    if (lacking.length > 0)
      add(
        'blocker',
        `the role may not ${lacking.join(', ')} on ${schema}.${name}`,
        `grant ${lacking.join(', ')} on ${schema}.${name} to …`,
      )
  }
}

/** What a replay needs is no blocker for live applying: it is warned of before the day that it is needed. */
async function checkCopies(
  pool: pg.Pool,
  { schema }: PostgresSinkSettings,
  catalog: ReadonlyMap<string, CatalogTable>,
  add: Add,
): Promise<void> {
  const wanted = 'replay, rebuild and verify need it'
  const making = copySchema(schema)
  const missing = copyTables(schema).filter(({ name }) => !catalog.has(`${making}.${name}`))
  if (missing.length > 0)
    return add('warning', `${missing.map(({ name }) => `${making}.${name}`).join(', ')} is missing: ${wanted}`, 'millrace init')
  for (const { name } of copyTables(schema)) {
    const lacking = catalog.get(`${making}.${name}`)?.lacking ?? []
    if (lacking.length > 0)
      add(
        'warning',
        `the role may not ${lacking.join(', ')} on ${making}.${name}: ${wanted}`,
        `grant ${lacking.join(', ')} on ${making}.${name} to …`,
      )
  }
  const { rows } = await pool.query<{ may: boolean }>(`select has_schema_privilege($1, 'create') as may`, [making])
  if (rows[0]?.may !== true)
    add(
      'warning',
      `the role may not make tables in the schema ${making}: ${wanted}`,
      `grant create on schema ${pg.escapeIdentifier(making)} to …`,
    )
}

function checkTable(table: TableSettings, found: CatalogTable | undefined, add: Add): void {
  const name = targetName(table)
  const quoted = `${pg.escapeIdentifier(table.into.schema)}.${pg.escapeIdentifier(table.into.name)}`
  if (found === undefined)
    return add('blocker', `there is no table ${name}, or the role may not see its schema`, `create table ${quoted} (…)`)
  if (found.lacking.length > 0)
    add(
      'blocker',
      `the role may not ${found.lacking.join(', ')} on ${name}`,
      `grant ${found.lacking.join(', ')} on ${quoted} to …`,
    )

  const missing = [...new Set([...table.key, ...Object.keys(table.columns)])].filter((column) => !found.columns.has(column))
  for (const column of missing) add('blocker', `${name} has no column ${column}`)
  if (table.key.every((column) => found.columns.has(column))) {
    const wanted = [...table.key].sort().join('\0')
    if (!found.uniqueKeys.some((key) => [...key].sort().join('\0') === wanted))
      add(
        'blocker',
        `${name} has no unique index on its key (${table.key.join(', ')}) that is whole and immediate`,
        `create unique index concurrently on ${quoted} (${table.key.map(pg.escapeIdentifier).join(', ')})`,
      )
    for (const column of table.key)
      if (!found.columns.get(column)?.notNull)
        add(
          'warning',
          `${name}.${column} is part of the key and may be null`,
          `alter table ${quoted} alter column ${pg.escapeIdentifier(column)} set not null`,
        )
  }
  checkGuard(table, found, quoted, add)

  const written = new Set(writtenColumns(table, found))
  const whole = Object.values(table.on).some((operation) => operation === 'upsert' || operation === 'append')
  for (const [column, { generated, notNull, hasDefault }] of found.columns) {
    if (generated && written.has(column))
      add('blocker', `${name}.${column} is made by the database and cannot be written`, `tables[…].columns: { ${column}: false }`)
    if (whole && notNull && !hasDefault && !generated && !written.has(column) && column !== GUARD_COLUMN)
      add('blocker', `${name}.${column} must not be null, has no default, and is not mapped`)
  }
}

function checkGuard(table: TableSettings, found: CatalogTable, quoted: string, add: Add): void {
  const name = targetName(table)
  if (table.guard === 'table' || isAppend(table)) return
  const guard = found.columns.get(GUARD_COLUMN)
  if (guard === undefined)
    return add(
      'blocker',
      `${name} has no column ${GUARD_COLUMN}, which keeps the position that each row shows`,
      `alter table ${quoted} add column ${GUARD_COLUMN} text collate "C"`,
    )
  if (guard.type !== 'text' || guard.collation !== 'C')
    add(
      'blocker',
      `${name}.${GUARD_COLUMN} is ${guard.type} collate "${guard.collation}": positions only sort in text collate "C"`,
      `alter table ${quoted} alter column ${GUARD_COLUMN} type text collate "C"`,
    )
}
