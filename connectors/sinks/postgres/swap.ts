import pg from 'pg'
import type { Difference } from '../../../src/core/copy.ts'
import { aboutTarget, type Compared, copyBehind, typedKey } from './compare.ts'
import { asideName } from './copy-tables.ts'
import { marksSql, targetSql } from './differences.ts'
import { GUARD_COLUMN } from './options.ts'
import { BEGUN_COLUMN, WRITTEN_COLUMN } from './statements.ts'

/**
 * A copy of shape `table` is a table as the sink's own is, made by `like … including all`, and takes its place by a
 * rename. What Postgres ties to the table itself and not to its name would stay with the old one, without a word; so each
 * such thing is an obstacle, but grants on the whole table, its comment and its storage parameters, which are taken over.
 */

const id = pg.escapeIdentifier

/** how long the swap waits for those who read the table: they wait behind it meanwhile */
const LOCK_TIMEOUT = '3s'

/** What stands against a swap, of one target. */
export async function obstaclesOf(client: pg.ClientBase, compared: Compared): Promise<readonly string[]> {
  const { target, schemas } = compared
  const { rows } = await client.query<{ obstacle: string }>(OBSTACLES, [
    targetSql(target, schemas).table,
    [...target.columns.map(({ name }) => name), GUARD_COLUMN],
    `${id(schemas.copy)}.${id(asideName(compared.sink, target.target.name))}`,
  ])
  return rows.map(({ obstacle }) => `${target.target.name} ${obstacle}`)
}

const OBSTACLES = `
with t as (select c.*, $1::regclass as named from pg_class c where c.oid = $1::regclass),
leans as (
  select d.classid, d.objid, d.objsubid, d.deptype from pg_depend d, t
  where (d.refclassid = 'pg_class'::regclass and d.refobjid = t.oid)
    or (d.refclassid = 'pg_type'::regclass and d.refobjid in (select y.oid from pg_type y where y.typrelid = t.oid
      or y.typelem = (select e.oid from pg_type e where e.typrelid = t.oid)))
)
select 'is partitioned' as obstacle from t where relkind <> 'r'
union all select 'is a partition, or inherits from another table' from t where exists (select from pg_inherits where inhrelid = t.oid)
union all select 'is inherited from' from t where exists (select from pg_inherits where inhparent = t.oid)
union all select 'is not an ordinary logged table' from t where relkind = 'r' and (relpersistence <> 'p' or relam <> (select oid from pg_am where amname = 'heap'))
union all select 'is in a tablespace of its own' from t where reltablespace <> 0
union all select format('belongs to %I, and the sink is %I', pg_get_userbyid(relowner), current_user) from t where pg_get_userbyid(relowner) <> current_user
union all select format('is in the schema %I, where the sink may not make tables', relnamespace::regnamespace) from t
  where not has_schema_privilege(relnamespace, 'create')
union all select distinct format('is used by the view or rule of %s', r.ev_class::regclass)
  from leans join pg_rewrite r on leans.classid = 'pg_rewrite'::regclass and r.oid = leans.objid
union all select format('is used by the function %s', objid::regprocedure) from leans where classid = 'pg_proc'::regclass
union all select distinct format('has its row type used by %s', objid::regclass) from leans, t where classid = 'pg_class'::regclass and objsubid <> 0 and objid <> t.oid
  and (select relkind from pg_class k where k.oid = objid) <> 'S'
union all select format('has the foreign key %I', conname) from pg_constraint, t where contype = 'f' and conrelid = t.oid
union all select format('is referred to by the foreign key %I of %s', conname, conrelid::regclass)
  from pg_constraint, t where contype = 'f' and confrelid = t.oid and conrelid <> t.oid
union all select format('has the trigger %I', tgname) from pg_trigger, t where tgrelid = t.oid and not tgisinternal
union all select format('has the policy %I', polname) from pg_policy, t where polrelid = t.oid
union all select 'has row security' from t where relrowsecurity
union all select format('is in the publication %I', pubname) from pg_publication_rel r join pg_publication p on p.oid = r.prpubid, t where prrelid = t.oid
union all select 'has a replica identity of its own' from t where relreplident <> 'd'
union all select format('has grants on its column %I', attname) from pg_attribute, t where attrelid = t.oid and attacl is not null and not attisdropped
union all select format('has the sequence %s', objid::regclass) from leans
  where classid = 'pg_class'::regclass and deptype in ('a', 'i') and (select relkind from pg_class k where k.oid = objid) = 'S'
union all select format('has the column %I, which is left to the database: its values would be lost', attname)
  from pg_attribute, t where attrelid = t.oid and attnum > 0 and not attisdropped and attgenerated = '' and attname <> all($2::text[])
union all select 'has a table of a former rebuild put aside still' where to_regclass($3) is not null`

/** The sink's own rows take the place of the copy's. @returns rows */
export async function carryRows(client: pg.ClientBase, compared: Compared, keys: readonly Difference[]): Promise<number> {
  const { sink, target, schemas } = compared
  const sql = targetSql(target, schemas)
  const list = [sink, target.target.name, JSON.stringify(keys.map(({ key }) => key))]
  const wanted = `with k as materialized (
  select x.key as text, ${typedKey(compared, 'x.key')} from json_array_elements_text($3::json) as x(key)
  where $1::text is not null and $2::text is not null
)`
  await client.query(`${wanted}\ndelete from ${sql.rows} r using k where ${sql.same('r', 'k')}`, list)
  const { rows } = await client.query<{ name: string }>(
    `select attname as name from pg_attribute
     where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = '' and attname <> $2`,
    [sql.table, GUARD_COLUMN],
  )
  const columns = rows.map(({ name }) => id(name))
  const position = sql.inColumn
    ? `t.${id(GUARD_COLUMN)}`
    : `(select g.position from ${id(schemas.book)}.guard g where g.sink = $1 and g.target = $2 and g.key = k.text)`
  const { rowCount } = await client.query(
    `${wanted}
insert into ${sql.rows} (${[...columns, id(GUARD_COLUMN)].join(', ')})
select ${[...columns.map((column) => `t.${column}`), position].join(', ')} from k join ${sql.table} t on ${sql.same('t', 'k')}`,
    list,
  )
  return rowCount ?? 0
}

/** @throws MILLRACE_COPY_BEHIND when the copy does not stand where the sink does; to be asked under the locks of all writers */
export async function requireReached(client: pg.ClientBase, compared: Compared): Promise<void> {
  const { rows } = await client.query<{ reached: boolean }>(
    `with ${marksSql(compared.schemas)}
select coalesce(bool_and(reached), true) and $2::text is not null as reached from marks`,
    [...aboutTarget(compared)],
  )
  if (rows[0]?.reached !== true) throw copyBehind(compared, 'its tables cannot take the place of the sink’s yet')
}

/** Puts the copy's table in the place of the target's, in a transaction that holds the locks of all writers. */
export async function swapTarget(client: pg.ClientBase, compared: Compared): Promise<void> {
  const { sink, target, schemas } = compared
  const { schema, table, name, rows: kind, guard } = target.target
  const sql = targetSql(target, schemas)
  await client.query(`set local lock_timeout = '${LOCK_TIMEOUT}'`)
  await client.query(`lock table ${sql.table} in access exclusive mode`)
  const about = await aboutTable(client, sql.table)

  if (kind === 'keyed' && guard === 'table') {
    await client.query(`delete from ${id(schemas.book)}.guard where sink = $1 and target = $2`, [sink, name])
    await client.query(
      `insert into ${id(schemas.book)}.guard (sink, target, key, position)
select $1, $2, ${sql.text('r')}, r.${id(GUARD_COLUMN)} from ${sql.rows} r where r.${id(GUARD_COLUMN)} is not null`,
      [sink, name],
    )
  }
  const own = [
    ...(about.columns.includes(GUARD_COLUMN) ? [] : [GUARD_COLUMN]),
    ...(target.parts ? [WRITTEN_COLUMN, BEGUN_COLUMN] : []),
  ]
  for (const column of own) await client.query(`alter table ${sql.rows} drop column ${id(column)}`)

  const indexes = await indexPairs(client, sql.table, sql.rows)
  const aside = asideName(sink, name)
  await client.query(`alter table ${sql.table} set schema ${id(schemas.copy)}`)
  await client.query(`alter table ${id(schemas.copy)}.${id(table)} rename to ${id(aside)}`)
  await client.query(`alter table ${sql.rows} set schema ${id(schema)}`)
  await client.query(`alter table ${id(schema)}.${id(target.rows)} rename to ${id(table)}`)
  for (const { made, was } of indexes) await client.query(`alter index ${id(schema)}.${id(made)} rename to ${id(was)}`)
  await client.query(`comment on table ${sql.table} is ${about.comment === null ? 'null' : pg.escapeLiteral(about.comment)}`)
  await client.query(
    `comment on table ${id(schemas.copy)}.${id(aside)} is ${pg.escapeLiteral(`${name}, as it was before it was rebuilt`)}`,
  )
  if (about.options.length > 0) await client.query(`alter table ${sql.table} set (${about.options.join(', ')})`)
  for (const grant of about.grants) await client.query(grant)
}

interface AboutTable {
  readonly columns: readonly string[]
  readonly comment: string | null
  /** `name=value` */
  readonly options: readonly string[]
  /** statements */
  readonly grants: readonly string[]
}

async function aboutTable(client: pg.ClientBase, table: string): Promise<AboutTable> {
  const { rows } = await client.query<AboutTable>(
    `select array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
       obj_description(c.oid, 'pg_class') as comment,
       array(select format('%s = %L', option_name, option_value) from pg_options_to_table(c.reloptions)) as options,
       array(select format('grant %s on table %s to %s%s', g.privilege_type, $1::text,
           case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
           case when g.is_grantable then ' with grant option' else '' end)
         from aclexplode(c.relacl) g where g.grantee <> c.relowner) as grants
     from pg_class c where c.oid = $1::regclass`,
    [table],
  )
  return rows[0] as AboutTable
}

/** the indexes of two tables that are alike, in pairs: they keep the names that people know */
async function indexPairs(
  client: pg.ClientBase,
  table: string,
  copy: string,
): Promise<readonly { readonly made: string; readonly was: string }[]> {
  const { rows } = await client.query<{ made: string; was: string }>(
    `with named as (
  select i.indrelid, c.relname, i.indisprimary, i.indisunique, substring(pg_get_indexdef(i.indexrelid) from ' USING .*') as definition,
    row_number() over (partition by i.indrelid, i.indisprimary, i.indisunique, substring(pg_get_indexdef(i.indexrelid) from ' USING .*') order by i.indexrelid) as n
  from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid in ($1::regclass, $2::regclass)
)
select made.relname as made, was.relname as was from named made join named was using (indisprimary, indisunique, definition, n)
where made.indrelid = $2::regclass and was.indrelid = $1::regclass`,
    [table, copy],
  )
  return rows
}
