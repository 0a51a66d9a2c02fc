import pg from 'pg'
import type { CopyRecord, CopyShape, CopyWish } from '../../../src/core/copy.ts'
import { MillraceError } from '../../../src/core/errors.ts'
import { type CopyTarget, createTablesSql, emptySharedSql, prefixOf, tablesOf } from './copy-tables.ts'
import { type Schemas, targetSql } from './differences.ts'
import { type KeptMapping, mappingChanges } from './mapping.ts'

/** What is remembered of the copy of a sink, in its bookkeeping: a row for each sink that has one. */
export interface StoredCopy {
  readonly job: string
  readonly shape: CopyShape
  readonly wish: CopyWish | null
  /** by target */
  readonly mapping: Readonly<Record<string, KeptMapping>>
  /** it may be another than the one that the sink's rows were written by */
  readonly remap: boolean
  readonly created_at: Date
  readonly updated_at: Date
}

const id = pg.escapeIdentifier

export async function findCopy(client: pg.Pool | pg.ClientBase, schema: string, sink: string): Promise<StoredCopy | null> {
  const { rows } = await (client as pg.Pool).query<StoredCopy>(
    `select job, shape, wish, mapping, remap, created_at, updated_at from ${id(schema)}.copy where sink = $1`,
    [sink],
  )
  return rows[0] ?? null
}

export function copyRecord({ job, wish, created_at, updated_at }: StoredCopy, held: boolean): CopyRecord {
  return { job, wish, held, createdAt: created_at, updatedAt: updated_at }
}

/** Makes the record and the tables of a copy, in a transaction. @returns false when there is one */
export async function createCopy(
  client: pg.ClientBase,
  schemas: Schemas,
  sink: string,
  { job, shape, mapping, remap }: Pick<StoredCopy, 'job' | 'shape' | 'mapping' | 'remap'>,
  targets: readonly CopyTarget[],
): Promise<boolean> {
  const { rowCount } = await client.query(
    `insert into ${id(schemas.book)}.copy (sink, job, shape, mapping, remap) values ($1, $2, $3, $4, $5) on conflict do nothing`,
    [sink, job, shape, JSON.stringify(mapping), remap],
  )
  if (rowCount === 0) return false
  for (const statement of createTablesSql(targets, schemas.copy, shape)) await client.query(statement)
  return true
}

/** A crash of the server empties the checkpoints of a copy: then no row may stand that was folded before, logged or not. */
export async function clearCrashed(
  client: pg.ClientBase,
  schemas: Schemas,
  sink: string,
  targets: readonly CopyTarget[],
): Promise<void> {
  const { rows } = await client.query<{ begun: boolean }>(
    `select exists (select from ${id(schemas.copy)}.checkpoint where sink = $1) as begun`,
    [sink],
  )
  if (rows[0]?.begun === true) return
  for (const target of targets) await client.query(`truncate ${targetSql(target, schemas).rows}`)
}

/** Removes all that belongs to the copy, in a transaction. */
export async function dropCopy(client: pg.ClientBase, schemas: Schemas, sink: string): Promise<void> {
  for (const table of await tablesOf(client, schemas.copy, prefixOf(sink))) await client.query(`drop table ${table}`)
  for (const statement of emptySharedSql(schemas.copy)) await client.query(statement, [sink])
  await client.query(`delete from ${id(schemas.book)}.copy where sink = $1`, [sink])
}

export async function keepJob(client: pg.ClientBase, schema: string, sink: string, job: string): Promise<CopyWish | null> {
  const { rows } = await client.query<{ wish: CopyWish | null }>(
    `update ${id(schema)}.copy set job = $2, updated_at = clock_timestamp() where sink = $1 returning wish`,
    [sink, job],
  )
  if (rows[0] === undefined) throw copyUnknown(sink)
  return rows[0].wish
}

export async function keepWish(client: pg.Pool, schema: string, sink: string, wish: CopyWish | null): Promise<void> {
  const { rowCount } = await client.query(`update ${id(schema)}.copy set wish = $2 where sink = $1`, [sink, wish])
  if (rowCount === 0) throw copyUnknown(sink)
}

/** @throws MILLRACE_MAPPING_CHANGED when the copy was made by another mapping: its rows cannot be compared with those of this one */
export function requireMapping(sink: string, stored: StoredCopy, now: Readonly<Record<string, KeptMapping>>): void {
  const names = [...new Set([...Object.keys(stored.mapping), ...Object.keys(now)])].sort()
  const changes = names.flatMap((name) => {
    const [before, after] = [stored.mapping[name], now[name]]
    if (before === undefined || after === undefined) return [`${name} was ${before === undefined ? 'not ' : ''}fed`]
    return mappingChanges(name, before, after)
  })
  if (changes.length === 0) return
  throw new MillraceError(
    'MILLRACE_MAPPING_CHANGED',
    `the mapping of the sink ${sink} is not the one its copy was begun with: ${changes.join('; ')}`,
    { remedy: 'put the mapping back to go on, or cancel what was begun and begin anew', fields: { sink } },
  )
}

export function copyRunning(sink: string, held: boolean): MillraceError {
  return new MillraceError(
    'MILLRACE_REPLAY_RUNNING',
    held
      ? `another process replays, rebuilds or verifies the sink ${sink}`
      : `a replay, a rebuild or a verification of the sink ${sink} was begun, and has not been ended`,
    {
      remedy: held
        ? `wait for it, or ask it to end: millrace replay ${sink} --pause, or --cancel`
        : `millrace replay ${sink} --status tells which; --resume goes on with it, --cancel ends it`,
      fields: { sink, held },
    },
  )
}

export function copyUnknown(sink: string): MillraceError {
  return new MillraceError('MILLRACE_REPLAY_UNKNOWN', `no replay, rebuild or verification of the sink ${sink} is under way`, {
    fields: { sink },
  })
}
