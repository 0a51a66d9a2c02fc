import { type Epoch, epochAt } from '../core/epoch.ts'
import { type Lsn, positionAt, positionPrefix } from '../core/position.ts'
import type { ChangeBuffer } from './change-buffer.ts'
import type { OutboxRows } from './outbox-row.ts'
import { invalid, PgoutputDecoder, type PgoutputHandler, type Relation, type Tuple } from './pgoutput.ts'

const X_LOG_DATA = 0x77
const KEEPALIVE = 0x6b
/** the kind, start LSN, end LSN and send time that stand before the output plugin's message */
const X_LOG_DATA_HEADER = 25
const KEEPALIVE_BYTES = 18

/**
 * From replication messages to changes with their positions: pure, apart from the buffer it fills.
 *
 * The position of a change is its transaction's commit LSN, which Begin tells, with its epoch, and its place among the outbox rows of
 * that transaction, from 1. Row LSNs are not an order and are not looked at (PROTOCOL fact 2).
 */
export class Capture implements PgoutputHandler {
  private epochs: readonly Epoch[] = []
  private readonly rows: OutboxRows
  private readonly buffer: ChangeBuffer
  private readonly requested: (walEnd: Lsn) => void
  private readonly passedOver: (what: string, relation: Relation) => void
  private readonly decoder: PgoutputDecoder
  private prefix = ''
  private index = 0
  private committedAt = 0
  private lastCommit: Lsn = 0n
  private seen: Lsn = 0n

  /**
   * @param requested told that the server asks for a reply, and up to where it would like it to reach
   * @param passedOver told of what is no insert into the outbox
   */
  constructor(
    rows: OutboxRows,
    buffer: ChangeBuffer,
    requested: (walEnd: Lsn) => void,
    passedOver: (what: string, relation: Relation) => void = () => {},
  ) {
    this.rows = rows
    this.buffer = buffer
    this.requested = requested
    this.passedOver = passedOver
    this.decoder = new PgoutputDecoder(this)
  }

  /** Before the first transaction. */
  countEpochs(epochs: readonly Epoch[]): void {
    this.epochs = epochs
  }

  /** how far the server had sent, as far as it told */
  get walEnd(): Lsn {
    return this.seen
  }

  get inTransaction(): boolean {
    return this.decoder.inTransaction
  }

  /** The content of one CopyData frame. @throws MILLRACE_STREAM_INVALID, MILLRACE_OUTBOX_ROW_INVALID … */
  message(buffer: Buffer, start: number, end: number): void {
    const kind = buffer[start]
    if (start >= end) throw invalid('an empty message')
    if (kind === X_LOG_DATA) {
      if (end - start <= X_LOG_DATA_HEADER) throw invalid('a WAL message that ends too early')
      this.decoder.decode(buffer, start + X_LOG_DATA_HEADER, end)
    } else if (kind === KEEPALIVE) {
      if (end - start !== KEEPALIVE_BYTES) throw invalid(`a keepalive of ${end - start} bytes`)
      this.keepalive(buffer.readBigUInt64BE(start + 1), buffer[start + 17] !== 0)
    } else throw invalid(`a message of the unknown kind 0x${(kind ?? 0).toString(16).padStart(2, '0')}`)
  }

  begin(commitLsn: Lsn, committedAt: number): void {
    if (commitLsn <= this.lastCommit) throw invalid('a transaction that commits before the one in front of it')
    this.lastCommit = commitLsn
    this.prefix = positionPrefix(epochAt(this.epochs, commitLsn), commitLsn)
    this.index = 0
    this.committedAt = committedAt
  }

  commit(endLsn: Lsn): void {
    if (endLsn > this.seen) this.seen = endLsn
    this.buffer.complete(endLsn)
  }

  relation(_relation: Relation): void {}

  insert(relation: Relation, tuple: Tuple, bytes: number): void {
    if (!this.rows.isOutbox(relation)) {
      this.passedOver('inserts', relation)
      return
    }
    const position = positionAt(this.prefix, ++this.index)
    this.buffer.add(this.rows.change(relation, tuple, position, this.committedAt, bytes))
  }

  /**
   * What an altered publication sends stays in the WAL when it has been put back: to refuse it here would refuse it for
   * ever. No event is passed over: whatever keeps one from being sent changes the publication's identity.
   */
  foreign(kind: 'update' | 'delete' | 'truncate', relation: Relation): void {
    this.passedOver(`${kind}s`, relation)
  }

  /**
   * A keepalive's WAL end may be confirmed like a commit's when no transaction is open: what lies between holds nothing
   * of ours. This is what lets an idle slot go on (PROTOCOL 1, "Idle database").
   */
  private keepalive(walEnd: Lsn, replyRequested: boolean): void {
    if (walEnd > this.seen) this.seen = walEnd
    if (!this.inTransaction) this.buffer.complete(walEnd)
    if (replyRequested) this.requested(walEnd)
  }
}
