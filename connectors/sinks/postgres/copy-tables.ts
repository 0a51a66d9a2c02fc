import { createHash } from 'node:crypto'
import pg from 'pg'
import type { CopyShape } from '../../../src/core/copy.ts'
import { topicOf } from '../../../src/core/topic-template.ts'
import type { Feed, MappedColumn, Target } from './mapping.ts'
import { GUARD_COLUMN } from './options.ts'
import { BEGUN_COLUMN, type CopiedRows, WRITTEN_COLUMN } from './statements.ts'

/**
 * Where a copy is: in a schema beside the sink's bookkeeping, that holds nothing else, so that only there the sink's role
 * needs the right to create tables. Each target of a sink has a table of rows there, of the columns that events write,
 * and one of the keys that were selected. Checkpoints and markers are kept in tables of the bookkeeping's own shape
 * (`ddl.ts`), so that a lane works on them as it does on the sink's own.
 *
 * Rows, checkpoints and markers are unlogged: a crash of the server empties all of them together, so that no checkpoint
 * outlives the rows it stands for. The selection is logged: it cannot be folded again.
 */
export interface CopyTarget {
  /** the sink's own */
  readonly target: Target
  readonly topics: readonly string[]
  /** the columns that events of any feed write, the key's first */
  readonly columns: readonly MappedColumn[]
  /** in the order that guards and markers write the key */
  readonly key: readonly MappedColumn[]
  /** some events write a part of a row */
  readonly parts: boolean
  /** some events are partial writes of rows whose beginning they do not tell */
  readonly merges: boolean
  /** of the copy's schema */
  readonly rows: string
  readonly selection: string
}

const id = pg.escapeIdentifier

/** what a name in Postgres holds (bytes) */
const NAME_BYTES = 63

/** The schema of copies, beside the one of the bookkeeping. */
export function copySchema(schema: string): string {
  const name = `${schema}_copy`
  return Buffer.byteLength(name) <= NAME_BYTES ? name : `millrace_copy_${digest(schema)}`
}

export function copyTargets(feeds: readonly Feed[], sink: string, template: string): readonly CopyTarget[] {
  return [...Map.groupBy(feeds, ({ target }) => target)].map(([target, own]) => {
    const columns = new Map(own.flatMap((feed) => feed.columns.map((column) => [column.name, column] as const)))
    const inKey = (own[0] as Feed).columns.filter((column) => column.inKey)
    const merges = own.some(({ operations }) => [...operations.values()].includes('merge'))
    const name = `${prefixOf(sink)}${digest(target.name)}`
    return {
      target,
      topics: [...new Set(own.map(({ from }) => topicOf(template, from)))].sort(),
      columns: [...inKey, ...[...columns.values()].filter((column) => !column.inKey)],
      key: inKey,
      parts: merges || own.some((feed) => feed.columns.length < columns.size),
      merges,
      rows: `${name}_rows`,
      selection: `${name}_selection`,
    }
  })
}

/** The feed on its way into the copy: the same mapping, into the copy's table, which keeps the position of every row. */
export function copiedFeed(feed: Feed, targets: readonly CopyTarget[], schema: string): Feed {
  const { rows } = targets.find(({ target }) => target === feed.target) as CopyTarget
  return { ...feed, target: { ...feed.target, schema, table: rows, guard: 'column' } }
}

export function copiedRows(
  feed: Feed,
  targets: readonly CopyTarget[],
  schema: string,
  { topic, partition }: { readonly topic: string; readonly partition: number },
): CopiedRows {
  const { columns, parts } = targets.find(({ target }) => target.name === feed.target.name) as CopyTarget
  return {
    columns: parts ? columns.map(({ name }) => name) : null,
    whole: `(select coalesce(bool_or(c.whole), false) from ${id(schema)}.checkpoint c where c.sink = $2 and c.topic = ${pg.escapeLiteral(topic)} and c.partition = ${partition})`,
  }
}

/** The tables of a new copy. */
export function createTablesSql(targets: readonly CopyTarget[], schema: string, shape: CopyShape): readonly string[] {
  return targets.flatMap((target) => {
    const from = `${id(target.target.schema)}.${id(target.target.table)}`
    const key = target.key.map(({ name }) => id(name)).join(', ')
    const rows = `${id(schema)}.${id(target.rows)}`
    const selection = `${id(schema)}.${id(target.selection)}`
    return [
      ...(shape === 'rows'
        ? [rowsSql(target, rows, from), `create unique index on ${rows} (${key})`]
        : tableSql(target, rows, from)),
      `comment on table ${rows} is ${pg.escapeLiteral(`Millrace folds ${target.target.name} here, for a replay, a rebuild or a verification`)}`,
      `create table ${selection} as select ${key} from ${from} with no data`,
      `create unique index on ${selection} (${key})`,
    ]
  })
}

/** Only its key holds a row: what else the target demands is asked when rows are written to it. */
function rowsSql({ columns, parts }: CopyTarget, rows: string, from: string): string {
  const own = [
    `null::text collate "C" as ${id(GUARD_COLUMN)}`,
    ...(parts ? [`null::text[] as ${id(WRITTEN_COLUMN)}`, `true as ${id(BEGUN_COLUMN)}`] : []),
  ]
  return `create unlogged table ${rows} as select ${[...columns.map(({ name }) => id(name)), ...own].join(', ')} from ${from} with no data`
}

/** A table as the target is, to take its place: logged, as it will be then. */
function tableSql({ parts }: CopyTarget, rows: string, from: string): readonly string[] {
  return [
    `create table ${rows} (like ${from} including all)`,
    `alter table ${rows} add column if not exists ${id(GUARD_COLUMN)} text collate "C"`,
    ...(parts
      ? [`alter table ${rows} add column ${id(WRITTEN_COLUMN)} text[], add column ${id(BEGUN_COLUMN)} boolean default true`]
      : []),
  ]
}

/** What a swap puts aside: no table of a copy, so that it stays when the copy ends. */
export function asideName(sink: string, target: string): string {
  return `${asidePrefix(sink)}${digest(target)}`
}

export function asidePrefix(sink: string): string {
  return `aside_${digest(sink)}_`
}

/** The tables whose names begin so: all that a sink has, of a mapping that was there before too. */
export async function tablesOf(client: pg.Pool | pg.ClientBase, schema: string, prefix: string): Promise<readonly string[]> {
  const { rows } = await (client as pg.Pool).query<{ name: string }>(
    `select c.relname as name from pg_class c join pg_namespace s on s.oid = c.relnamespace
     where s.nspname = $1 and c.relkind = 'r' and starts_with(c.relname, $2) order by c.relname`,
    [schema, prefix],
  )
  return rows.map(({ name }) => `${id(schema)}.${id(name)}`)
}

/** the tables of {@link copySchema} that all sinks share */
export const SHARED_TABLES = ['checkpoint', 'deleted', 'target', 'parked', 'apart'] as const

/** Of the shared tables, what belongs to the copy of the sink. */
export function emptySharedSql(schema: string): readonly string[] {
  return SHARED_TABLES.map((table) => `delete from ${id(schema)}.${table} where sink = $1`)
}

export const prefixOf = (sink: string): string => `${digest(sink)}_`

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}
