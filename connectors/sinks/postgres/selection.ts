import pg from 'pg'
import { typedKey } from './compare.ts'
import type { CopyTarget } from './copy-tables.ts'
import { type Schemas, targetSql } from './differences.ts'

/** keys taken by one statement */
const CHUNK = 50_000

const id = pg.escapeIdentifier

interface Selecting {
  readonly sink: string
  readonly schemas: Schemas
  readonly targets: readonly CopyTarget[]
}

export async function hasSelection(client: pg.ClientBase, schema: string, sink: string): Promise<boolean> {
  const { rows } = await client.query<{ selected: boolean }>(`select selected from ${id(schema)}.copy where sink = $1`, [sink])
  return rows[0]?.selected === true
}

/**
 * Takes every key that the copy knows of now, in a transaction: of its rows, of what it has deleted, of what is folded apart.
 * @returns how many there are
 */
export async function selectKeys(client: pg.ClientBase, { sink, schemas, targets }: Selecting): Promise<number> {
  let count = 0
  for (const target of targets) {
    const sql = targetSql(target, schemas)
    await client.query(`truncate ${sql.selection}`)
    count += await selectRows(client, target, schemas)
    for (const table of ['deleted', 'apart']) count += await selectTexts(client, sink, target, schemas, table)
  }
  await client.query(`update ${id(schemas.book)}.copy set selected = true where sink = $1`, [sink])
  return count
}

async function selectRows(client: pg.ClientBase, target: CopyTarget, schemas: Schemas): Promise<number> {
  const sql = targetSql(target, schemas)
  const below = target.key.map(({ type }, index) => `$${index + 1}::text::${type}`).join(', ')
  let count = 0
  for (let after: readonly string[] | null = null; ; ) {
    const { rows }: pg.QueryResult<{ taken: string; last: readonly string[] | null }> = await client.query(
      `with next as materialized (
  select ${sql.key()} from ${sql.rows} ${after === null ? '' : `where (${sql.key()}) > (${below})`} order by ${sql.key()} limit ${CHUNK}
), taken as (insert into ${sql.selection} (${sql.key()}) select ${sql.key()} from next)
select (select count(*) from next) as taken,
  (select json_build_array(${target.key.map(({ name }) => `${id(name)}::text`).join(', ')}) from next order by ${target.key.map(({ name }) => `${id(name)} desc`).join(', ')} limit 1) as last`,
      [...(after ?? [])],
    )
    count += Number(rows[0]?.taken)
    after = rows[0]?.last ?? null
    if (Number(rows[0]?.taken) < CHUNK) return count
  }
}

async function selectTexts(
  client: pg.ClientBase,
  sink: string,
  target: CopyTarget,
  schemas: Schemas,
  table: string,
): Promise<number> {
  const sql = targetSql(target, schemas)
  let count = 0
  for (let after: string | null = null; ; ) {
    const { rows }: pg.QueryResult<{ read: string; taken: string; last: string | null }> = await client.query(
      `with next as materialized (
  select x.key from ${id(schemas.copy)}.${table} x
  where x.sink = $1 and x.target = $2 and ($3::text is null or x.key > $3) order by x.key limit ${CHUNK}
), taken as (
  insert into ${sql.selection} (${sql.key()}) select ${typedKey({ target, schemas }, 'next.key')} from next
  where next.key is not null on conflict do nothing returning 1
)
select (select count(*) from next) as read, (select count(*) from taken) as taken, (select max(key) from next) as last`,
      [sink, target.target.name, after],
    )
    count += Number(rows[0]?.taken)
    after = rows[0]?.last ?? null
    if (Number(rows[0]?.read) < CHUNK) return count
  }
}
