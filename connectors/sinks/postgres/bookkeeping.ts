import { type Kysely, type Selectable, sql } from 'kysely'
import type pg from 'pg'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Position } from '../../../src/core/position.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { PartitionCheckpoint } from '../../../src/core/sink.ts'
import type { KeptMapping } from './mapping.ts'
import { type Tables, typedTables } from './tables.ts'

/** A partition in the hands of an owner. */
export interface Claim {
  readonly epoch: bigint
  /** how often a key was parked no more, as far as the owner knows */
  readonly parkedVersion: string
  /** the sources that have a row */
  readonly sources: ReadonlySet<string>
  readonly checkpoint: PartitionCheckpoint
}

export interface KeptTarget {
  readonly target: string
  readonly source: string | null
  readonly mapping: KeptMapping
}

export interface Bookkeeping {
  checkpoints(): Promise<readonly PartitionCheckpoint[]>
  /** raises the owner epoch of the partition's rows; the row of the pipeline's own source is made when it is missing */
  claim(partition: TopicPartition): Promise<Claim>
  /**
   * Waits for what the owner has under way: a transaction whose connection broke may still be running, and would
   * commit after a look that did not ask for its locks.
   * @throws MILLRACE_SINK_FENCED when the epoch is not the given one any more
   */
  reread(partition: TopicPartition, epoch: bigint): Promise<Claim>
  targets(): Promise<readonly KeptTarget[]>
  keepTarget(target: string, mapping: KeptMapping): Promise<void>
  /** the source a target is fed by: the given one, if it had none */
  sourceOf(target: string, source: string): Promise<string>
}

type Row = Pick<
  Selectable<Tables['checkpoint']>,
  'source' | 'topic' | 'partition' | 'position' | 'offset' | 'owner_epoch' | 'parked_version' | 'beginning'
>
const COLUMNS = ['source', 'topic', 'partition', 'position', 'offset', 'owner_epoch', 'parked_version', 'beginning'] as const

export function openBookkeeping(pool: pg.Pool, schema: string, sink: string, ownSource: string): Bookkeeping {
  const db = typedTables(pool, schema)
  const rowsOf = ({ topic, partition }: TopicPartition) => ({ sink, topic, partition })
  const parkedIn = async (on: Kysely<Tables>, partition: TopicPartition): Promise<ReadonlySet<string>> => {
    const keys = await on
      .selectFrom('parked')
      .select(orderText)
      .where((where) => where.and(rowsOf(partition)))
      .execute()
    return new Set(keys.map(orderOfRow))
  }

  return {
    async checkpoints() {
      const rows = await db
        .selectFrom('checkpoint')
        .select(COLUMNS)
        .where('sink', '=', sink)
        .orderBy('topic')
        .orderBy('partition')
        .execute()
      const keys = await db.selectFrom('parked').select(['topic', 'partition', orderText]).where('sink', '=', sink).execute()
      const placeOf = ({ topic, partition }: TopicPartition): string => `${topic}/${partition}`
      const parked = Map.groupBy(keys, placeOf)
      return [...Map.groupBy(rows, placeOf)].map(([place, group]) =>
        checkpointOf(group[0] as Row, group, new Set(parked.get(place)?.map(orderOfRow))),
      )
    },

    claim: (partition) =>
      db.transaction().execute(async (tx) => {
        const own = { ...rowsOf(partition), source: ownSource }
        await tx
          .insertInto('checkpoint')
          .values({
            ...own,
            position: null,
            offset: null,
            beginning: null,
            owner_epoch: '0',
            updated_at: sql<Date>`clock_timestamp()`,
          })
          .onConflict((conflict) => conflict.doNothing())
          .execute()
        // the lock first, in a statement of its own: the next one then sees the rows that a former owner added
        const { owner_epoch, parked_version } = await tx
          .selectFrom('checkpoint')
          .select(['owner_epoch', 'parked_version'])
          .where((where) => where.and(own))
          .forUpdate()
          .executeTakeFirstOrThrow()
        const epoch = BigInt(owner_epoch) + 1n
        const rows = await tx
          .updateTable('checkpoint')
          .set({ owner_epoch: String(epoch), parked_version, updated_at: sql<Date>`clock_timestamp()` })
          .where((where) => where.and(rowsOf(partition)))
          .returning(COLUMNS)
          .execute()
        return claimOf(partition, epoch, rows, await parkedIn(tx, partition))
      }),

    reread: (partition, epoch) =>
      db.transaction().execute(async (tx) => {
        const select = tx
          .selectFrom('checkpoint')
          .select(COLUMNS)
          .where((where) => where.and(rowsOf(partition)))
          .orderBy('source')
        await select.forUpdate().execute()
        const rows = await select.execute()
        if (rows.length === 0 || rows.some(({ owner_epoch }) => BigInt(owner_epoch) !== epoch)) throw fenced(partition)
        return claimOf(partition, epoch, rows, await parkedIn(tx, partition))
      }),

    targets: () => db.selectFrom('target').select(['target', 'source', 'mapping']).where('sink', '=', sink).execute(),

    async keepTarget(target, mapping) {
      const text = sql<KeptMapping>`${JSON.stringify(mapping)}::json`
      await db
        .insertInto('target')
        .values({ sink, target, source: null, mapping: text, forgotten_below: null })
        .onConflict((conflict) => conflict.columns(['sink', 'target']).doUpdateSet({ mapping: text }))
        .execute()
    },

    async sourceOf(target, source) {
      const { source: kept } = await db
        .updateTable('target')
        .set({ source: sql<string>`coalesce(source, ${source})` })
        .where('sink', '=', sink)
        .where('target', '=', target)
        .returning('source')
        .executeTakeFirstOrThrow()
      return kept as string
    },
  }
}

const orderText = sql<string>`"order"::text`.as('order')
const orderOfRow = ({ order }: { readonly order: string }): string => JSON.parse(order) as string

function claimOf(partition: TopicPartition, epoch: bigint, rows: readonly Row[], parked: ReadonlySet<string>): Claim {
  return {
    epoch,
    parkedVersion: (rows[0] as Row).parked_version,
    sources: new Set(rows.map(({ source }) => source)),
    checkpoint: checkpointOf(partition, rows, parked),
  }
}

function checkpointOf(
  { topic, partition }: TopicPartition,
  rows: readonly Row[],
  parked: ReadonlySet<string>,
): PartitionCheckpoint {
  const offset = rows.find((row) => row.offset !== null)?.offset ?? null
  const positions = rows.flatMap(({ source, position }) => (position === null ? [] : [[source, position as Position] as const]))
  const beginning = rows.find((row) => row.beginning !== null)?.beginning ?? null
  return { topic, partition, positions: new Map(positions), offset: offset === null ? null : BigInt(offset), parked, beginning }
}

export function fenced({ topic, partition }: TopicPartition): MillraceError {
  return new MillraceError(
    'MILLRACE_SINK_FENCED',
    `another owner has ${topic}/${partition}, or its checkpoint was moved; nothing was written`,
    {
      remedy: 'nothing, if another process took the partition over; else look for two pipelines that use one sink name',
      fields: { topic, partition },
    },
  )
}
