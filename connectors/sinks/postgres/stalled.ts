import type pg from 'pg'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Lane } from '../../../src/core/sink.ts'

const LOCK_NOT_AVAILABLE = '55P03'

/**
 * Runs the work. Where it did not get a lock in time, sessions of this sink are ended that have waited inside a transaction
 * for more of it to be sent, for longer than a session may be idle there; the next attempt then gets the lock.
 *
 * A batch is sent without a Sync before its end, and until then none of the server's own time-outs counts: neither
 * `idle_in_transaction_session_timeout` nor, between two statements, `statement_timeout` (PG 15 and 18: a test says so). An
 * owner that was suspended, or whose network went away, would keep its locks for as long as its connection seems to live.
 */
export type Unstalling = <T>(work: () => Promise<T>) => Promise<T>

/** @param patience ms */
export function unstalling(pool: pg.Pool, patience: number): Unstalling {
  return async (work) => {
    try {
      return await work()
    } catch (error) {
      if (error instanceof MillraceError && error.fields['cause'] === LOCK_NOT_AVAILABLE)
        await endStalled(pool, patience).catch(() => {})
      throw error
    }
  }
}

export function unstallingLane(lane: Lane, unstall: Unstalling): Lane {
  return { ...lane, apply: (batch) => unstall(() => lane.apply(batch)), reread: () => unstall(() => lane.reread()) }
}

/** Needs no right: they are of our own role. */
async function endStalled(pool: pg.Pool, patience: number): Promise<void> {
  await pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where pid <> pg_backend_pid() and datname = current_database() and usename = current_user
       and application_name = current_setting('application_name')
       and state = 'active' and wait_event = 'ClientRead' and xact_start is not null
       and state_change < clock_timestamp() - $1 * interval '1 ms'`,
    [patience],
  )
}
