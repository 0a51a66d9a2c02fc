import pg from 'pg'
import { isErrorCode, MillraceError } from '../../../src/core/errors.ts'
import type { Event } from '../../../src/core/event.ts'
import type { Position } from '../../../src/core/position.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { Audit, KeyPlace, ParkReason, Redriven } from '../../../src/core/sink.ts'
import { faultOf, said } from './failure.ts'
import { lockTargets } from './locks.ts'
import type { Ask } from './misfit.ts'
import { asciiJson, decodeEvent, digestOf } from './parked-event.ts'
import { type PlannedStatement, type Planning, planEvents } from './plan.ts'
import { inOneTransaction, StatementFailure } from './transaction.ts'
import { unfit, unfitEvent } from './unfit.ts'

/**
 * Redriving applies what is parked of one key, in its order, by the lane's own plan and statements, as far as it goes.
 *
 * Each portion of it is one transaction, under the locks that the lane takes, in the lane's order: the checkpoint rows of
 * the partition, then the tables that several partitions write. So the owner has either not parked the next event of the
 * key yet, and finds the key free when it comes to it, or has, and the event is redriven with the rest. When the last one is
 * applied the version of the partition's parked keys is raised in the same transaction: an owner that does not know it is
 * refused (MILLRACE_PARKED_CHANGED) and reads the keys again.
 *
 * The events carry the positions they always had. Whatever other keys made of a shared row meanwhile stands, by its guard.
 */
export interface RedriveDeps {
  readonly pool: pg.Pool
  readonly schema: string
  readonly sink: string
  readonly planning: (partition: TopicPartition) => Promise<Planning>
  /** @throws MILLRACE_SOURCE_REFUSED when a table that the events feed belongs to another source */
  readonly admit: (planning: Planning, events: readonly Event[]) => Promise<void>
}

export type Redrive = (key: KeyPlace, by: Audit, skipped: Position | null) => Promise<Redriven>

/** one transaction's portion: the partition stands still so long, a few round trips an event at worst */
const MAX_EVENTS = 200
const MAX_BYTES = 4 * 1024 * 1024
/** deadlocks, and others who redrive the same key, before it is given up */
const MAX_ATTEMPTS = 10

const ITS_KEY = 'sink = $1 and topic = $2 and partition = $3 and digest = $4'

/** The first event was another when its partition was locked than when it was read. */
class Overtaken extends MillraceError {
  constructor({ topic, partition }: TopicPartition) {
    super('MILLRACE_PARKED_CHANGED', `others redrive the same key of ${topic}/${partition}; nothing was done`, {
      remedy: 'look whether it is still parked, and try again',
      fields: { topic, partition },
    })
  }
}

interface Portion {
  readonly applied: number
  readonly remaining: number
  readonly reason: ParkReason | null
  /** whether the next portion may go on */
  readonly more: boolean
  /** the audit record: one for all portions */
  readonly record: string
}

export function openRedrive({ pool, schema, sink, planning: plan, admit }: RedriveDeps): Redrive {
  const s = pg.escapeIdentifier(schema)

  function keyOf({ topic, partition, order }: KeyPlace): readonly unknown[] {
    return [sink, topic, partition, digestOf(order)]
  }

  /** the key's first events, at least one, and no more than a portion */
  async function firstEvents(key: KeyPlace): Promise<readonly Event[]> {
    const { rows } = await pool.query<{ event: string; value: Buffer | null }>(
      `select event::text, value from (
  select event, value, bytes, position, sum(bytes) over (order by position) as total
  from (select * from ${s}.parked_event where ${ITS_KEY} order by position limit ${MAX_EVENTS}) first
) e where total - bytes < ${MAX_BYTES} order by position`,
      [...keyOf(key)],
    )
    return rows.map(({ event, value }) => decodeEvent(event, value))
  }

  async function portion(
    planning: Planning,
    key: KeyPlace,
    by: Audit,
    skipped: Position | null,
    record: string | null,
  ): Promise<Portion> {
    const events = await firstEvents(key)
    const [first] = events
    if (first === undefined || (skipped !== null && first.position !== skipped))
      throw notParked(sink, key, skipped, first ?? null)
    const waiting = skipped === null ? events : events.slice(1)
    const placeholder = waiting.findIndex((event) => event.placeholder !== null)
    const fit = placeholder === -1 ? waiting : waiting.slice(0, placeholder)
    // what it asks of a table it asks on a connection of its own: not under our locks
    await admit(planning, fit)

    return inTransaction(pool, async (client) => {
      await client.query(
        `select from ${s}.checkpoint where sink = $1 and topic = $2 and partition = $3 order by source for update`,
        [sink, key.topic, key.partition],
      )
      const { rows: locked } = await client.query<{ position: string; events: string; reason: string }>(
        `select position, events, reason::text from ${s}.parked where ${ITS_KEY} for update`,
        [...keyOf(key)],
      )
      const stored = locked[0]
      if (stored?.position !== first.position) throw new Overtaken(key)
      const lock = lockTargets(planning, schema)
      if (lock !== null) await inOneTransaction(client, [lock])

      const { applied, refused } = await applyInOrder(client, planning, fit)
      const gone = applied + (waiting === events ? 0 : 1)
      const remaining = Number(stored.events) - gone
      const next = events[gone]
      const why = refused ?? (next?.placeholder ? placeholderError(key, next) : null)
      const reason: ParkReason | null =
        remaining === 0
          ? null
          : why !== null
            ? { code: why.code, message: why.message }
            : // the next portion tries it; if that never comes, this is what is known
              {
                code: (JSON.parse(stored.reason) as ParkReason).code,
                message: 'it waited for what was redriven, and has not been tried since',
              }
      await settle(client, key, events, gone, remaining, reason)
      return {
        applied,
        remaining,
        reason,
        more: remaining > 0 && why === null,
        record: await audited(client, key, by, skipped, applied, remaining, record),
      }
    })
  }

  /**
   * All at once, as a lane does: what a later event makes anew is then not written first, so a value that did not fit may
   * have been mended at the source. Else one by one, which tells the first that does not fit.
   */
  async function applyInOrder(
    client: pg.PoolClient,
    planning: Planning,
    events: readonly Event[],
  ): Promise<{ readonly applied: number; readonly refused: MillraceError | null }> {
    if (events.length === 0) return { applied: 0, refused: null }
    const refused = await attempt(client, planning, events)
    if (refused === null) return { applied: events.length, refused: null }
    if (events.length === 1) return { applied: 0, refused }
    for (const [applied, event] of events.entries()) {
      const alone = await attempt(client, planning, [event])
      if (alone !== null) return { applied, refused: alone }
    }
    return { applied: events.length, refused: null }
  }

  /** @returns why the events cannot be applied; then nothing of them was */
  async function attempt(client: pg.PoolClient, planning: Planning, events: readonly Event[]): Promise<MillraceError | null> {
    let statements: readonly PlannedStatement[]
    try {
      statements = planEvents(planning, events)
    } catch (error) {
      if (error instanceof MillraceError) return error
      throw error
    }
    await client.query('savepoint attempt')
    try {
      // a deferred constraint is asked now: at the commit no event could be told to be at fault
      await inOneTransaction(client, [...statements, { name: null, text: 'set constraints all immediate', values: [] }])
      await client.query('release savepoint attempt')
      return null
    } catch (error) {
      if (!(error instanceof StatementFailure) || error.statement === null) throw error
      const why = said(error)
      const fault = faultOf(why)
      if (fault !== 'data' && fault !== 'constraint') throw error
      await client.query('rollback to savepoint attempt')
      const statement = statements[error.statement]
      const event = events.length === 1 ? (events[0] as Event) : null
      if (event === null || statement === undefined) return unfit(planning.partition, event, fault, why)
      return unfitEvent(probing(client), planning.partition, event, statement, fault, why)
    }
  }

  async function settle(
    client: pg.PoolClient,
    key: KeyPlace,
    events: readonly Event[],
    gone: number,
    remaining: number,
    reason: ParkReason | null,
  ): Promise<void> {
    if (remaining === 0) {
      await client.query(`delete from ${s}.parked_event where ${ITS_KEY}`, [...keyOf(key)])
      await client.query(`delete from ${s}.parked where ${ITS_KEY}`, [...keyOf(key)])
      await client.query(
        `update ${s}.checkpoint set parked_version = parked_version + 1 where sink = $1 and topic = $2 and partition = $3`,
        [sink, key.topic, key.partition],
      )
      return
    }
    const last = events[gone - 1]?.position ?? ''
    await client.query(
      `with gone as (
  delete from ${s}.parked_event where ${ITS_KEY} and position <= $5 returning bytes
), first as (
  update ${s}.parked_event set reason = $6::json
  where ${ITS_KEY} and position = (select min(position) from ${s}.parked_event where ${ITS_KEY} and position > $5)
  returning position
)
update ${s}.parked set position = first.position, reason = $6::json, events = $7,
  bytes = bytes - (select coalesce(sum(gone.bytes), 0) from gone)
from first where ${ITS_KEY}`,
      [...keyOf(key), last, asciiJson(reason), remaining],
    )
  }

  async function audited(
    client: pg.PoolClient,
    { topic, partition, order }: KeyPlace,
    { actor, note }: Audit,
    skipped: Position | null,
    applied: number,
    remaining: number,
    record: string | null,
  ): Promise<string> {
    if (record !== null) {
      await client.query(`update ${s}.parked_audit set applied = applied + $2, remaining = $3 where id = $1`, [
        record,
        applied,
        remaining,
      ])
      return record
    }
    const { rows } = await client.query<{ id: string }>(
      `insert into ${s}.parked_audit (sink, topic, partition, "order", action, skipped, actor, note, applied, remaining)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning id`,
      [
        sink,
        topic,
        partition,
        asciiJson(order),
        skipped === null ? 'redrive' : 'skip',
        skipped,
        asciiJson(actor),
        note === null ? null : asciiJson(note),
        applied,
        remaining,
      ],
    )
    return rows[0]?.id as string
  }

  return async (key, by, skipped) => {
    const planning = await plan(key)
    let applied = 0
    let record: string | null = null
    for (let attempts = 1; ; ) {
      let done: Portion
      try {
        done = await portion(planning, key, by, record === null ? skipped : null, record)
      } catch (error) {
        // another one redrove what was left of it
        if (record !== null && error instanceof MillraceError && error.code === 'MILLRACE_NOT_PARKED')
          return { applied, remaining: 0, reason: null }
        const again = error instanceof Overtaken || faultOf(said(error)) === 'concurrency'
        if (!again || ++attempts > MAX_ATTEMPTS) throw error
        continue
      }
      applied += done.applied
      record = done.record
      if (!done.more) return { applied, remaining: done.remaining, reason: done.reason }
    }
  }
}

/** asks within the transaction, which a failed question would end: no other connection may be free */
function probing(client: pg.PoolClient): Ask {
  return async (text, values) => {
    await client.query('savepoint probe')
    try {
      return await client.query(text, values)
    } catch (error) {
      await client.query('rollback to savepoint probe')
      throw error
    }
  }
}

async function inTransaction<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect()
  let broken = false
  try {
    await client.query('begin')
    const result = await work(client)
    await client.query('commit')
    return result
  } catch (error) {
    await client.query('rollback').catch(() => {
      broken = true
    })
    throw error
  } finally {
    client.release(broken)
  }
}

function placeholderError({ topic, partition }: TopicPartition, { position, type, id, placeholder }: Event): MillraceError {
  return new MillraceError(
    placeholder !== null && isErrorCode(placeholder) ? placeholder : 'MILLRACE_RECORD_INVALID',
    `the event ${position} (${type}, id ${id}) of ${topic}/${partition} could not be published whole (${placeholder}): its payload is in the outbox only, so nothing can be applied; bring its row to the right state by hand, then skip it`,
  )
}

function notParked(sink: string, { topic, partition }: KeyPlace, skipped: Position | null, first: Event | null): MillraceError {
  const fields = { sink, topic, partition }
  if (first === null)
    return new MillraceError('MILLRACE_NOT_PARKED', `the sink ${sink} has not parked this key of ${topic}/${partition}`, {
      remedy: `millrace parked list ${sink} names the keys that are parked`,
      fields,
    })
  return new MillraceError(
    'MILLRACE_NOT_PARKED',
    `the first event that the sink ${sink} has parked of this key of ${topic}/${partition} stands at ${first.position}, not at ${skipped}; nothing was skipped`,
    {
      remedy: `look at it with millrace parked show ${sink}, then skip it by its position`,
      fields: { ...fields, position: first.position },
    },
  )
}
