import type { ChangeBatch } from './change.ts'
import type { Epoch, ServerIdentity } from './epoch.ts'
import type { Finding } from './finding.ts'
import type { Lsn } from './position.ts'

/** A source: one database's stream of outbox changes, with its slot. */
export interface Source {
  readonly name: string
  check(): Promise<readonly Finding[]>
  /**
   * Takes the slot (it is the lease: one session at a time) and starts the stream, whose delivery begins with the
   * first transaction that is not confirmed, whole. The lease is one server's: it keeps nobody from the slot of a
   * primary that was replaced and still runs.
   * @throws MILLRACE_SLOT_IN_USE while another process holds it, MILLRACE_SOURCE_STANDBY while the server follows
   *   another one; callers wait and try again
   */
  open(options: { readonly signal: AbortSignal }): Promise<SourceSession>
  /** The copy of the relay's state kept in the source's own database; null before `init`. */
  readonly stateCopy: StateCopy
}

export interface StateCopy {
  read(): Promise<string | null>
  /**
   * Resolves when durable.
   * @param over only where this text stands now (null: none does); absent: whatever stands
   * @returns false: another text stands, and nothing was written
   */
  write(state: string, over?: string | null): Promise<boolean>
}

/** What the source says of itself when a session begins; the relay's state must agree with it. */
export interface SourceIdentity extends ServerIdentity {
  readonly slot: string
  /** changes when what the slot publishes was altered or made anew: rows written in between would be skipped without an error */
  readonly publication: string
  readonly confirmed: Lsn
}

export interface SourceSession {
  readonly identity: SourceIdentity
  /** Tells the epochs of positions, once, before the first `next`: nothing is decoded until then. */
  begin(epochs: readonly Epoch[]): void
  /**
   * The next batch: what has been read, at most `maxChanges` and about `maxBytes`, waiting only when there is nothing.
   * Null when the session was closed by us. While nobody asks, reading stops at a byte budget and the status timer
   * goes on.
   * @throws when the stream breaks; the session is over then
   */
  next(limit: { readonly maxChanges: number; readonly maxBytes: number }): Promise<ChangeBatch | null>
  /**
   * Resolves when what the slot publishes is still what it was when the session began. To be asked before more is
   * confirmed: Postgres skips without a word what an altered publication leaves out, and what is confirmed cannot be
   * asked for again.
   * @throws when it is not, or cannot be told; the session should end then, and the next one refuses to begin
   */
  intact(): Promise<void>
  /** From now on the status messages say this LSN. Only what a durable state covers may be said. */
  confirm(lsn: Lsn): void
  /** the server asked for a reply that it will not get before the next confirm (it may be shutting down): confirm soon */
  readonly wantsConfirm: boolean
  /** how far the server had sent, and when it was last heard (ms) */
  readonly walEnd: Lsn
  readonly heardAt: number
  /** Says the last confirmed LSN, ends the stream and gives the slot back. */
  close(): Promise<void>
}
