import pg from 'pg'
import type { TableName } from './options.ts'
import { publicationStatement } from './publication.ts'

/**
 * - `owner` owns the schema and the publication. It connects for migrations only.
 * - `relay` reads the stream, keeps its state, and deletes what was relayed. It owns nothing and writes no event.
 * - `writer` writes events and reads none, and keeps what it backfills. A role to be granted to services' own.
 * - `sink` writes to the replica and keeps its checkpoints there.
 */
export type DatabaseRole = 'owner' | 'relay' | 'writer' | 'sink'

export interface RoleSqlOptions {
  /** the pipeline's name */
  readonly name: string
  /** the role in the database; default: `millrace_relay`, `millrace_writer`, `millrace_sink` */
  readonly role?: string | undefined
  /** what comes first: the migrations (`owner`), the bookkeeping tables (`sink`) */
  readonly statements?: string | undefined
  /** default: `millrace_<name>` */
  readonly publication?: string | undefined
  /** default: `millrace.outbox` */
  readonly outbox?: TableName | undefined
  /** `sink`: where its bookkeeping is; default: `millrace` */
  readonly schema?: string | undefined
  /** `sink`: the tables that it applies to */
  readonly tables?: readonly TableName[] | undefined
  /** `sink`: a schema of Millrace's own where it makes tables, for replays */
  readonly making?: string | undefined
}

const OUTBOX: TableName = { schema: 'millrace', name: 'outbox' }

/**
 * What a role of the database needs and nothing beyond it, as one transaction, for a person or a migration tool to run:
 * `owner` and `sink` as the future owner, `relay` and `writer` as one who may create roles. A slot is never made here:
 * that does not belong into a transaction, nor into a migration.
 */
export function roleSql(kind: DatabaseRole, options: RoleSqlOptions): string {
  const role = options.role ?? `millrace_${kind}`
  const outbox = options.outbox ?? OUTBOX
  const statements: readonly string[] = {
    owner: () => ownerStatements(options, outbox),
    relay: () => relayStatements(role, outbox),
    writer: () => writerStatements(role),
    sink: () => sinkStatements(role, options),
  }[kind]()
  return `begin;\n\n${statements.join('\n')}\n\ncommit;\n`
}

function ownerStatements(
  { name, publication = `millrace_${name}`, statements }: RoleSqlOptions,
  table: TableName,
): readonly string[] {
  return [
    ...own(statements),
    '-- committed before the slot is made, which "millrace init" does: rows from before a publication are not relayed',
    `${publicationStatement({ publication, table }, false)};`,
  ]
}

function relayStatements(role: string, outbox: TableName): readonly string[] {
  const to = identifier(role)
  return [
    createRole(role, 'login'),
    '-- reads every published row of the cluster: keep this role for the relay alone',
    replication(role),
    `grant usage on schema millrace${outbox.schema === 'millrace' ? '' : `, ${identifier(outbox.schema)}`} to ${to};`,
    `grant select, delete on table ${table(outbox)} to ${to};`,
    `grant select, insert, update on table millrace.relay_state to ${to};`,
    `grant select on table millrace.migrations to ${to};`,
  ]
}

function writerStatements(role: string): readonly string[] {
  const to = identifier(role)
  return [
    createRole(role, 'nologin'),
    `grant usage on schema millrace to ${to};`,
    `grant insert on table millrace.outbox to ${to};`,
    `grant select, insert, update, delete on table millrace.backfill to ${to};`,
    `grant execute on function millrace.emit, millrace.tombstone, millrace.new_id to ${to};`,
    // not by its name: a line break in it would end the comment
    '-- for each service: grant this role to the role of the service',
  ]
}

function sinkStatements(
  role: string,
  { statements, schema = 'millrace', tables = [], making }: RoleSqlOptions,
): readonly string[] {
  const to = identifier(role)
  const written = [{ schema, name: 'checkpoint' }, { schema, name: 'deleted' }, ...tables]
  const schemas = [...new Set(written.map((each) => each.schema))]
  return [
    ...own(statements),
    createRole(role, 'login'),
    `grant usage on schema ${schemas.map(identifier).join(', ')} to ${to};`,
    `grant select, insert, update, delete on table ${written.map(table).join(', ')} to ${to};`,
    ...(making === undefined ? [] : [`grant create on schema ${identifier(making)} to ${to};`]),
  ]
}

const own = (statements: string | undefined): readonly string[] => (statements === undefined ? [] : [`${statements.trim()}\n`])

const identifier = (name: string): string => pg.escapeIdentifier(name)
const table = ({ schema, name }: TableName): string => `${identifier(schema)}.${identifier(name)}`

/** A role that is there stays as it is. Passwords are set by a person: `\password` of psql keeps them out of logs. */
function createRole(role: string, login: 'login' | 'nologin'): string {
  return block(
    `if not exists (select from pg_catalog.pg_roles where rolname = ${pg.escapeLiteral(role)}) then`,
    `  create role ${identifier(role)} ${login};`,
    'end if;',
  )
}

/** Only a superuser gives the attribute; services that keep superuser to themselves lend it as a role. */
function replication(role: string): string {
  return block(
    "if exists (select from pg_catalog.pg_roles where rolname = 'rds_replication') then",
    `  grant rds_replication to ${identifier(role)};`,
    `elsif not (select rolreplication from pg_catalog.pg_roles where rolname = ${pg.escapeLiteral(role)}) then`,
    `  alter role ${identifier(role)} replication;`,
    'end if;',
  )
}

function block(...lines: readonly string[]): string {
  const body = ['begin', ...lines.map((line) => `  ${line}`), 'end'].join('\n')
  let tag = '$millrace$'
  // a role's name may hold anything
  while (body.includes(tag)) tag = `${tag.slice(0, -1)}_$`
  return `do ${tag}\n${body}\n${tag};`
}
