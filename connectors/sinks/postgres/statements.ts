import { createHash } from 'node:crypto'
import pg from 'pg'
import type { Feed, MappedColumn } from './mapping.ts'
import { GUARD_COLUMN } from './options.ts'

/**
 * The statements that write rows of a table, set-based. Each takes $1, the rows as JSON; $2, the sink's name; $3, the
 * target's. In the JSON: `p` position, `o` operation (`u` write, `d` delete), `k` the aggregate id, `a` the key as the
 * payload says it, and the columns by their index in the feed.
 *
 * Rows are sorted by key, so that two transactions that write the same rows take their locks in one order.
 */
export interface StatementText {
  /** of the prepared statement: at most 63 bytes, Postgres cuts the rest. Null: not kept */
  readonly name: string | null
  readonly text: string
}

export interface FeedStatements {
  /** rows with `guard: table`: takes their positions, first; null with `guard: column` */
  readonly guard: StatementText | null
  /** writes and deletes, folded: of one key the last row holds */
  readonly write: StatementText
  /** new rows only, in the order given; for `append` */
  readonly append: StatementText
  /** partial writes of rows that have exactly the given columns, one row a key */
  merge(present: readonly number[]): StatementText
}

/** sets of present columns whose statements are kept, per feed */
const MAX_MERGES = 50

const id = pg.escapeIdentifier

/** What the rows of a copy say of themselves beside their values (`copy-tables.ts`). */
export interface CopiedRows {
  /** the columns that events of any feed write; null: each event writes all of them, or none, and nothing is kept */
  readonly columns: readonly string[] | null
  /** SQL: whether the partition is folded from its very first record on */
  readonly whole: string
}

/** In a copy's rows that are written by parts: the columns that were written (null: all), and whether the fold knows how the row began. */
export const WRITTEN_COLUMN = '_millrace_written'
export const BEGUN_COLUMN = '_millrace_begun'

/** A row's key in guards and markers; `texts` are SQL, a key column each. */
export function keyAsText(texts: readonly string[]): string {
  return texts.length === 1 ? (texts[0] as string) : `json_build_array(${texts.join(', ')})::text`
}

/** @param copied the rows are those of a copy: null for the replica's own */
export function feedStatements(feed: Feed, schema: string, copied: CopiedRows | null = null): FeedStatements {
  const table = `${id(feed.target.schema)}.${id(feed.target.table)}`
  const book = { deleted: `${id(schema)}.deleted`, guard: `${id(schema)}.guard` }
  const { columns, target } = feed
  const inColumn = target.guard === 'column'
  const keys = columns.flatMap((column, index) => (column.inKey ? [index] : []))
  const keyText = keyAsText(keys.map((index) => `e.c${index}::text`))
  const order = keys.map((index) => `c${index}`).join(', ')
  const sameKey = keys.map((index) => `t.${name(index)} = e.c${index}`).join(' and ')
  const conflict = target.key.map(id).join(', ')
  const unguarded = `(t.${id(GUARD_COLUMN)} is null or t.${id(GUARD_COLUMN)} <= e.p)`
  // Scalar subqueries, not `exists`: they are looked up by the whole key, row by row. A join may be planned over all
  // markers of the target, which look few until the table has statistics.
  const notDeleted = `coalesce((select d.position from ${book.deleted} d where d.sink = $2 and d.target = $3 and d.key = ${keyText}), '') <= e.p`
  // the statement before this one gave the guard this very position, or left it at a newer one
  const holdsGuard = `(select g.position from ${book.guard} g where g.sink = $2 and g.target = $3 and g.key = ${keyText}) = e.p`
  const mayWrite = inColumn ? unguarded : holdsGuard

  function name(index: number): string {
    return id((columns[index] as MappedColumn).name)
  }

  /** the rows of $1 with their typed columns, in the order given (n) */
  function rows(present: readonly number[]): string {
    const typed = present
      .filter((index) => index !== feed.aggregateKey)
      .map((index) => `"${index}" ${(columns[index] as MappedColumn).type}`)
    const key = feed.aggregateKey === null ? null : (columns[feed.aggregateKey] as MappedColumn).type
    const record = ['p text', 'o text', ...(key === null ? [] : [`k ${key}`, `a ${key}`]), ...typed]
    const named = record.map((part) => part.slice(0, part.indexOf(' ')))
    // no cast to the key's type: it would cut a text to its length, where the record refuses it. Another key in the
    // payload than the aggregate id divides by zero (an expression that cannot be folded at planning)
    const values = present.map((index) =>
      index === feed.aggregateKey
        ? `case when a is null or a = k then k else (1 / (n - n))::text::${key} end as c${index}`
        : `"${index}" as c${index}`,
    )
    return `select n, p, o, ${values.join(', ')} from rows from (json_to_recordset($1::json) as (${record.join(', ')})) with ordinality as r(${named.join(', ')}, n)`
  }

  const everything = columns.map((_, index) => index)

  /** The columns of Millrace's own in a row: their values in one that is made, and in one that is there (`position`: the new one, there). */
  function own(present: readonly number[], position: string): readonly { column: string; made: string; set: string }[] {
    const guard = { column: id(GUARD_COLUMN), made: 'e.p', set: position }
    const guarded = inColumn && (target.rows === 'keyed' || copied !== null) ? [guard] : []
    const all = copied?.columns ?? null
    if (copied === null || all === null) return guarded
    const names = present.map((index) => (columns[index] as MappedColumn).name)
    const [written, begun] = [id(WRITTEN_COLUMN), id(BEGUN_COLUMN)]
    if (all.every((column) => names.includes(column)))
      return [...guarded, { column: written, made: 'null::text[]', set: 'null' }, { column: begun, made: 'true', set: 'true' }]
    const array = `array[${names.map(pg.escapeLiteral).join(', ')}]::text[]`
    return [
      ...guarded,
      {
        column: written,
        made: array,
        set: `case when t.${written} is null then null else array(select unnest(t.${written}) union select unnest(${array})) end`,
      },
      {
        column: begun,
        made: `(${copied.whole} or exists (select from ${book.deleted} d where d.sink = $2 and d.target = $3 and d.key = ${keyText}))`,
        set: `t.${begun}`,
      },
    ]
  }

  const folded = `select distinct on (${order}) * from (${rows(everything)}) r order by ${order}, n desc`

  function guard(): string {
    return `with e as materialized (${folded})
insert into ${book.guard} as g (sink, target, key, position)
select $2, $3, ${keyText}, e.p from e where ${notDeleted} order by ${order}
on conflict (sink, target, key) do update set position = excluded.position where g.position <= excluded.position`
  }

  function write(): string {
    const beside = own(everything, `excluded.${id(GUARD_COLUMN)}`)
    const into = [...columns.map(({ name }) => id(name)), ...beside.map(({ column }) => column)]
    const values = [...everything.map((index) => `e.c${index}`), ...beside.map(({ made }) => made)]
    const set = [
      ...columns.filter(({ inKey }) => !inKey).map(({ name }) => `${id(name)} = excluded.${id(name)}`),
      ...beside.map(({ column, set }) => `${column} = ${set}`),
    ]
    const update =
      set.length === 0
        ? 'nothing'
        : `update set ${set.join(', ')}${inColumn ? ` where t.${id(GUARD_COLUMN)} is null or t.${id(GUARD_COLUMN)} <= excluded.${id(GUARD_COLUMN)}` : ''}`
    return `with e as materialized (${folded}),
gone as (
  delete from ${table} t using e where e.o = 'd' and ${sameKey} and ${mayWrite}
), marked as (
  insert into ${book.deleted} as d (sink, target, key, position, deleted_at)
  select $2, $3, ${keyText}, e.p, clock_timestamp() from e where e.o = 'd' order by ${order}
  on conflict (sink, target, key) do update set position = excluded.position, deleted_at = excluded.deleted_at
  where d.position <= excluded.position
)
insert into ${table} as t (${into.join(', ')})
select ${values.join(', ')} from e where e.o = 'u' and ${notDeleted}${inColumn ? '' : ` and ${holdsGuard}`} order by ${order}
on conflict (${conflict}) do ${update}`
  }

  function append(): string {
    const beside = own(everything, 'e.p')
    return `with e as materialized (${rows(everything)})
insert into ${table} (${[...columns.map(({ name }) => id(name)), ...beside.map(({ column }) => column)].join(', ')})
select ${[...everything.map((index) => `e.c${index}`), ...beside.map(({ made }) => made)].join(', ')} from e where $2::text is not null and $3::text is not null order by n
on conflict (${conflict}) do nothing`
  }

  function merge(present: readonly number[]): string {
    const others = present.filter((index) => !keys.includes(index))
    const beside = own(present, 'e.p')
    const set = [
      ...others.map((index) => `${name(index)} = e.c${index}`),
      ...beside.map(({ column, set }) => `${column} = ${set}`),
    ]
    const into = [...present.map(name), ...beside.map(({ column }) => column)]
    const values = [...present.map((index) => `e.c${index}`), ...beside.map(({ made }) => made)]
    // where the table's own columns are left alone there is nothing to update
    const updated =
      set.length === 0
        ? ''
        : `, updated as (\n  update ${table} t set ${set.join(', ')} from e where ${sameKey} and ${mayWrite}\n)`
    return `with e as materialized (select * from (${rows(present)}) r order by ${order})${updated}
insert into ${table} as t (${into.join(', ')})
select ${values.join(', ')} from e
where (select true from ${table} t where ${sameKey}) is null and ${notDeleted}${inColumn ? '' : ` and ${holdsGuard}`} order by ${order}
on conflict (${conflict}) do nothing`
  }

  const merges = new Map<string, StatementText>()
  return {
    guard: inColumn ? null : named(guard()),
    write: named(write()),
    append: named(append()),
    merge(present) {
      const set = present.join()
      const known = merges.get(set)
      if (known !== undefined) return known
      if (merges.size === MAX_MERGES) return { name: null, text: merge(present) }
      const made = named(merge(present))
      merges.set(set, made)
      return made
    },
  }
}

/** one text, one name: a connection serves many lanes, and a claim may have found other columns than the one before */
export function named(text: string): StatementText {
  return { name: `millrace_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`, text }
}
