import type pg from 'pg'

/** All that a schema holds, as text that changes when any of it does: no pg_dump needed, and the same on every version. */
export async function describeSchema(client: pg.Client, schema: string): Promise<string> {
  const lines = async (text: string): Promise<string[]> => (await client.query(text, [schema])).rows.map(({ line }) => line)
  const sections: Record<string, string[]> = {
    tables: await lines(`
      select format('%s %s [%s] %s', relkind, relname, array_to_string(reloptions, ', '), coalesce(relacl::text, '')) as line
      from pg_class where relnamespace = to_regnamespace($1) and relkind in ('r', 'p', 'v', 'm', 'S') order by relname`),
    columns: await lines(`
      select format('%s.%s %s%s%s', relname, attname, format_type(atttypid, atttypmod),
        case when attnotnull then ' not null' else '' end, ' default ' || pg_get_expr(adbin, adrelid)) as line
      from pg_attribute join pg_class on pg_class.oid = attrelid left join pg_attrdef on adrelid = attrelid and adnum = attnum
      where relnamespace = to_regnamespace($1) and relkind = 'r' and attnum > 0 and not attisdropped order by relname, attnum`),
    // from Postgres 18 on "not null" is among them, which the columns say
    constraints: await lines(`
      select format('%s on %s: %s', conname, conrelid::regclass, pg_get_constraintdef(oid)) as line
      from pg_constraint where connamespace = to_regnamespace($1) and contype <> 'n' order by conrelid::regclass::text, conname`),
    indexes: await lines(`select indexdef as line from pg_indexes where schemaname = $1 order by indexname`),
    triggers: await lines(`
      select pg_get_triggerdef(t.oid) as line from pg_trigger t join pg_class c on c.oid = tgrelid
      where relnamespace = to_regnamespace($1) order by tgname`),
    functions: await lines(`
      select format(E'%s%s\\n%s', pg_get_functiondef(oid), coalesce(proacl::text, ''), '') as line
      from pg_proc where pronamespace = to_regnamespace($1) order by proname, oid::regprocedure::text`),
    comments: await lines(`
      select format('%s %s: %s', i.type, i.identity, description) as line
      from pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
      where i.schema = $1 or (i.type = 'schema' and i.name = $1) order by i.type, i.identity`),
  }
  return Object.entries(sections)
    .map(([title, found]) => [`== ${title}`, ...found].join('\n'))
    .join('\n\n')
    .concat('\n')
}
