import type { Lsn } from '../core/position.ts'

/** 2000-01-01 in ms since 1970 */
const POSTGRES_EPOCH = 946_684_800_000

/**
 * A standby status update in its CopyData frame. Written, flushed and applied are the same: what is durable in the
 * queue. Exactly that LSN: Postgres delivers a transaction again iff its commit LSN >= the confirmed one, and the next
 * commit may begin at the very end of the last, so that one more would lose it (PROTOCOL fact 1).
 *
 * @param now ms since the Unix epoch; only shown in pg_stat_replication
 * @param reply asks the server to answer at once: a ping
 */
export function statusUpdate(confirmed: Lsn, now: number, reply: boolean): Buffer {
  const frame = Buffer.alloc(39)
  frame[0] = 0x64
  frame.writeUInt32BE(38, 1)
  frame[5] = 0x72
  frame.writeBigUInt64BE(confirmed, 6)
  frame.writeBigUInt64BE(confirmed, 14)
  frame.writeBigUInt64BE(confirmed, 22)
  frame.writeBigInt64BE(BigInt(Math.floor(now) - POSTGRES_EPOCH) * 1_000n, 30)
  frame[38] = reply ? 1 : 0
  return frame
}

/** CopyDone: we want no more */
export const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4])
