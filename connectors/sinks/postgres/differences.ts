import pg from 'pg'
import type { CopyTarget } from './copy-tables.ts'
import type { MappedColumn } from './mapping.ts'
import { GUARD_COLUMN } from './options.ts'
import { BEGUN_COLUMN, keyAsText, WRITTEN_COLUMN } from './statements.ts'

/**
 * How rows of a target differ from their folded states, as SQL: one statement, so one snapshot of the rows, their guards
 * and markers, the sink's checkpoints and the copy's.
 *
 * A position is believed only if it can be true. The fold of a partition covers what is not above the copy's position
 * there, or all of it once the copy's offset has reached the sink's. A row or a marker that shows a position which is
 * covered wherever the sink has come so far would have been folded: it is no newer than the fold, whatever it says.
 */
export interface DifferencesSql {
  /**
   * @param keys common table expressions, the last of them `keys`: typed key columns c0 …, `asked`, `asked_shown`
   * @param where of the keys that are looked at, those that count
   */
  over(keys: string, where?: string): string
}

/** $1 sink, $2 target, $3 its topics, $4 its source or null, $5 reach (`whole`, `since`, `values`, `asked`, or null), $6 since */
export const DIFFERENCES_PARAMETERS = 6

const id = pg.escapeIdentifier

export interface Schemas {
  /** of the sink's bookkeeping, and of its copy */
  readonly book: string
  readonly copy: string
}

/** names of a target in SQL */
export interface TargetSql {
  readonly table: string
  readonly rows: string
  readonly selection: string
  readonly inColumn: boolean
  readonly values: readonly MappedColumn[]
  /** `"a", "b"`, the key's columns, of an alias where one is given */
  key(alias?: string): string
  /** a key's text, of an alias */
  text(alias: string): string
  /** the rows of two aliases have the same key */
  same(left: string, right: string): string
  /** typed key columns c0 …, of SQL that gives each one's text */
  typed(text: (index: number) => string): string
  /** a column's folded value: of a row that was written in part, the replica's own where no event wrote it */
  folded(column: string): string
}

export function targetSql({ target, columns, key, parts, rows, selection }: CopyTarget, schemas: Schemas): TargetSql {
  const of = (alias: string | undefined, name: string): string => (alias === undefined ? id(name) : `${alias}.${id(name)}`)
  return {
    table: `${id(target.schema)}.${id(target.table)}`,
    rows: `${id(schemas.copy)}.${id(rows)}`,
    selection: `${id(schemas.copy)}.${id(selection)}`,
    inColumn: target.rows === 'keyed' && target.guard === 'column',
    values: columns.filter(({ inKey }) => !inKey),
    key: (alias) => key.map(({ name }) => of(alias, name)).join(', '),
    text: (alias) => keyAsText(key.map(({ name }) => `${of(alias, name)}::text`)),
    same: (left, right) =>
      key.map(({ name }, index) => `${of(left, name)} = ${right === 'k' ? `k.c${index}` : of(right, name)}`).join(' and '),
    typed: (text) => key.map(({ type }, index) => `(${text(index)})::${type} as c${index}`).join(', '),
    folded: (column) =>
      parts
        ? `case when r.${id(WRITTEN_COLUMN)} is null or ${pg.escapeLiteral(column)} = any(r.${id(WRITTEN_COLUMN)}) then r.${id(column)} else t.${id(column)} end`
        : `r.${id(column)}`,
  }
}

/** the sink's checkpoints that feed the target, and how far the copy is there: as the expression `marks` */
export function marksSql({ book, copy }: Schemas): string {
  return `marks as materialized (
  select l.position as live, coalesce(c.position, '') as copied, c."offset" is null as unfolded,
    coalesce(c."offset" >= l."offset" or c.position >= l.position, false) as reached
  from ${id(book)}.checkpoint l
  left join lateral (
    select max(f."offset") as "offset", max(f.position) filter (where f.source = l.source) as position
    from ${id(copy)}.checkpoint f where f.sink = l.sink and f.topic = l.topic and f.partition = l.partition
  ) c on true
  where l.sink = $1 and l.topic = any($3::text[]) and ($4::text is null or l.source = $4) and l.position is not null
)`
}

const beyond = (position: string): string =>
  `exists (select from marks m where not m.reached and m.copied < ${position} and ${position} <= m.live)`

export function differencesSql(target: CopyTarget, schemas: Schemas): DifferencesSql {
  const sql = targetSql(target, schemas)
  const [book, copy] = [id(schemas.book), id(schemas.copy)]
  const append = target.target.rows === 'append'
  const there = (alias: string): string => `${alias}.${id((target.key[0] as MappedColumn).name)} is not null`
  const key = `case when ${there('t')} then ${sql.text('t')} when ${there('r')} then ${sql.text('r')} else ${keyAsText(target.key.map((_, index) => `k.c${index}::text`))} end`
  const positionIn = (table: string): string =>
    `(select x.position from ${table} x where x.sink = $1 and x.target = $2 and x.key = l.key)`
  // The image of the values is compared first: it is fast, and exact for every type, those without equality among them.
  // What is one value in two images (an array that once held a null) is told by its text. Not by "=": that takes 1.0 for
  // 1.00, and for text without case one word for another.
  const values = sql.values.map(({ name }) => ({ shown: `t.${id(name)}`, folded: sql.folded(name) }))
  const differ =
    values.length === 0
      ? 'false'
      : `(row(${values.map(({ shown }) => shown).join(', ')})::record *<> row(${values.map(({ folded }) => folded).join(', ')})::record
      and (${values.map(({ shown, folded }) => `(${shown})::text collate "C" is distinct from (${folded})::text collate "C"`).join(' or ')}))`

  const begun = target.parts ? `r.${id(BEGUN_COLUMN)}` : 'true'
  const kind = `case
    when parted then 'parked'
    when copied and there then case
      ${
        append
          ? `when not differ then null else 'different'`
          : `when (shown = at or $5 = 'values') and not differ${target.merges ? ' and begun' : ''} then null
      when shown > at and ${beyond('shown')} then 'newer'
      ${target.merges ? `when not begun then 'partial'` : ''}
      else 'different'`
      } end
    when copied then case
      when marked > at and ${beyond('marked')} then 'newer'
      when shown > at and ${beyond('shown')} then 'newer'
      when not begun then 'partial'
      else 'missing' end
    when there then case
      when shown > coalesce(gone, '') and ${beyond('shown')} then 'newer'
      when gone is not null then 'extra'
      when $5::text is null then null
      when exists (select from marks m where m.unfolded) then 'newer'
      ${append ? `when exists (select from marks m where not m.reached) then 'newer'` : ''}
      when $5 in ('whole', 'values') then 'extra'
      when $5 = 'since' and shown >= $6::text collate "C" and shown <= (select max(m.live) from marks m) then 'extra'
      when $5 = 'asked' and asked = 'extra' and shown is not distinct from asked_shown then 'extra'
      else 'unverifiable' end
  end`
  const shown = append ? 'null::text' : sql.inColumn ? `shown_in_row collate "C"` : positionIn(`${book}.guard`)

  return {
    over: (keys, where = 'true') => `with ${marksSql(schemas)},
${keys},
looked as (
  select (${key}) collate "C" as key, k.asked, k.asked_shown, ${there('r')} as copied, ${there('t')} as there, r.${id(GUARD_COLUMN)} as at,
    ${sql.inColumn ? `t.${id(GUARD_COLUMN)}` : 'null::text'} as shown_in_row, coalesce(${begun}, true) as begun,
    ${target.parts ? `r.${id(WRITTEN_COLUMN)}` : 'null::text[]'} as written, ${differ} as differ
  from keys k left join ${sql.rows} r on ${sql.same('r', 'k')} left join ${sql.table} t on ${sql.same('t', 'k')}
), placed as (
  select l.*, ${shown} as shown, ${positionIn(`${copy}.deleted`)} as gone, ${positionIn(`${book}.deleted`)} as marked from looked l
), told as (
  select p.*, exists (select from ${copy}.apart a where a.sink = $1 and a.target = $2 and a.key = p.key)
    or exists (select from ${copy}.apart a where a.sink = $1 and a.target = $2 and a.key is null and a.position in (p.shown, p.marked)) as parted
  from placed p
), found as (
  select key, written, coalesce(marked > at, false) as outmarked, case when copied then at else gone end as folded, shown, ${kind} as kind from told where ${where}
)
select c.looked::int as looked, c.keys::int as keys, c.last, f.key, f.kind, f.folded, f.shown, f.written, f.outmarked
from (select count(*) as looked, (select count(*) from found) as keys, max(key) as last from looked) c
left join (select * from found where kind is not null) f on true
order by f.key`,
  }
}
