import type pg from 'pg'

/** A table of the replica, as its catalog has it. */
export interface CatalogTable {
  readonly columns: ReadonlyMap<string, CatalogColumn>
  /** column names of each unique index that `on conflict` can name: whole, immediate, of plain columns */
  readonly uniqueKeys: readonly (readonly string[])[]
  /** what the role lacks of select, insert, update, delete */
  readonly lacking: readonly string[]
}

export interface CatalogColumn {
  /** as SQL writes it, with its modifier: `numeric(10,2)` */
  readonly type: string
  readonly notNull: boolean
  readonly hasDefault: boolean
  /** computed by the database, or an identity that refuses other values: never written */
  readonly generated: boolean
  readonly collation: string | null
}

export interface TableName {
  readonly schema: string
  readonly name: string
}

/** The tables that exist, by `schema.table`. */
export async function readCatalog(client: pg.Pool, tables: readonly TableName[]): Promise<ReadonlyMap<string, CatalogTable>> {
  const { rows } = await client.query<{
    table: string
    columns: Record<string, CatalogColumn> | null
    unique_keys: string[][] | null
    lacking: string[]
  }>(CATALOG, [tables.map(({ schema }) => schema), tables.map(({ name }) => name)])
  return new Map(
    rows.map(({ table, columns, unique_keys, lacking }) => [
      table,
      { columns: new Map(Object.entries(columns ?? {})), uniqueKeys: unique_keys ?? [], lacking },
    ]),
  )
}

const CATALOG = `
select wanted.schema || '.' || wanted.name as "table",
  (select json_object_agg(a.attname, json_build_object(
      'type', format_type(a.atttypid, a.atttypmod),
      'notNull', a.attnotnull,
      'hasDefault', a.atthasdef or a.attidentity <> '',
      'generated', a.attgenerated <> '' or a.attidentity = 'a',
      'collation', (select l.collname from pg_collation l where l.oid = a.attcollation)) order by a.attnum)
    from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
  (select json_agg((select json_agg(a.attname order by k.n)
      from unnest(i.indkey::int2[]) with ordinality as k(attnum, n)
      join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum where k.n <= i.indnkeyatts))
    from pg_index i where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
      and i.indpred is null and i.indexprs is null) as unique_keys,
  array(select p from unnest(array['select', 'insert', 'update', 'delete']) as p where not has_table_privilege(c.oid, p)) as lacking
from unnest($1::text[], $2::text[]) as wanted(schema, name)
join pg_namespace s on s.nspname = wanted.schema
join pg_class c on c.relnamespace = s.oid and c.relname = wanted.name and c.relkind in ('r', 'p')`
