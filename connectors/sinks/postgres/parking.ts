import { type Kysely, sql } from 'kysely'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Position } from '../../../src/core/position.ts'
import type { KeyPlace, Parking, ParkReason } from '../../../src/core/sink.ts'
import { sinkError } from './failure.ts'
import { decodeEvent, digestOf } from './parked-event.ts'
import { openRedrive, type RedriveDeps } from './redrive.ts'
import { type Tables, typedTables } from './tables.ts'

const json = <Column extends string>(column: Column) => sql<string>`${sql.ref(column)}::text`.as(column)

/** What people do about the keys that a Postgres sink has parked. */
export function openParking(deps: RedriveDeps): Parking {
  const { pool, schema, sink } = deps
  const db: Kysely<Tables> = typedTables(pool, schema)
  const redrive = openRedrive(deps)

  return {
    totals: () =>
      asked(async () => {
        const { keys, events, bytes } = await db
          .selectFrom('parked')
          .select(({ fn }) => [
            fn.countAll<string>().as('keys'),
            fn.sum<string>('events').as('events'),
            fn.sum<string>('bytes').as('bytes'),
          ])
          .where('sink', '=', sink)
          .executeTakeFirstOrThrow()
        return { keys: Number(keys), events: Number(events), bytes: Number(bytes) }
      }),

    keys: (limit) =>
      asked(async () => {
        const rows = await db
          .selectFrom('parked')
          .select(['topic', 'partition', 'position', 'events', 'bytes', 'parked_at', json('order'), json('reason')])
          .where('sink', '=', sink)
          .orderBy('parked_at')
          .orderBy('topic')
          .orderBy('position')
          .limit(limit)
          .execute()
        return rows.map(({ topic, partition, order, position, reason, events, bytes, parked_at }) => ({
          topic,
          partition,
          order: JSON.parse(order) as string,
          position: position as Position,
          reason: JSON.parse(reason) as ParkReason,
          events: Number(events),
          bytes: Number(bytes),
          since: parked_at,
        }))
      }),

    events: (key, limit) =>
      asked(async () => {
        const rows = await db
          .selectFrom('parked_event')
          .select(['offset', 'value', 'parked_at', json('event'), json('reason')])
          .where((where) => where.and(keyColumns(sink, key)))
          .orderBy('position')
          .limit(limit)
          .execute()
        return rows.map(({ event, value, offset, reason, parked_at }) => ({
          event: decodeEvent(event, value),
          offset: BigInt(offset),
          reason: reason === null ? null : (JSON.parse(reason) as ParkReason),
          parkedAt: parked_at,
        }))
      }),

    redrive: (key, by) => asked(() => redrive(key, by, null)),
    skip: (key, position, by) => asked(() => redrive(key, by, position)),

    audit: (limit) =>
      asked(async () => {
        const rows = await db
          .selectFrom('parked_audit')
          .select([
            'topic',
            'partition',
            'at',
            'action',
            'skipped',
            'applied',
            'remaining',
            json('order'),
            json('actor'),
            json('note'),
          ])
          .where('sink', '=', sink)
          .orderBy('id', 'desc')
          .limit(limit)
          .execute()
        return rows.map(({ order, actor, note, skipped, applied, remaining, ...row }) => ({
          ...row,
          order: JSON.parse(order) as string,
          actor: JSON.parse(actor) as string,
          note: note === null ? null : (JSON.parse(note) as string),
          skipped: skipped as Position | null,
          applied: Number(applied),
          remaining: Number(remaining),
        }))
      }),
  }
}

function keyColumns(sink: string, { topic, partition, order }: KeyPlace) {
  return { sink, topic, partition, digest: digestOf(order) }
}

async function asked<T>(question: () => Promise<T>): Promise<T> {
  try {
    return await question()
  } catch (error) {
    throw error instanceof MillraceError ? error : sinkError(error)
  }
}
