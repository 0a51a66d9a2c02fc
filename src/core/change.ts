import type { MillraceError } from './errors.ts'
import type { Lsn, Position } from './position.ts'

/**
 * A change: one outbox row as decoded from the WAL. Bytes are Postgres' own text, never parsed on the way; they may
 * be views into a larger buffer, so copy what is kept after the batch has been published.
 */
export interface Change {
  readonly position: Position
  /** the transaction's commit time, ms since the Unix epoch; for people, never for order */
  readonly committedAt: number
  readonly id: string
  readonly aggregateType: string
  readonly aggregateId: Uint8Array
  readonly type: string
  /** null is a tombstone: SQL null, made by `millrace.tombstone`; JSON `null` is a payload */
  readonly payload: Uint8Array | null
  /** the JSON text of the headers column */
  readonly headers: string | null
  /** null: the aggregate id orders */
  readonly orderingKey: Uint8Array | null
  readonly version: string
  /** why the row cannot become a whole event, although its place in a chain is known; null for every other */
  readonly fault: MillraceError | null
  /** what it occupies in memory, about; budgets count this */
  readonly bytes: number
}

/** What capture read since the last batch, in commit order. A transaction may span batches, and a batch transactions. */
export interface ChangeBatch {
  readonly changes: readonly Change[]
  /** the sum of the changes' bytes */
  readonly bytes: number
  /**
   * The LSN that may be confirmed once every change up to and including this batch is durable in the queue: the end
   * LSN of the last transaction that is complete by now, or a keepalive's WAL end when no transaction is open.
   * Null: nothing new. Confirm exactly this, never one more (PROTOCOL fact 1: `end + 1` loses the next transaction).
   */
  readonly end: Lsn | null
}
