import pg from 'pg'
import type { CompareOptions, Comparison, Difference, DifferenceKind, Reach } from '../../../src/core/copy.ts'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Position } from '../../../src/core/position.ts'
import type { CopyTarget } from './copy-tables.ts'
import { DIFFERENCES_PARAMETERS, differencesSql, type Schemas, type TargetSql, targetSql } from './differences.ts'
import { textArray } from './transaction.ts'

/** Who asks, and about which target. */
export interface Compared {
  readonly sink: string
  readonly schemas: Schemas
  readonly target: CopyTarget
  /** the one that feeds it; null: none has yet */
  readonly source: string | null
}

/**
 * The keys of a target are looked at in passes, each in an order of its own: the rows on either side; where only the
 * copy's keys count, those that it has deleted; last those that are folded apart and have no row. Of a selection, its
 * keys are the one pass.
 */
const PASSES = ['rows', 'gone', 'apart'] as const
type Pass = (typeof PASSES)[number]

interface Cursor {
  readonly pass: Pass
  /** the last key looked at, as a text a column (`rows`) or as one text; null: none yet */
  readonly after: string | readonly string[] | null
}

interface Row {
  readonly looked: number
  readonly keys: number
  readonly last: string | null
  readonly key: string | null
  readonly kind: DifferenceKind
  readonly folded: string | null
  readonly shown: string | null
  readonly written: readonly string[] | null
  readonly outmarked: boolean
}

export interface Found extends Difference {
  /** the columns that the stream has written; null: all */
  readonly written: readonly string[] | null
  /** a delete marker stands above the folded row */
  readonly outmarked: boolean
}

const id = pg.escapeIdentifier

export async function compareNext(
  client: pg.ClientBase,
  compared: Compared,
  selected: boolean,
  after: string | null,
  { limit, reach }: CompareOptions,
): Promise<Comparison> {
  const cursor: Cursor = after === null ? { pass: 'rows', after: null } : (JSON.parse(after) as Cursor)
  const both = reach !== null && !selected
  if (after === null) await requireKeys(client, compared, both)
  const look = cursor.pass === 'rows' ? lookAtRows : lookAtTexts
  const { found, last } = await look(client, compared, { selected, both, cursor, limit, reach })
  const passes = selected ? (['rows'] as const) : both ? (['rows', 'apart'] as const) : PASSES
  const following = last === null ? passes[passes.indexOf(cursor.pass as 'rows') + 1] : cursor.pass
  return {
    next: following === undefined ? null : JSON.stringify({ pass: following, after: last } satisfies Cursor),
    keys: found.keys,
    differences: found.differences,
  }
}

/**
 * A key of which a part is null is none: each event about it makes another row.
 * @throws MILLRACE_REPLAY_REFUSED
 */
async function requireKeys(client: pg.ClientBase, { target, schemas, sink }: Compared, both: boolean): Promise<void> {
  const sql = targetSql(target, schemas)
  const nulls = `(${target.key.map(({ name }) => `${id(name)} is null`).join(' or ')})`
  const { rows: nullable } = await client.query<{ nullable: boolean }>(
    `select bool_or(not attnotnull) as nullable from pg_attribute where attrelid = $1::regclass and attname = any($2::text[])`,
    [sql.table, target.key.map(({ name }) => name)],
  )
  if (nullable[0]?.nullable !== true) return
  for (const table of both ? [sql.rows, sql.table] : [sql.rows]) {
    const { rows } = await client.query<{ found: boolean }>(`select exists (select from ${table} where ${nulls}) as found`)
    if (rows[0]?.found === true)
      throw new MillraceError(
        'MILLRACE_REPLAY_REFUSED',
        `${target.target.name} has rows ${table === sql.rows ? 'to be made ' : ''}whose key (${target.key.map(({ name }) => name).join(', ')}) is null in part: no event reaches them again, and they cannot be compared`,
        { remedy: 'remove them, and make the columns of the key not null', fields: { sink, table: target.target.name } },
      )
  }
}

interface Look {
  readonly selected: boolean
  /** the replica's keys are looked for too */
  readonly both: boolean
  readonly cursor: Cursor
  readonly limit: number
  readonly reach: Reach | null
}

interface Looked {
  readonly found: { readonly keys: number; readonly differences: readonly Found[] }
  /** null: the pass has ended */
  readonly last: Cursor['after']
}

/** A chunk in the order of the key: first where it ends, then all between, on both sides. */
async function lookAtRows(
  client: pg.ClientBase,
  compared: Compared,
  { selected, both, cursor, limit, reach }: Look,
): Promise<Looked> {
  const { target, schemas } = compared
  const sql = targetSql(target, schemas)
  const tables = selected ? [sql.selection] : both ? [sql.rows, sql.table] : [sql.rows]
  const begin = cursor.after as readonly string[] | null
  const above = begin === null ? '' : ` and ${bound(sql, target, '>', 0)}`
  const { rows } = await client.query<{ key: readonly string[] }>(
    `select json_build_array(${target.key.map(({ name }) => `${id(name)}::text`).join(', ')}) as key from (
${tables.map((table) => `(select ${sql.key()} from ${table} where ${notNull(target)}${above} order by ${sql.key()} limit ${limit})`).join('\nunion\n')}
) u order by ${sql.key()} offset ${limit - 1} limit 1`,
    [...(begin ?? [])],
  )
  const end = rows[0]?.key ?? null
  const from = DIFFERENCES_PARAMETERS
  const within = `${notNull(target)}${begin === null ? '' : ` and ${bound(sql, target, '>', from)}`}${end === null ? '' : ` and ${bound(sql, target, '<=', from + (begin?.length ?? 0))}`}`
  const keys = `keys as materialized (
  select *, null::text as asked, null::text as asked_shown from (
${tables.map((table) => `    select ${target.key.map(({ name }, index) => `${id(name)} as c${index}`).join(', ')} from ${table} where ${within}`).join('\n    union\n')}
  ) u
)`
  return { found: await ask(client, compared, reach, keys, [...(begin ?? []), ...(end ?? [])]), last: end }
}

/** Keys without a row in the copy, by their texts in its markers or apart from it. */
async function lookAtTexts(client: pg.ClientBase, compared: Compared, { both, cursor, limit, reach }: Look): Promise<Looked> {
  const { schemas } = compared
  const table = `${id(schemas.copy)}.${cursor.pass === 'gone' ? 'deleted' : 'apart'}`
  const [after, at] = [DIFFERENCES_PARAMETERS + 1, DIFFERENCES_PARAMETERS + 2]
  const keys = `texts as materialized (
  select x.key from ${table} x where x.sink = $1 and x.target = $2 and ($${after}::text is null or x.key > $${after}) order by x.key limit $${at}
), keys as (
  select ${typedKey(compared, 'texts.key')}, null::text as asked, null::text as asked_shown from texts
)`
  const unseen = cursor.pass === 'gone' ? 'not copied' : both ? 'not copied and not there' : 'not copied and gone is null'
  const found = await ask(client, compared, reach, keys, [cursor.after as string | null, limit], unseen)
  return { found, last: found.looked < limit ? null : found.last }
}

/** Looks at keys again. `asked`: whether what was found before may be believed, where the reach is not known. */
export async function lookAgain(
  client: pg.ClientBase,
  compared: Compared,
  keys: readonly Difference[],
  reach: Reach | 'asked' | null,
): Promise<readonly Found[]> {
  const asked = JSON.stringify(keys.map(({ key, kind, shown }) => ({ key, kind, shown })))
  const listed = `keys as materialized (
  select ${typedKey(compared, 'x.key')}, x.kind as asked, x.shown as asked_shown
  from json_to_recordset($${DIFFERENCES_PARAMETERS + 1}::json) as x(key text, kind text, shown text)
)`
  return (await ask(client, compared, reach, listed, [asked])).differences
}

async function ask(
  client: pg.ClientBase,
  compared: Compared,
  reach: Reach | 'asked' | null,
  keys: string,
  values: readonly unknown[],
  where?: string,
): Promise<{
  readonly looked: number
  readonly keys: number
  readonly last: string | null
  readonly differences: readonly Found[]
}> {
  const { target, schemas } = compared
  const { rows } = await client.query<Row>(differencesSql(target, schemas).over(keys, where), [
    ...aboutTarget(compared),
    reach === null ? null : reach === 'asked' ? 'asked' : reach.values === true ? 'values' : reach.whole ? 'whole' : 'since',
    reach === null || reach === 'asked' || compared.source === null ? null : (reach.since.get(compared.source) ?? null),
    ...values,
  ])
  const differences = rows.flatMap(({ key, kind, folded, shown, written, outmarked }) =>
    key === null
      ? []
      : [
          {
            target: target.target.name,
            key,
            kind,
            folded: folded as Position | null,
            shown: shown as Position | null,
            written,
            outmarked,
          },
        ],
  )
  const { looked = 0, keys: counted = 0, last = null } = rows[0] ?? {}
  return { looked, keys: counted, last, differences }
}

/** $1 to $4 of whatever is asked about a target */
export function aboutTarget({ sink, target, source }: Compared): readonly (string | null)[] {
  return [sink, target.target.name, textArray(target.topics), source]
}

/** typed key columns of a key's text, as guards and markers write it */
export function typedKey({ target, schemas }: Pick<Compared, 'target' | 'schemas'>, text: string): string {
  return targetSql(target, schemas).typed(target.key.length === 1 ? () => text : (index) => `${text}::json->>${index}`)
}

function bound({ key }: TargetSql, target: CopyTarget, operator: '>' | '<=', before: number): string {
  return `(${key()}) ${operator} (${target.key.map(({ type }, index) => `$${before + index + 1}::text::${type}`).join(', ')})`
}

function notNull({ key }: CopyTarget): string {
  return key.map(({ name }) => `${id(name)} is not null`).join(' and ')
}

/** @param why it matters: nothing was written */
export function copyBehind({ sink, target }: Compared, why: string): MillraceError {
  return new MillraceError(
    'MILLRACE_COPY_BEHIND',
    `the sink ${sink} has gone on beyond what is folded of ${target.target.name}, and ${why}; nothing was written`,
    { fields: { sink, table: target.target.name } },
  )
}
