import pg from 'pg'
import type { Compared } from './compare.ts'
import type { KeptMapping } from './mapping.ts'

/**
 * From one mapping to another. Rows of two mappings must not stand side by side unknown, so from the first one that is
 * written by the new mapping until the last, a mark in the kept mapping stands against whoever claims a partition, by
 * the old mapping or the new.
 */
interface Remapping {
  readonly schema: string
  readonly sink: string
  /** the new mapping, by target */
  readonly mapping: Readonly<Record<string, KeptMapping>>
}

const id = pg.escapeIdentifier

/** Sets the mark, and takes every partition from its owner; in a transaction. Markers and guards by another key mean nothing any more. */
export async function haltSink(client: pg.ClientBase, { schema, sink, mapping }: Remapping): Promise<void> {
  // first the checkpoints: whoever is in the midst of a batch ends it, and a claim that has not seen the mark is taken back
  await client.query(`select from ${id(schema)}.checkpoint where sink = $1 order by topic, partition, source for update`, [sink])
  await client.query(`update ${id(schema)}.checkpoint set owner_epoch = owner_epoch + 1 where sink = $1`, [sink])
  const { rows } = await client.query<{ target: string; mapping: KeptMapping }>(
    `select target, mapping from ${id(schema)}.target where sink = $1`,
    [sink],
  )
  for (const [target, kept] of Object.entries(mapping)) {
    const before = rows.find((row) => row.target === target)?.mapping
    if (before !== undefined && before.key.join('\0') !== kept.key.join('\0'))
      for (const table of ['deleted', 'guard'])
        await client.query(`delete from ${id(schema)}.${table} where sink = $1 and target = $2`, [sink, target])
    await keepMapping(client, schema, sink, target, { ...kept, rebuilding: true })
  }
}

/** Takes the mark away; in a transaction. What was deleted is known from the copy; what is fed no more is forgotten. */
export async function adoptMapping(
  client: pg.ClientBase,
  { schema, sink, mapping }: Remapping,
  targets: readonly Compared[],
): Promise<void> {
  for (const one of targets) await takeMarkers(client, one)
  for (const [target, kept] of Object.entries(mapping)) {
    await keepMapping(client, schema, sink, target, kept)
    if (kept.guard === 'column')
      await client.query(`delete from ${id(schema)}.guard where sink = $1 and target = $2`, [sink, target])
  }
  for (const table of ['deleted', 'guard', 'target'])
    await client.query(`delete from ${id(schema)}.${table} where sink = $1 and target <> all($2::text[])`, [
      sink,
      Object.keys(mapping),
    ])
}

/** The copy's delete markers, where the sink has none that are newer. */
export async function takeMarkers(client: pg.ClientBase, { sink, schemas, target }: Compared): Promise<void> {
  await client.query(
    `insert into ${id(schemas.book)}.deleted as d (sink, target, key, position, deleted_at)
select c.sink, c.target, c.key, c.position, clock_timestamp() from ${id(schemas.copy)}.deleted c
where c.sink = $1 and c.target = $2 order by c.key
on conflict (sink, target, key) do update set position = excluded.position, deleted_at = excluded.deleted_at
where d.position < excluded.position`,
    [sink, target.target.name],
  )
}

async function keepMapping(
  client: pg.ClientBase,
  schema: string,
  sink: string,
  target: string,
  mapping: KeptMapping,
): Promise<void> {
  await client.query(
    `insert into ${id(schema)}.target as t (sink, target, mapping) values ($1, $2, $3)
on conflict (sink, target) do update set mapping = excluded.mapping`,
    [sink, target, JSON.stringify(mapping)],
  )
}
