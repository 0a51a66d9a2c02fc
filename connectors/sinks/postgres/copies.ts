import pg from 'pg'
import type { Copies } from '../../../src/core/copy.ts'
import { type CopyDeps, type CopyParts, openCopy } from './copy.ts'
import { type Hold, holdCopy, isHeld } from './copy-hold.ts'
import {
  clearCrashed,
  copyRecord,
  copyRunning,
  copyUnknown,
  createCopy,
  findCopy,
  keepWish,
  requireMapping,
} from './copy-record.ts'
import { asidePrefix, type CopyTarget, copyTargets, tablesOf } from './copy-tables.ts'
import { asSinkError } from './failure.ts'
import { type Feed, type KeptMapping, keptMapping } from './mapping.ts'

export interface CopiesDeps extends Omit<CopyDeps, keyof CopyParts> {
  readonly rows: Copies['rows']
  readonly topicTemplate: string
  /**
   * The feeds as the replica's tables are now, and whether the mapping is another than the one that the rows were written by.
   * @throws MILLRACE_MAPPING_CHANGED when it is, unless it may be
   */
  readonly mapped: (remap: boolean) => Promise<{ readonly feeds: readonly Feed[]; readonly remapped: boolean }>
  readonly connect: () => Promise<pg.Client>
}

/** The folded copy of a Postgres sink (PROTOCOL 2.5): tables beside the replica's, written by the sink's own statements. */
export function openCopies(deps: CopiesDeps): Copies {
  const { pool, sink, schemas, connect } = deps
  const { book } = schemas

  async function hold(): Promise<Hold> {
    const held = await holdCopy(connect, book, sink)
    if (held === null) throw copyRunning(sink, true)
    return held
  }

  /** what a copy is made of, by the mapping as it is */
  async function parts(remap: boolean): Promise<CopyParts> {
    const { feeds, remapped } = await deps.mapped(remap)
    const targets = await parentsFirst(pool, copyTargets(feeds, sink, deps.topicTemplate))
    const mapping: Readonly<Record<string, KeptMapping>> = Object.fromEntries(
      targets.map(({ target }) => [target.name, keptMapping(target, feeds)]),
    )
    return { feeds, targets, mapping, remapped }
  }

  /** with the hold, which is let go when it fails */
  async function holding<T>(work: (hold: Hold) => Promise<T>): Promise<T> {
    const held = await hold()
    try {
      return await work(held)
    } catch (error) {
      await held.release()
      throw error
    }
  }

  return {
    rows: deps.rows,

    find: () =>
      asSinkError(async () => {
        const stored = await findCopy(pool, book, sink)
        return stored === null ? null : copyRecord(stored, await isHeld(pool, book, sink))
      }),

    create: (job, shape, remap = false) =>
      asSinkError(async () => {
        const made = await parts(remap)
        return holding(async (held) => {
          const record = { job, shape, mapping: made.mapping, remap }
          if (!(await held.transaction((client) => createCopy(client, schemas, sink, record, made.targets))))
            throw copyRunning(sink, false)
          return openCopy({ ...deps, ...made }, held, job)
        })
      }),

    take: () =>
      asSinkError(() =>
        holding(async (held) => {
          const stored = await held.run((client) => findCopy(client, book, sink))
          if (stored === null) throw copyUnknown(sink)
          const made = await parts(stored.remap)
          requireMapping(sink, stored, made.mapping)
          await held.run((client) => clearCrashed(client, schemas, sink, made.targets))
          return openCopy({ ...deps, ...made }, held, stored.job)
        }),
      ),

    ask: (wish) => asSinkError(() => keepWish(pool, book, sink, wish)),

    aside: () => asSinkError(() => tablesOf(pool, schemas.copy, asidePrefix(sink))),

    dropAside: () =>
      asSinkError(async () => {
        const tables = await tablesOf(pool, schemas.copy, asidePrefix(sink))
        for (const table of tables) await pool.query(`drop table ${table}`)
        return tables
      }),
  }
}

/** The targets by name, but what foreign keys refer to before what refers: rows that are missing are made in this order. */
async function parentsFirst(pool: pg.Pool, targets: readonly CopyTarget[]): Promise<readonly CopyTarget[]> {
  const { rows } = await pool.query<{ child: string; parent: string }>(
    `select distinct child.name as child, parent.name as parent
     from unnest($1::text[], $2::text[]) as child(name, quoted)
     join pg_constraint f on f.contype = 'f' and f.conrelid = to_regclass(child.quoted)
     join unnest($1::text[], $2::text[]) as parent(name, quoted) on f.confrelid = to_regclass(parent.quoted)`,
    [
      targets.map(({ target }) => target.name),
      targets.map(({ target }) => `${pg.escapeIdentifier(target.schema)}.${pg.escapeIdentifier(target.table)}`),
    ],
  )
  const sorted: CopyTarget[] = []
  let waiting = targets.toSorted((a, b) => (a.target.name < b.target.name ? -1 : 1))
  const waits = ({ target }: CopyTarget): boolean =>
    rows.some(
      ({ child, parent }) => child === target.name && parent !== child && waiting.some((one) => one.target.name === parent),
    )
  for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
    // where tables refer to each other there is no order
    const free = waiting.find((one) => !waits(one)) ?? next
    sorted.push(free)
    waiting = waiting.filter((one) => one !== free)
  }
  return sorted
}
