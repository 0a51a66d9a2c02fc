import pg from 'pg'
import type { Copy, Difference, Mended, Refused } from '../../../src/core/copy.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { Lane } from '../../../src/core/sink.ts'
import { openApart } from './apart.ts'
import { openBookkeeping } from './bookkeeping.ts'
import { type Compared, compareNext, copyBehind, lookAgain } from './compare.ts'
import type { Hold } from './copy-hold.ts'
import { dropCopy, keepJob } from './copy-record.ts'
import { type CopyTarget, copiedFeed, copiedRows, emptySharedSql } from './copy-tables.ts'
import { type Schemas, targetSql } from './differences.ts'
import { asSinkError, faultOf, said } from './failure.ts'
import { openLane } from './lane.ts'
import type { Feed, KeptMapping } from './mapping.ts'
import { lockWriters, mendTarget } from './mend.ts'
import type { Planning } from './plan.ts'
import { adoptMapping, haltSink, takeMarkers } from './remap.ts'
import { hasSelection, selectKeys } from './selection.ts'
import type { Unstalling } from './stalled.ts'
import { type FeedStatements, feedStatements } from './statements.ts'
import { carryRows, obstaclesOf, requireReached, swapTarget } from './swap.ts'

/** What a copy is made of, by the mapping as it is. */
export interface CopyParts {
  /** the sink's own */
  readonly feeds: readonly Feed[]
  readonly targets: readonly CopyTarget[]
  /** by target */
  readonly mapping: Readonly<Record<string, KeptMapping>>
  /** the sink's rows were written by another */
  readonly remapped: boolean
}

export interface CopyDeps extends CopyParts {
  readonly pool: pg.Pool
  readonly sink: string
  /** the pipeline's own source */
  readonly pipeline: string
  readonly schemas: Schemas
  readonly planning: (feeds: readonly Feed[], partition: TopicPartition, statements: (feed: Feed) => FeedStatements) => Planning
  readonly unstall: Unstalling
}

/** deadlocks with those who write beside us */
const MAX_ATTEMPTS = 5

const id = pg.escapeIdentifier

export async function openCopy(deps: CopyDeps, hold: Hold, kept: string): Promise<Copy> {
  const { pool, sink, pipeline, schemas, targets, unstall } = deps
  const bookkeeping = openBookkeeping(pool, schemas.copy, sink, pipeline)
  const feeds = deps.feeds.map((feed) => copiedFeed(feed, targets, schemas.copy))
  const sources = new Map<string, string>()
  const remapping = { schema: schemas.book, sink, mapping: deps.mapping }
  let { remapped } = deps
  let job = kept
  let selected = await hold.run((client) => hasSelection(client, schemas.book, sink))

  async function compared(client: pg.ClientBase, name: string): Promise<Compared> {
    const target = targets.find((one) => one.target.name === name)
    if (target === undefined) throw new RangeError(`the sink ${sink} has no target ${name}`)
    let source = sources.get(name) ?? null
    if (source === null) {
      const { rows } = await client.query<{ source: string | null }>(
        `select source from ${id(schemas.book)}.target where sink = $1 and target = $2`,
        [sink, name],
      )
      source = rows[0]?.source ?? null
      if (source !== null) sources.set(name, source)
    }
    return { sink, schemas, target, source }
  }

  /** by target, in the order of the targets */
  async function byTarget(
    client: pg.ClientBase,
    keys: readonly Difference[],
  ): Promise<readonly (readonly [Compared, readonly Difference[]])[]> {
    const groups = Map.groupBy(keys, ({ target }) => target)
    const found: (readonly [Compared, readonly Difference[]])[] = []
    for (const {
      target: { name },
    } of targets.filter(({ target }) => groups.has(target.name)))
      found.push([await compared(client, name), groups.get(name) as Difference[]])
    return found
  }

  async function allCompared(client: pg.ClientBase): Promise<readonly Compared[]> {
    const all: Compared[] = []
    for (const { target } of targets) all.push(await compared(client, target.name))
    return all
  }

  async function mendOnce(keys: readonly Difference[], extras: boolean): Promise<Mended> {
    return hold.transaction(async (client) => {
      const groups = await byTarget(client, keys)
      await lockWriters(
        client,
        schemas.book,
        groups.map(([one]) => one),
      )
      const refused: Refused[] = []
      const total = { written: 0, removed: 0, left: 0 }
      for (const [one, own] of groups) {
        const mended = await mendTarget(client, one, own, { extras })
        total.written += mended.written
        total.removed += mended.removed
        total.left += mended.left
        refused.push(...mended.refused)
      }
      return { ...total, refused }
    })
  }

  async function mend(keys: readonly Difference[], extras: boolean): Promise<Mended> {
    for (let attempt = 1; ; attempt++)
      try {
        return await mendOnce(keys, extras)
      } catch (error) {
        if (faultOf(said(error)) !== 'concurrency' || attempt === MAX_ATTEMPTS) throw error
      }
  }

  async function swap(last: () => Promise<void>): Promise<void> {
    await hold.transaction(async (client) => {
      const all = await allCompared(client)
      // whoever still applies by the old mapping would go on in the new table
      if (remapped) await haltSink(client, remapping)
      await lockWriters(client, schemas.book, all)
      await hold.within(() => inTime(last(), all))
      for (const one of all) await requireReached(client, one)
      for (const one of all) await swapTarget(client, one)
      if (remapped) await adoptMapping(client, remapping, all)
      else for (const one of all) await takeMarkers(client, one)
      // a crash after the commit finds nothing left to be done
      await dropCopy(client, schemas, sink)
    })
    remapped = false
  }

  async function foldLane(partition: TopicPartition): Promise<Lane> {
    const { topic, partition: number } = partition
    for (const { target } of targets)
      await pool.query(
        `insert into ${id(schemas.copy)}.target (sink, target, mapping) values ($1, $2, '{}') on conflict do nothing`,
        [sink, target.name],
      )
    const planning = {
      ...deps.planning(feeds, partition, (feed) =>
        feedStatements(feed, schemas.copy, copiedRows(feed, targets, schemas.copy, partition)),
      ),
      // they passed when the sink itself applied them
      unknownFields: () => {},
    }
    const claim = await bookkeeping.claim(partition)
    const lane = openLane(
      {
        pool,
        bookkeeping,
        schema: schemas.copy,
        planning,
        parker: openApart(pool, schemas.copy, planning),
        // of a source that the sink refuses nothing lies below its checkpoint
        admit: async () => {},
        applied: () => {},
      },
      claim,
    )
    const beginsWhole = () =>
      pool.query(`update ${id(schemas.copy)}.checkpoint set whole = true where sink = $1 and topic = $2 and partition = $3`, [
        sink,
        topic,
        number,
      ])
    // before anything is applied, and again where we broke off between the two
    let begun = claim.checkpoint.offset !== null
    if (claim.checkpoint.offset === 0n) await beginsWhole()
    return {
      ...lane,
      async apply(batch) {
        await lane.apply(batch)
        if (!begun && batch.offset === 0n) await beginsWhole()
        begun = true
      },
    }
  }

  return {
    get job() {
      return job
    },

    keep: (text) =>
      asSinkError(async () => {
        const wish = await hold.run((client) => keepJob(client, schemas.book, sink, text))
        job = text
        return wish
      }),

    fold: (partition) => asSinkError(() => foldLane(partition)),

    select: () =>
      asSinkError(async () => {
        const count = await hold.transaction((client) => selectKeys(client, deps))
        selected = true
        return count
      }),

    restart: () =>
      asSinkError(() =>
        hold.transaction(async (client) => {
          for (const target of targets) await client.query(`truncate ${targetSql(target, schemas).rows}`)
          for (const statement of emptySharedSql(schemas.copy)) await client.query(statement, [sink])
        }),
      ),

    targets: targets.map(({ target }) => target.name),

    compare: (target, after, options) =>
      asSinkError(() =>
        hold.run(async (client) => compareNext(client, await compared(client, target), selected, after, options)),
      ),

    recheck: (keys, { reach }) =>
      asSinkError(() =>
        hold.run(async (client) => {
          const found: Difference[] = []
          for (const [one, own] of await byTarget(client, keys)) found.push(...(await lookAgain(client, one, own, reach)))
          return found
        }),
      ),

    mend: (keys, { extras }) => unstall(() => asSinkError(() => mend(keys, extras))),

    get remapped() {
      return remapped
    },

    halt: () => asSinkError(() => hold.transaction((client) => haltSink(client, remapping))),

    adopt: () =>
      asSinkError(async () => {
        await hold.transaction(async (client) => adoptMapping(client, remapping, await allCompared(client)))
        remapped = false
      }),

    obstacles: () =>
      asSinkError(() =>
        hold.run(async (client) => {
          const found: string[] = []
          for (const one of await allCompared(client)) found.push(...(await obstaclesOf(client, one)))
          return found
        }),
      ),

    carry: (keys) =>
      asSinkError(() =>
        hold.run(async (client) => {
          let rows = 0
          for (const [one, own] of await byTarget(client, keys)) rows += await carryRows(client, one, own)
          return rows
        }),
      ),

    swap: (last) => unstall(() => asSinkError(() => swap(last))),

    close: () => hold.release(),

    drop: () =>
      asSinkError(async () => {
        await hold.transaction((client) => dropCopy(client, schemas, sink))
        await hold.release()
      }),
  }
}

/** how long all partitions may stand still for the last part of the fold (ms) */
const SWAP_TIME = 10_000

async function inTime(work: Promise<void>, compared: readonly Compared[]): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(copyBehind(compared[0] as Compared, `it was not reached in ${SWAP_TIME} ms`)), SWAP_TIME)
  })
  try {
    await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
