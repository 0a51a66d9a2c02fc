import { MillraceError } from '../core/errors.ts'
import type { ChunkTransaction } from './backfill-database.ts'
import type { Statement } from './statement.ts'

/** Which rows are read. Their order is that of the key, and nobody can ask for another. */
export interface BackfillSelect {
  /** `orders`, `sales.orders`, or the two names apart where they hold dots or capitals */
  readonly table: string | { readonly schema: string; readonly name: string }
  /** columns that are unique together and never null; default: the primary key */
  readonly key?: readonly string[]
  /** what `toEvent` gets: column names, or SQL by the name that it gets there; default: every column */
  readonly columns?: readonly string[] | Readonly<Record<string, string>>
  /** SQL: which rows; `$1` … are `values` */
  readonly where?: string
  readonly values?: readonly unknown[]
}

/** The statements of one backfill. Identifiers are escaped; `where` and the SQL of columns are the developer's own. */
export interface BackfillTable {
  /** tells one selection from another */
  readonly definition: string
  /** rows, as the server's statistics guess; null: it does not know */
  readonly estimate: number | null
  /** the key of the last of the next rows, in `last`; no row: there are none left */
  upTo(after: readonly string[] | null, rows: number): Statement
  /** the rows between the two keys, locked, each with its key in `millracekey` */
  locked(after: readonly string[] | null, last: readonly string[]): Statement
}

/** as no plugin of a client renames it */
export const KEY = 'millracekey'

/**
 * Looks the table up.
 * @throws MILLRACE_USAGE for what is no table, and for a key that does not tell its rows apart
 */
export async function backfillTable({ rows }: ChunkTransaction, select: BackfillSelect): Promise<BackfillTable> {
  const name = typeof select.table === 'string' ? parseName(select.table) : select.table
  const from = `${name.schema === null ? '' : `${quoted(name.schema)}.`}${quoted(name.name)}`
  const shown = from
  const [table] = await rows({
    text: `select oid::text as oid, relkind::text as kind, reltuples::float8 as estimate from pg_catalog.pg_class where oid = to_regclass($1::text)`,
    values: [from],
  })
  if (table === undefined) throw usage(`there is no table ${shown}, or the role may not see it`)
  if (table['kind'] !== 'r' && table['kind'] !== 'p')
    throw usage(`${shown} is no table: its rows could not be locked while they become events`)
  const columns = await rows({ text: COLUMNS, values: [String(table['oid'])] })
  const indexes = await rows({ text: UNIQUE, values: [String(table['oid'])] })
  const unique = indexes.map((index) => ({ primary: index['primary'] === true, columns: String(index['columns']).split(' ') }))
  const numberOf = (column: string): string => {
    const found = columns.find((one) => one['name'] === column)
    if (found === undefined) throw usage(`${shown} has no column ${JSON.stringify(column)}`)
    return String(found['number'])
  }
  const key = select.key?.map(numberOf) ?? unique.find(({ primary }) => primary)?.columns
  if (key === undefined || key.length === 0)
    throw usage(`${shown} has no primary key: name columns that are unique together in key`)
  // what is not unique would be cut in two where a chunk ends, and what is null stands in no order
  if (!unique.some((index) => index.columns.every((number) => key.includes(number))))
    throw usage(
      `${shown}: the key ${select.key?.join(', ')} is not unique and not null, as a primary key or a unique index tells`,
    )

  const keyed = key.map((number) => {
    const column = columns.find((one) => String(one['number']) === number)
    return { name: `${quoted(name.name)}.${quoted(String(column?.['name']))}`, type: String(column?.['type']) }
  })
  const keys = keyed.map(({ name }) => name).join(', ')
  const { where, values = [] } = select
  const asked = where === undefined ? [] : [`(${where}\n)`]
  const compared = (operator: string, first: number): string =>
    `(${keys}) ${operator} (${keyed.map(({ type }, index) => `cast($${first + index}::text as ${type})`).join(', ')})`
  const conditions = (parts: readonly string[]): string => (parts.length === 0 ? '' : ` where ${parts.join(' and ')}`)
  const texts = `json_build_array(${keyed.map(({ name }) => `${name}::text`).join(', ')})::text`
  const estimate = Number(table['estimate'])

  return {
    definition: `${from} by ${keyed.map(({ name }) => name).join(', ')}${where === undefined ? '' : ` where ${where} ${JSON.stringify(values, bigints)}`}`,
    estimate: estimate < 0 ? null : estimate,
    upTo(after, count) {
      const parts = [...asked, ...(after === null ? [] : [compared('>', values.length + 1)])]
      const directions = (direction: string): string => keyed.map((_, index) => `k${index} ${direction}`).join(', ')
      const named = keyed.map(({ name }, index) => `${name} as k${index}`).join(', ')
      return {
        text:
          `select json_build_array(${keyed.map((_, index) => `k${index}::text`).join(', ')})::text as last ` +
          `from (select ${named} from ${from}${conditions(parts)} order by ${keys} limit ${count}) as chunk ` +
          `order by ${directions('desc')} limit 1`,
        values: [...values, ...(after ?? [])],
      }
    },
    locked(after, last) {
      const parts = [
        ...asked,
        ...(after === null ? [] : [compared('>', values.length + 1)]),
        compared('<=', values.length + (after?.length ?? 0) + 1),
      ]
      // sorted when they are locked, so that two who lock many rows take them in one order
      return {
        text: `select ${selected(select, name.name)}, ${texts} as ${KEY} from ${from}${conditions(parts)} order by ${keys} for share`,
        values: [...values, ...(after ?? []), ...last],
      }
    },
  }
}

const COLUMNS = `select attname as name, attnum::text as number, pg_catalog.format_type(atttypid, null) as type
  from pg_catalog.pg_attribute where attrelid = $1::oid and attnum > 0 and not attisdropped`

/** whole, enforced at once, over columns that are never null */
const UNIQUE = `select i.indisprimary as primary, array_to_string(i.indkey::int2[], ' ') as columns
  from pg_catalog.pg_index i
  where i.indrelid = $1::oid and i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null and i.indexprs is null
    and i.indnatts = i.indnkeyatts
    and not exists (
      select from pg_catalog.pg_attribute a where a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[]) and not a.attnotnull
    )`

function selected({ columns }: BackfillSelect, table: string): string {
  if (columns === undefined) return `${quoted(table)}.*`
  const entries = Array.isArray(columns)
    ? (columns as readonly string[]).map((column) => [column, `${quoted(table)}.${quoted(column)}`] as const)
    : Object.entries(columns)
  if (entries.length === 0) throw usage('columns is empty: toEvent would get nothing')
  return entries.map(([name, sql]) => `(${sql}\n) as ${quoted(name)}`).join(', ')
}

/** unquoted names, folded as Postgres folds them */
function parseName(text: string): { readonly schema: string | null; readonly name: string } {
  const parts = text.split('.').map((part) => part.toLowerCase())
  if (parts.length > 2 || parts.some((part) => !/^[a-z_][a-z0-9_$]*$/.test(part)))
    throw usage(`table ${JSON.stringify(text)}: expected a name such as sales.orders`, 'write any other name as { schema, name }')
  const [first = '', second] = parts
  return second === undefined ? { schema: null, name: first } : { schema: first, name: second }
}

function quoted(name: string): string {
  if (typeof name !== 'string' || name === '' || name.includes('\0')) throw usage(`${JSON.stringify(name)} is no name of SQL`)
  return `"${name.replaceAll('"', '""')}"`
}

const bigints = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value)

const usage = (message: string, remedy?: string): MillraceError =>
  new MillraceError('MILLRACE_USAGE', `backfill: ${message}`, remedy === undefined ? {} : { remedy })
