import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { backoff } from '../core/backoff.ts'
import type { Log } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import type { TableName } from './options.ts'
import { quoted } from './publication.ts'

/**
 * Rows leave the outbox once they have been relayed and are past their retention; a row that is not confirmed never does.
 *
 * The rule. One statement reads some expired ids and, with them, the WAL's insert position. Whatever its snapshot shows
 * had written its commit record before the snapshot was taken, so below that position. Those ids, and no others, are
 * deleted once the slot is confirmed up to it. So it does not matter when a row says it was created: one of a transaction
 * that stayed open for days is not among the ids before it has committed, and then waits for its own confirmation.
 *
 * A fast pass walks from the smallest id until a look finds nothing expired: ids of version 7 sort by time. A full pass
 * walks all, for ids that do not (version 4, a writer's wrong clock); it runs rarely.
 *
 * Writers never wait for it: deleting takes no lock that an insert asks for. Every statement is a short transaction of
 * its own, so that vacuum can take away what it leaves.
 */
export interface HousekeepingOptions {
  /** an ordinary connection, outside any pooler; it is ended by housekeeping */
  readonly connect: () => Promise<pg.Client>
  readonly table: TableName
  /** default: `id`, `created_at` */
  readonly columns?: { readonly id: string; readonly createdAt: string } | undefined
  readonly slot: string
  /** by `created_at` and the server's clock (ms) */
  readonly retentionMs: number
  readonly log: Log
  /** ms, never running backwards */
  readonly now: () => number
  readonly random?: (() => number) | undefined
  /** between the beginnings of two passes (ms). Default: 60 s */
  readonly intervalMs?: number | undefined
  /** between two full passes (ms). Default: 24 h, and once at the start */
  readonly fullPassEveryMs?: number | undefined
  /** how long a pass waits for the relay to confirm what it wants to delete (ms). Default: 30 s */
  readonly confirmWithinMs?: number | undefined
}

export interface Sweep {
  readonly deleted: number
  /**
   * `done`: nothing expired is left where the pass looks. `unconfirmed`: expired rows are left that the relay has not
   * confirmed in time. `busy`: another process keeps this house.
   */
  readonly outcome: 'done' | 'unconfirmed' | 'busy'
}

/** ids in one look: what one wait for a confirmation is shared by */
const LOOK_ROWS = 10_000
/** rows of one delete, some ms of work */
const DELETE_ROWS = 500
const CONFIRM_POLL = 100
/** one process at a time, per slot */
const LOCK = "hashtextextended('millrace.housekeeping.' || $1, 0)"
const SESSION =
  "set lock_timeout = '1s'; set statement_timeout = '30s'; set idle_in_transaction_session_timeout = '10s'; set application_name = 'millrace_housekeeping'"

/**
 * Sweeps until the signal says to stop; trouble is logged and tried again. To be run beside a live relay session only:
 * the slot of a relay that has halted may have been moved by somebody else.
 */
export async function startHousekeeping(options: HousekeepingOptions & { readonly signal: AbortSignal }): Promise<void> {
  const { log, now, signal, intervalMs = 60_000, fullPassEveryMs = 86_400_000, random = Math.random } = options
  let fullPassAt = Number.NEGATIVE_INFINITY
  let failures = 0
  while (!signal.aborted) {
    const startedAt = now()
    const full = startedAt - fullPassAt >= fullPassEveryMs
    let wait = intervalMs
    try {
      const { deleted, outcome } = await sweep({ ...options, full, signal })
      if (outcome === 'done' && full && !signal.aborted) fullPassAt = startedAt
      if (deleted > 0)
        log.debug({ deleted, outcome, full, ms: now() - startedAt }, 'relayed rows past their retention were deleted')
      if (outcome === 'unconfirmed') log.warn({ deleted }, 'expired rows stay in the outbox: the relay has not confirmed them')
      failures = 0
    } catch (error) {
      if (signal.aborted) break
      log.warn({ error }, 'housekeeping of the outbox failed and will be tried again')
      wait = Math.max(backoff(++failures, random, { base: 1_000, cap: intervalMs }), 1)
    }
    await sleep(Math.max(wait - (now() - startedAt), 0), undefined, { signal }).catch(() => {})
  }
}

/** One pass over a connection of its own. */
export async function sweep(
  options: Omit<HousekeepingOptions, 'log'> & { readonly full: boolean; readonly signal?: AbortSignal | undefined },
): Promise<Sweep> {
  const client = await options.connect()
  // told by the statement that is under way
  client.on('error', () => {})
  try {
    await client.query(SESSION)
    const { rows } = await client.query(`select pg_try_advisory_lock(${LOCK}) as mine`, [options.slot])
    if (!rows[0].mine) return { deleted: 0, outcome: 'busy' }
    const swept = await pass(client, options)
    // the server ends a session a moment after its client does, and the next pass may come before
    await client.query(`select pg_advisory_unlock(${LOCK})`, [options.slot])
    return swept
  } finally {
    await client.end().catch(() => {})
  }
}

async function pass(client: pg.Client, options: Parameters<typeof sweep>[0]): Promise<Sweep> {
  const { full, signal, slot } = options
  const outbox = await describe(client, options)
  const stopped = (): boolean => signal?.aborted === true
  let deleted = 0
  let after: string | null = null
  while (!stopped()) {
    const look: Look = await lookAt(client, outbox, after, options.retentionMs)
    if (look.expired.length > 0) {
      if (!(await confirmed(client, look.wal, options))) return { deleted, outcome: 'unconfirmed' }
      for (let at = 0; at < look.expired.length && !stopped(); at += DELETE_ROWS) {
        const startedAt = options.now()
        const count = await remove(client, outbox, look.expired.slice(at, at + DELETE_ROWS), slot, look.wal)
        // the relay has given the slot back meanwhile, or all were gone
        if (count === null) return { deleted, outcome: 'unconfirmed' }
        deleted += count
        // half of the time at most, so that writers and the relay have the disk
        await sleep(options.now() - startedAt)
      }
    }
    if (look.last === null || (!full && look.expired.length === 0)) break
    after = look.last
  }
  return { deleted, outcome: 'done' }
}

interface Outbox {
  /** escaped, as the following */
  readonly table: string
  readonly id: string
  readonly createdAt: string
  /** of the id */
  readonly type: string
}

async function describe(client: pg.Client, { table, columns }: Pick<HousekeepingOptions, 'table' | 'columns'>): Promise<Outbox> {
  const { id, createdAt } = columns ?? { id: 'id', createdAt: 'created_at' }
  const name = `${quoted(table.schema)}.${quoted(table.name)}`
  const { rows } = await client.query(
    `select format_type(atttypid, null) as type from pg_attribute
     where attrelid = to_regclass($1) and attname = $2 and attnum > 0 and not attisdropped`,
    [name, id],
  )
  if (rows[0] === undefined)
    throw new MillraceError(
      'MILLRACE_SCHEMA_OUTDATED',
      `the outbox ${table.schema}.${table.name} with its column ${id} does not exist`,
      {
        remedy: 'apply the migrations, or correct source.outbox',
      },
    )
  return { table: name, id: quoted(id), createdAt: quoted(createdAt), type: rows[0].type }
}

interface Look {
  /** ids as text */
  readonly expired: readonly string[]
  /** the id to go on after; null: the end was reached */
  readonly last: string | null
  /** the WAL's insert position: everything that was seen committed below it */
  readonly wal: string
}

/**
 * The position is asked for after the snapshot and before the rows: reading them can write WAL (it tidies pages), which
 * on a quiet server nobody flushes for a while, and what is not flushed is not confirmed.
 */
async function lookAt(client: pg.Client, outbox: Outbox, after: string | null, retentionMs: number): Promise<Look> {
  const { table, id, createdAt, type } = outbox
  const { rows } = await client.query(
    `with horizon as materialized (select pg_current_wal_insert_lsn() as wal),
     seen as materialized (
       select ${id} as id, ${createdAt} < clock_timestamp() - $2::float8 * interval '1 ms' as expired
       from ${table} where (select wal from horizon) is not null ${after === null ? '' : `and ${id} > $3::text::${type}`}
       order by ${id} limit $1
     )
     select (select wal::text from horizon) as wal,
       array(select id::text from seen where expired order by id) as expired,
       (select id::text from seen order by seen.id desc limit 1) as last,
       (select count(*) from seen)::int as count`,
    after === null ? [LOOK_ROWS, retentionMs] : [LOOK_ROWS, retentionMs, after],
  )
  const { expired, last, count, wal } = rows[0]
  return { expired, last: count < LOOK_ROWS ? null : last, wal }
}

/**
 * Held by a relay, and confirmed. A slot that nobody holds may just have been made again, or advanced, by somebody who
 * relays nothing; a session that takes it is refused then.
 */
const CONFIRMED =
  'exists (select from pg_replication_slots where slot_name = $1 and database = current_database() and active and confirmed_flush_lsn >= $2::text::pg_lsn)'

async function confirmed(
  client: pg.Client,
  wal: string,
  {
    slot,
    now,
    signal,
    confirmWithinMs = 30_000,
  }: Pick<Parameters<typeof sweep>[0], 'slot' | 'now' | 'signal' | 'confirmWithinMs'>,
): Promise<boolean> {
  const deadline = now() + confirmWithinMs
  for (;;) {
    const { rows } = await client.query(`select ${CONFIRMED} as confirmed`, [slot, wal])
    if (rows[0].confirmed) return true
    if (now() >= deadline || signal?.aborted === true) return false
    await sleep(CONFIRM_POLL, undefined, signal === undefined ? {} : { signal }).catch(() => {})
  }
}

/** How many it deleted; null when the slot no longer says that it may. The condition is asked in the statement itself. */
async function remove(
  client: pg.Client,
  outbox: Outbox,
  ids: readonly string[],
  slot: string,
  wal: string,
): Promise<number | null> {
  const { table, id, type } = outbox
  const { rows } = await client.query(
    `with may as materialized (select ${CONFIRMED} as may),
     gone as (delete from ${table} where ${id} = any($3::text[]::${type}[]) and (select may from may) returning 1)
     select (select may from may) as may, (select count(*) from gone)::int as deleted`,
    [slot, wal, ids],
  )
  return rows[0].may ? rows[0].deleted : null
}
