/** Writes what a walsender sends, for tests of the reading side. */
export const frame = (type: string, content: Buffer): Buffer => {
  const head = Buffer.alloc(5)
  head[0] = type.charCodeAt(0)
  head.writeUInt32BE(content.length + 4, 1)
  return Buffer.concat([head, content])
}

const u16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}
const u64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  return bytes
}
const cstring = (text: string): Buffer => Buffer.from(`${text}\0`)

export const walData = (message: Buffer, at = 0n): Buffer =>
  frame('d', Buffer.concat([Buffer.from('w'), u64(at), u64(0n), u64(0n), message]))

export const keepalive = (walEnd: bigint, reply = false): Buffer =>
  frame('d', Buffer.concat([Buffer.from('k'), u64(walEnd), u64(0n), Buffer.from([reply ? 1 : 0])]))

export const begin = (commitLsn: bigint, micros = 0n): Buffer =>
  walData(Buffer.concat([Buffer.from('B'), u64(commitLsn), u64(micros), u32(7)]))

export const commit = (commitLsn: bigint, endLsn: bigint): Buffer =>
  walData(Buffer.concat([Buffer.from('C'), Buffer.alloc(1), u64(commitLsn), u64(endLsn), u64(0n)]))

export const relation = (
  oid: number,
  schema: string,
  name: string,
  columns: readonly (readonly [name: string, type: number])[],
): Buffer =>
  walData(
    Buffer.concat([
      Buffer.from('R'),
      u32(oid),
      cstring(schema),
      cstring(name),
      Buffer.from('d'),
      u16(columns.length),
      ...columns.map(([column, type]) => Buffer.concat([Buffer.alloc(1), cstring(column), u32(type), u32(0xffffffff)])),
    ]),
  )

export const row = (kind: 'I' | 'U' | 'D', oid: number, values: readonly (string | null)[], at = 0n): Buffer =>
  walData(
    Buffer.concat([
      Buffer.from(kind),
      u32(oid),
      Buffer.from(kind === 'D' ? 'K' : 'N'),
      u16(values.length),
      ...values.map((value) => {
        if (value === null) return Buffer.from('n')
        const bytes = Buffer.from(value)
        return Buffer.concat([Buffer.from('t'), u32(bytes.length), bytes])
      }),
    ]),
    at,
  )

export const OUTBOX_COLUMNS = [
  ['id', 2950],
  ['aggregate_type', 25],
  ['aggregate_id', 25],
  ['type', 25],
  ['payload', 114],
  ['headers', 114],
  ['ordering_key', 25],
  ['version', 23],
] as const

export const outboxRelation = (oid = 1): Buffer => relation(oid, 'millrace', 'outbox', OUTBOX_COLUMNS)

/** `at`: its own LSN, which no order may be taken from */
export const outboxRow = (aggregateId: string, payload: string | null = '{"total":1.10}', oid = 1, at = 0n): Buffer =>
  row('I', oid, ['b6c5e0a2-0000-4000-8000-000000000000', 'order', aggregateId, 'OrderPlaced', payload, null, null, '1'], at)
