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

export function feedStatements(feed: Feed, schema: string): FeedStatements {
  const table = `${id(feed.target.schema)}.${id(feed.target.table)}`
  const book = { deleted: `${id(schema)}.deleted`, guard: `${id(schema)}.guard` }
  const { columns, target } = feed
  const inColumn = target.guard === 'column'
  const keys = columns.flatMap((column, index) => (column.inKey ? [index] : []))
  const keyText =
    keys.length === 1 ? `e.c${keys[0]}::text` : `json_build_array(${keys.map((index) => `e.c${index}::text`).join(', ')})::text`
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
  const folded = `select distinct on (${order}) * from (${rows(everything)}) r order by ${order}, n desc`

  function guard(): string {
    return `with e as materialized (${folded})
insert into ${book.guard} as g (sink, target, key, position)
select $2, $3, ${keyText}, e.p from e where ${notDeleted} order by ${order}
on conflict (sink, target, key) do update set position = excluded.position where g.position <= excluded.position`
  }

  function write(): string {
    const into = [...columns.map(({ name }) => id(name)), ...(inColumn ? [id(GUARD_COLUMN)] : [])]
    const values = [...everything.map((index) => `e.c${index}`), ...(inColumn ? ['e.p'] : [])]
    const set = into.filter((column) => !target.key.map(id).includes(column)).map((column) => `${column} = excluded.${column}`)
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
    return `with e as materialized (${rows(everything)})
insert into ${table} (${columns.map(({ name }) => id(name)).join(', ')})
select ${everything.map((index) => `e.c${index}`).join(', ')} from e where $2::text is not null and $3::text is not null order by n
on conflict (${conflict}) do nothing`
  }

  function merge(present: readonly number[]): string {
    const others = present.filter((index) => !keys.includes(index))
    const set = [...others.map((index) => `${name(index)} = e.c${index}`), ...(inColumn ? [`${id(GUARD_COLUMN)} = e.p`] : [])]
    const into = [...present.map(name), ...(inColumn ? [id(GUARD_COLUMN)] : [])]
    const values = [...present.map((index) => `e.c${index}`), ...(inColumn ? ['e.p'] : [])]
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
function named(text: string): StatementText {
  return { name: `millrace_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`, text }
}
