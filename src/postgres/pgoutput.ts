import { MillraceError } from '../core/errors.ts'
import type { Lsn } from '../core/position.ts'

/**
 * Decodes pgoutput messages of protocol version 1 (text values, no streaming, no two-phase) in place.
 *
 * Nothing in the bytes is trusted: every read is checked against the message's end, and the messages must come in an
 * order that makes sense. What does not ends in MILLRACE_STREAM_INVALID.
 *
 * @see https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */

export interface Relation {
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly columns: readonly RelationColumn[]
}

export interface RelationColumn {
  readonly name: string
  readonly typeOid: number
}

/** One row, as offsets into the buffer it arrived in. The decoder has a single one and fills it anew for each row. */
export interface Tuple {
  readonly buffer: Buffer
  readonly count: number
  readonly offsets: Int32Array
  /** bytes of each column's text; -1 is SQL null */
  readonly lengths: Int32Array
}

export interface PgoutputHandler {
  /** @param committedAt ms since the Unix epoch */
  begin(commitLsn: Lsn, committedAt: number): void
  commit(endLsn: Lsn): void
  /** before the first row of a relation, and again after its shape changed */
  relation(relation: Relation): void
  /** @param bytes of the whole message */
  insert(relation: Relation, tuple: Tuple, bytes: number): void
  /** what an insert-only publication of one table never sends */
  foreign(kind: 'update' | 'delete' | 'truncate', relation: Relation): void
}

/** Postgres' MaxTupleAttributeNumber */
const MAX_COLUMNS = 1_664
const MAX_RELATIONS = 10_000
/** 2000-01-01, where Postgres' timestamps count from, in ms since 1970 */
const POSTGRES_EPOCH = 946_684_800_000
const TWO_32 = 0x1_0000_0000

const TAG = {
  begin: 0x42,
  commit: 0x43,
  delete: 0x44,
  insert: 0x49,
  message: 0x4d,
  origin: 0x4f,
  relation: 0x52,
  truncate: 0x54,
  update: 0x55,
  type: 0x59,
} as const

export class PgoutputDecoder {
  private readonly handler: PgoutputHandler
  private readonly relations = new Map<number, Relation>()
  private readonly tuple: { -readonly [K in keyof Tuple]: Tuple[K] } = {
    buffer: Buffer.alloc(0),
    count: 0,
    offsets: new Int32Array(MAX_COLUMNS),
    lengths: new Int32Array(MAX_COLUMNS),
  }
  private buffer = this.tuple.buffer
  private offset = 0
  private end = 0
  /** the commit LSN that Begin announced; null between transactions */
  private open: Lsn | null = null

  constructor(handler: PgoutputHandler) {
    this.handler = handler
  }

  get inTransaction(): boolean {
    return this.open !== null
  }

  /** @throws MILLRACE_STREAM_INVALID, and whatever the handler throws; the stream is over then */
  decode(buffer: Buffer, start: number, end: number): void {
    this.buffer = buffer
    this.offset = start
    this.end = end
    const tag = this.u8()
    switch (tag) {
      case TAG.insert:
        this.insert(end - start)
        break
      case TAG.begin:
        this.begin()
        break
      case TAG.commit:
        this.commit()
        break
      case TAG.relation:
        this.relation()
        break
      case TAG.update:
      case TAG.delete:
        this.requireTransaction(tag)
        this.handler.foreign(tag === TAG.update ? 'update' : 'delete', this.knownRelation())
        return
      case TAG.truncate: {
        this.requireTransaction(tag)
        const count = this.u32()
        this.skip(1)
        if (count > 0) this.handler.foreign('truncate', this.knownRelation())
        return
      }
      case TAG.type:
        this.skip(4)
        this.cstring()
        this.cstring()
        break
      case TAG.origin:
        this.skip(8)
        this.cstring()
        break
      case TAG.message:
        // not asked for; a later option of ours may send some, and they may stand outside transactions
        return
      default:
        throw invalid(`a message of the unknown kind 0x${tag.toString(16).padStart(2, '0')}`)
    }
    if (this.offset !== this.end) throw invalid(`${this.end - this.offset} bytes too many in ${tagName(tag)}`)
  }

  private begin(): void {
    if (this.open !== null) throw invalid('a Begin inside a transaction')
    const commitLsn = this.u64()
    // microseconds fit a double until the year 2255
    const micros = this.i32() * TWO_32 + this.u32()
    this.skip(4)
    this.open = commitLsn
    this.handler.begin(commitLsn, Math.floor(micros / 1_000) + POSTGRES_EPOCH)
  }

  private commit(): void {
    if (this.open === null) throw invalid('a Commit outside a transaction')
    this.skip(1)
    const commitLsn = this.u64()
    const endLsn = this.u64()
    this.skip(8)
    if (commitLsn !== this.open) throw invalid('a Commit whose LSN is not what its Begin said')
    if (endLsn <= commitLsn) throw invalid('a Commit that ends before it begins')
    this.open = null
    this.handler.commit(endLsn)
  }

  private relation(): void {
    const oid = this.u32()
    const schema = this.cstring()
    const name = this.cstring()
    this.skip(1)
    const count = this.u16()
    if (count > MAX_COLUMNS) throw invalid(`a relation of ${count} columns`)
    const columns: RelationColumn[] = []
    for (let i = 0; i < count; i++) {
      this.skip(1)
      const column = this.cstring()
      const typeOid = this.u32()
      this.skip(4)
      columns.push({ name: column, typeOid })
    }
    if (this.relations.size >= MAX_RELATIONS) this.relations.clear()
    const relation: Relation = { oid, schema: schema === '' ? 'pg_catalog' : schema, name, columns }
    this.relations.set(oid, relation)
    this.handler.relation(relation)
  }

  private insert(bytes: number): void {
    this.requireTransaction(TAG.insert)
    const relation = this.knownRelation()
    if (this.u8() !== 0x4e) throw invalid('an Insert without its new row')
    this.readTuple(relation)
    this.handler.insert(relation, this.tuple, bytes)
  }

  private readTuple(relation: Relation): void {
    const { tuple } = this
    const count = this.u16()
    if (count !== relation.columns.length)
      throw invalid(`a row of ${count} columns for ${relation.schema}.${relation.name}, which has ${relation.columns.length}`)
    const { offsets, lengths } = tuple
    for (let i = 0; i < count; i++) {
      const kind = this.u8()
      if (kind === 0x74) {
        const length = this.u32()
        offsets[i] = this.offset
        this.skip(length)
        lengths[i] = length
      } else if (kind === 0x6e) lengths[i] = -1
      // neither binary, which was not asked for, nor an unchanged TOASTed value, which an insert never has
      else throw invalid(`a column of the unknown kind 0x${kind.toString(16).padStart(2, '0')}`)
    }
    tuple.buffer = this.buffer
    tuple.count = count
  }

  private requireTransaction(tag: number): void {
    if (this.open === null) throw invalid(`${tagName(tag)} outside a transaction`)
  }

  private knownRelation(): Relation {
    const oid = this.u32()
    const relation = this.relations.get(oid)
    if (relation === undefined) throw invalid(`a row of the relation ${oid}, which was not described before`)
    return relation
  }

  private u8(): number {
    if (this.offset >= this.end) throw truncated()
    return this.buffer[this.offset++] as number
  }

  private u16(): number {
    const at = this.advance(2)
    return ((this.buffer[at] as number) << 8) | (this.buffer[at + 1] as number)
  }

  private i32(): number {
    const at = this.advance(4)
    const { buffer } = this
    return (
      ((buffer[at] as number) << 24) |
      ((buffer[at + 1] as number) << 16) |
      ((buffer[at + 2] as number) << 8) |
      (buffer[at + 3] as number)
    )
  }

  private u32(): number {
    return this.i32() >>> 0
  }

  private u64(): bigint {
    const at = this.advance(8)
    return this.buffer.readBigUInt64BE(at)
  }

  /** Moves over `count` bytes; @returns where they begin. */
  private advance(count: number): number {
    const at = this.offset
    if (count > this.end - at) throw truncated()
    this.offset = at + count
    return at
  }

  private skip(count: number): void {
    if (count > this.end - this.offset) throw truncated()
    this.offset += count
  }

  private cstring(): string {
    const zero = this.buffer.indexOf(0, this.offset)
    if (zero === -1 || zero >= this.end) throw truncated()
    const text = this.buffer.toString('utf8', this.offset, zero)
    this.offset = zero + 1
    return text
  }
}

function tagName(tag: number): string {
  for (const [name, value] of Object.entries(TAG)) if (value === tag) return name
  return `0x${tag.toString(16)}`
}

function truncated(): MillraceError {
  return invalid('a message that ends too early')
}

export function invalid(what: string): MillraceError {
  return new MillraceError('MILLRACE_STREAM_INVALID', `the replication stream holds ${what}`, {
    remedy: 'the stream was damaged on its way, or the server speaks a newer protocol than this version reads',
  })
}
