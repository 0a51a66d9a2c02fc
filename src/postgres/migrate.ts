import { readdir, readFile } from 'node:fs/promises'
import type pg from 'pg'
import { MillraceError } from '../core/errors.ts'

/** A file of `migrations/`: plain SQL that records itself in `millrace.migrations`. */
export interface Migration {
  readonly version: number
  readonly name: string
  readonly sql: string
}

export interface MigrationOptions {
  /**
   * the most bytes that payload and headers of an event may have together, 1 KiB to 1 GiB; below the queue's own limit,
   * of which key, type and Millrace's headers need up to 4 KiB. Default: what stands, in a new database 1,000,000
   */
  readonly maxEventBytes?: number | undefined
}

type Client = Pick<pg.ClientBase, 'query'>

/** beside the sources and beside the build alike */
const FOLDER = new URL('../../migrations/', import.meta.url)
const FILE = /^(\d{4})_([a-z0-9_]+)\.sql$/

/** All migrations of this package, oldest first. */
export async function readMigrations(): Promise<readonly Migration[]> {
  const files = (await readdir(FOLDER)).filter((file) => FILE.test(file)).sort()
  return Promise.all(
    files.map(async (file) => {
      const [, version, name] = FILE.exec(file) as unknown as [string, string, string]
      return { version: Number(version), name, sql: await readFile(new URL(file, FOLDER), 'utf8') }
    }),
  )
}

/** Of the last migration that the database has; 0: none. */
export async function schemaVersion(client: Client): Promise<number> {
  const { rows } = await client.query("select to_regclass('millrace.migrations') is not null as known")
  if (!rows[0].known) return 0
  const versions = await client.query('select coalesce(max(version), 0) as version from millrace.migrations')
  return versions.rows[0].version
}

/**
 * What the database lacks, oldest first.
 * @throws MILLRACE_SCHEMA_OUTDATED when the database is newer than this package
 */
export async function pendingMigrations(client: Client): Promise<readonly Migration[]> {
  const migrations = await readMigrations()
  const version = await schemaVersion(client)
  const newest = migrations.at(-1)?.version ?? 0
  if (version > newest)
    throw new MillraceError(
      'MILLRACE_SCHEMA_OUTDATED',
      `the schema millrace is at version ${version}, this package knows it up to ${newest}`,
      { remedy: 'upgrade the millrace package: migrations only go forward' },
    )
  return migrations.filter((migration) => migration.version > version)
}

/**
 * Brings the schema to this package's version, in one transaction of its own and one caller at a time, and returns what
 * it applied. The role becomes the owner. Safe to repeat.
 * @throws MILLRACE_SCHEMA_OUTDATED when the database is newer than this package; MILLRACE_CONFIG_INVALID
 */
export async function migrate(client: Client, options: MigrationOptions = {}): Promise<readonly Migration[]> {
  const { maxEventBytes } = options
  if (maxEventBytes !== undefined) requireEventLimit(maxEventBytes)
  await client.query('begin')
  try {
    // writers queue behind whatever waits for their table: not for longer than this
    await client.query("set local lock_timeout = '5s'")
    await client.query("select pg_advisory_xact_lock(hashtextextended('millrace.migrate', 0))")
    const pending = await pendingMigrations(client)
    for (const { sql } of pending) await client.query(sql)
    if (maxEventBytes !== undefined && (await eventLimit(client)) !== maxEventBytes)
      await client.query(eventLimitSql(maxEventBytes))
    await client.query('commit')
    return pending
  } catch (error) {
    await client.query('rollback').catch(() => {})
    throw error
  }
}

/** The migrations after `after` as text for any other tool, to be run inside one transaction. */
export async function migrationSql(options: MigrationOptions & { readonly after?: number | undefined } = {}): Promise<string> {
  const { after = 0, maxEventBytes } = options
  const parts = (await readMigrations()).filter(({ version }) => version > after).map(({ sql }) => sql.trim())
  if (maxEventBytes !== undefined) parts.push(eventLimitSql(requireEventLimit(maxEventBytes)))
  return `${parts.join('\n\n')}\n`
}

/** The limit that stands in the database (bytes of payload and headers together); null without the outbox. */
export async function eventLimit(client: Client): Promise<number | null> {
  const { rows } = await client.query(
    "select pg_get_constraintdef(oid) as definition from pg_constraint where conrelid = to_regclass('millrace.outbox') and conname = 'outbox_event'",
  )
  const limit = /, (\d+)\)/.exec(rows[0]?.definition ?? '')?.[1]
  return limit === undefined ? null : Number(limit)
}

/** Rows that are there are not looked at again: the table is locked for a moment only. */
function eventLimitSql(maxEventBytes: number): string {
  return `alter table millrace.outbox
  drop constraint outbox_event,
  add constraint outbox_event check (
    millrace.check_event(aggregate_type, aggregate_id, type, payload, headers, ordering_key, version, ${maxEventBytes})
  ) not valid;`
}

function requireEventLimit(bytes: number): number {
  if (Number.isSafeInteger(bytes) && bytes >= 1_024 && bytes <= 1_073_741_824) return bytes
  throw new MillraceError('MILLRACE_CONFIG_INVALID', `source.outbox.maxEventBytes is ${bytes}: expected 1024 to 1073741824 bytes`)
}
