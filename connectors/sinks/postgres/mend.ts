import pg from 'pg'
import type { Difference, Mended, MendOptions, Refused } from '../../../src/core/copy.ts'
import type { ParkReason } from '../../../src/core/sink.ts'
import { aboutTarget, type Compared, copyBehind, type Found, lookAgain, typedKey } from './compare.ts'
import { marksSql, targetSql } from './differences.ts'
import { faultOf, type Said, STATE_MEANS, said } from './failure.ts'
import { GUARD_COLUMN } from './options.ts'
import { textArray } from './transaction.ts'

const id = pg.escapeIdentifier

/**
 * The locks of all who write the targets, in the order in which lanes take theirs: checkpoints, then targets.
 *
 * Of every partition that feeds a target, not only of the keys' own: which partition a key is on is the relay's knowledge,
 * not the sink's, and an insert here beside a delete there that saw no row would leave a row beside its marker
 * (PROTOCOL 2.4). Each lane waits for one batch's time at most.
 */
export async function lockWriters(client: pg.ClientBase, schema: string, compared: readonly Compared[]): Promise<void> {
  const sink = compared[0]?.sink
  const topics = [...new Set(compared.flatMap(({ target }) => target.topics))]
  const names = compared.map(({ target }) => target.target.name)
  await client.query(
    `select from ${id(schema)}.checkpoint where sink = $1 and topic = any($2::text[]) order by topic, partition, source for update`,
    [sink, topics],
  )
  await client.query(`select from ${id(schema)}.target where sink = $1 and target = any($2::text[]) order by target for update`, [
    sink,
    names,
  ])
}

/** Brings the keys of one target to their folded states, in a transaction that holds the locks of all its writers. */
export async function mendTarget(
  client: pg.ClientBase,
  compared: Compared,
  keys: readonly Difference[],
  { extras }: MendOptions,
): Promise<Mended> {
  const found = await lookAgain(client, compared, keys, 'asked')
  const missing = found.filter(({ kind }) => kind === 'missing')
  const different = found.filter(({ kind }) => kind === 'different')
  const extra = found.filter(({ kind, folded }) => kind === 'extra' && (folded !== null || extras))
  if (missing.length > 0 && (await isBehind(client, compared)))
    throw copyBehind(compared, 'deletes of that time may be forgotten already: a row that is missing there may rightly be')

  const statements = mendSql(compared)
  const { written, removed, refused } = await writeAllThatFit(client, compared, [...extra, ...different, ...missing], (some) =>
    writeKeys(client, compared, statements, some),
  )
  return { written, removed, left: keys.length - written - removed, refused }
}

/**
 * Writes all keys at once. Where the table refuses a row, it is found by halving, and left out; what was refused is tried
 * again after the others, whose writes it may have waited for (a row that is referred to, a value that was taken).
 */
async function writeAllThatFit(
  client: pg.ClientBase,
  compared: Compared,
  keys: readonly Found[],
  write: (keys: readonly Found[]) => Promise<Written>,
): Promise<Written & { readonly refused: readonly Refused[] }> {
  const refused: Refused[] = []
  const done = { written: 0, removed: 0 }
  const attempt = async (some: readonly Found[]): Promise<void> => {
    if (some.length === 0) return
    await client.query('savepoint mend')
    try {
      const { written, removed } = await write(some)
      // asked now: at the commit no row could be told to be at fault
      await client.query('set constraints all immediate; set constraints all deferred; release savepoint mend')
      done.written += written
      done.removed += removed
    } catch (error) {
      const why = said(error)
      const fault = faultOf(why)
      if (fault !== 'data' && fault !== 'constraint') throw error
      await client.query('rollback to savepoint mend')
      if (some.length === 1) refused.push({ key: some[0] as Found, reason: reasonOf(compared, fault, why) })
      else {
        const half = some.length >> 1
        await attempt(some.slice(0, half))
        await attempt(some.slice(half))
      }
    }
  }
  // what refers to each other in one chunk, or changes places, needs no order where the table lets it wait
  await client.query('set constraints all deferred')
  await attempt(keys)
  for (let before = keys.length; refused.length > 0 && refused.length < before; ) {
    before = refused.length
    for (const { key } of refused.splice(0)) await attempt([key as Found])
  }
  return { ...done, refused }
}

function reasonOf({ target }: Compared, fault: 'data' | 'constraint', { state, table, column, constraint }: Said): ParkReason {
  const where = [column && `column ${column}`, constraint && `constraint ${constraint}`, state].filter(Boolean).join(', ')
  return {
    code: fault === 'data' ? 'MILLRACE_EVENT_REJECTED' : 'MILLRACE_EVENT_CONFLICT',
    message: `${table ?? target.target.name} does not take the row as it is folded: ${STATE_MEANS[state ?? ''] ?? 'the database refuses it'} (${where})`,
  }
}

interface Written {
  readonly written: number
  readonly removed: number
}

/** What is given as missing, different or extra, by the statements. */
async function writeKeys(
  client: pg.ClientBase,
  { sink, target }: Compared,
  statements: MendSql,
  keys: readonly Found[],
): Promise<Written> {
  const book = [sink, target.target.name]
  const forget = async (text: string, some: readonly Found[]): Promise<void> => {
    if (some.length > 0) await client.query(text, [...book, textArray(some.map(({ key }) => key))])
  }
  const run = async (text: string, some: readonly Found[]): Promise<number> => {
    if (some.length === 0) return 0
    const list = JSON.stringify(some.map(({ key, folded }) => ({ key, folded })))
    return (await client.query(text, [...book, list])).rowCount ?? 0
  }
  const extra = keys.filter(({ kind }) => kind === 'extra')
  const writes = keys.filter(({ kind }) => kind !== 'extra')
  const removed = await run(statements.remove, extra)
  await run(statements.mark, extra)
  // a marker that cannot be true: lanes would hold it against every event to come
  await forget(
    statements.unmark,
    writes.filter(({ outmarked }) => outmarked),
  )
  if (statements.guard !== null) {
    await forget(statements.unguard, extra)
    await run(statements.guard, writes)
  }
  const different = writes.filter(({ kind }) => kind === 'different')
  let written = statements.update === null ? different.length : await run(statements.update, different)
  const missing = writes.filter(({ kind }) => kind === 'missing')
  // rows that are written in part are made of what was written, as the events made them: one statement for each set of columns
  for (const group of Map.groupBy(missing, ({ written }) => written && [...written].sort().join('\0')).values())
    written += await run(statements.insert((group[0] as Found).written), group)
  return { written, removed }
}

/** Whether a delete beyond the fold may have been forgotten already: then a row that is missing may rightly be. */
async function isBehind(client: pg.ClientBase, compared: Compared): Promise<boolean> {
  const { rows } = await client.query<{ behind: boolean }>(
    `with ${marksSql(compared.schemas)}
select exists (select from marks m where not m.reached and m.copied < t.forgotten_below) as behind
from ${id(compared.schemas.book)}.target t where t.sink = $1 and t.target = $2`,
    [...aboutTarget(compared)],
  )
  return rows[0]?.behind === true
}

interface MendSql {
  readonly remove: string
  readonly mark: string
  readonly unmark: string
  readonly unguard: string
  /** null: there is none beside the table */
  readonly guard: string | null
  /** null: there is nothing beside the key */
  readonly update: string | null
  insert(written: readonly string[] | null): string
}

/**
 * Each takes $1, the sink; $2, the target; $3, keys as JSON with the positions that they are brought to. `unmark` and `unguard` take
 * an array of keys: a join may be planned over all markers of the target, which look few until the table has statistics.
 */
function mendSql(compared: Compared): MendSql {
  const { target, schemas } = compared
  const sql = targetSql(target, schemas)
  const [deleted, guards] = [`${id(schemas.book)}.deleted`, `${id(schemas.book)}.guard`]
  const keys = `with k as materialized (
  select x.key as text, x.folded collate "C" as folded, ${typedKey(compared, 'x.key')}
  from json_to_recordset($3::json) as x(key text, folded text)
  where $1::text is not null and $2::text is not null
)`
  const own = sql.inColumn ? [{ column: id(GUARD_COLUMN), folded: `r.${id(GUARD_COLUMN)}` }] : []
  const set = [...sql.values.map(({ name }) => ({ column: id(name), folded: sql.folded(name) })), ...own]
  const order = target.key.map((_, index) => `k.c${index}`).join(', ')
  return {
    remove: `${keys}\ndelete from ${sql.table} t using k where ${sql.same('t', 'k')}`,
    mark: `${keys}
insert into ${deleted} as d (sink, target, key, position, deleted_at)
select $1, $2, k.text, k.folded, clock_timestamp() from k where k.folded is not null order by ${order}
on conflict (sink, target, key) do update set position = excluded.position, deleted_at = excluded.deleted_at
where d.position <= excluded.position`,
    unmark: `delete from ${deleted} where sink = $1 and target = $2 and key = any($3::text[])`,
    unguard: `delete from ${guards} where sink = $1 and target = $2 and key = any($3::text[])`,
    guard:
      target.target.rows === 'append' || sql.inColumn
        ? null
        : `${keys}
insert into ${guards} as g (sink, target, key, position)
select $1, $2, k.text, k.folded from k order by ${order}
on conflict (sink, target, key) do update set position = excluded.position`,
    update:
      set.length === 0
        ? null
        : `${keys}
update ${sql.table} t set ${set.map(({ column, folded }) => `${column} = ${folded}`).join(', ')}
from k join ${sql.rows} r on ${sql.same('r', 'k')} where ${sql.same('t', 'k')}`,
    insert(written) {
      const columns = target.columns.filter(({ name }) => written === null || written.includes(name)).map(({ name }) => id(name))
      return `${keys}
insert into ${sql.table} (${[...columns, ...own.map(({ column }) => column)].join(', ')})
select ${[...columns.map((column) => `r.${column}`), ...own.map(({ folded }) => folded)].join(', ')}
from k join ${sql.rows} r on ${sql.same('r', 'k')} order by ${order}
on conflict (${target.key.map(({ name }) => id(name)).join(', ')}) do nothing`
    },
  }
}
