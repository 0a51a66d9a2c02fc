/**
 * Position: where a change stands in the source's commit order. The only order there is.
 *
 * Text form `eeeeeeee-llllllllllllllll-iiiiiiii`, lower hex: epoch (u32), commit LSN (u64), index within the
 * transaction (u32). The width is fixed, so that positions compare as text in every store, in JavaScript too: use
 * `<`, `>`, `===`. Row LSNs are never an order (they run backwards between interleaved transactions); commit LSNs
 * only grow. Index 0 is kept for snapshot, backfill and refill rows; streamed events count from 1.
 */
export type Position = string & { readonly [positionBrand]: true }
declare const positionBrand: unique symbol

/** A Postgres log sequence number: u64. Text form `X/Y` is for people and Postgres only, it does not sort. */
export type Lsn = bigint

const MAX_U32 = 0xffff_ffff
const MAX_U64 = 0xffff_ffff_ffff_ffffn
const POSITION = /^[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}$/

/** `eeeeeeee-llllllllllllllll-`: one per transaction, the index is appended by {@link positionAt}. */
export function positionPrefix(epoch: number, commitLsn: Lsn): string {
  if (!Number.isInteger(epoch) || epoch < 0 || epoch > MAX_U32) throw new RangeError(`epoch ${epoch} is not a u32`)
  if (commitLsn < 0n || commitLsn > MAX_U64) throw new RangeError(`commit LSN ${commitLsn} is not a u64`)
  return `${epoch.toString(16).padStart(8, '0')}-${commitLsn.toString(16).padStart(16, '0')}-`
}

export function positionAt(prefix: string, index: number): Position {
  if (!Number.isInteger(index) || index < 0 || index > MAX_U32) throw new RangeError(`index ${index} is not a u32`)
  return (prefix + index.toString(16).padStart(8, '0')) as Position
}

export function position(epoch: number, commitLsn: Lsn, index: number): Position {
  return positionAt(positionPrefix(epoch, commitLsn), index)
}

export function isPosition(text: unknown): text is Position {
  return typeof text === 'string' && POSITION.test(text)
}

/** @throws RangeError when the text is not a position */
export function parsePosition(text: string): { epoch: number; commitLsn: Lsn; index: number } {
  if (!isPosition(text)) throw new RangeError(`not a position: ${JSON.stringify(text)}`)
  return {
    epoch: Number.parseInt(text.slice(0, 8), 16),
    commitLsn: BigInt(`0x${text.slice(9, 25)}`),
    index: Number.parseInt(text.slice(26), 16),
  }
}

/** @throws RangeError when the text is not Postgres' `X/Y` */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9a-fA-F]{1,8})\/([0-9a-fA-F]{1,8})$/.exec(text)
  if (!match) throw new RangeError(`not an LSN: ${JSON.stringify(text)}`)
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)
}

export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffff_ffffn).toString(16).toUpperCase()}`
}
