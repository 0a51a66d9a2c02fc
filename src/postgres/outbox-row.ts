import type { Change } from '../core/change.ts'
import { MillraceError } from '../core/errors.ts'
import { RESUME } from '../core/failover.ts'
import type { Position } from '../core/position.ts'
import type { OutboxColumns, TableName } from './options.ts'
import type { Relation, Tuple } from './pgoutput.ts'

/** what a change occupies beside its row's bytes: 464 bytes of heap (measured), and its part of a batch's array */
const OBJECT_BYTES = 512
const BYTEA = 17
const AGGREGATE_TYPE = /^[A-Za-z0-9._-]{1,120}$/
const EMPTY = Buffer.alloc(0)

/** Where the parts of an event stand in the rows of one shape of the table; -1: no such column. */
interface Layout {
  readonly relation: Relation
  readonly id: number
  readonly aggregateType: number
  readonly aggregateId: number
  readonly type: number
  readonly payload: number
  readonly payloadIsBytea: boolean
  readonly headers: number
  readonly orderingKey: number
  readonly version: number
}

/** Makes changes of the outbox's rows. The bytes of a change are views into the row's buffer wherever they can be. */
export class OutboxRows {
  private readonly table: TableName
  private readonly columns: OutboxColumns
  private readonly oid: number | null
  private layout: Layout | null = null
  private readonly aggregateTypes = new Texts((text) => AGGREGATE_TYPE.test(text))
  private readonly types = new Texts((text) => text !== '')
  private readonly versions = new Texts((text) => text !== '')

  /** @param oid of the table as it is now: it may have had another name when a row was written */
  constructor(table: TableName, columns: OutboxColumns, oid: number | null = null) {
    this.table = table
    this.columns = columns
    this.oid = oid
  }

  isOutbox(relation: Relation): boolean {
    return relation.oid === this.oid || (relation.name === this.table.name && relation.schema === this.table.schema)
  }

  /**
   * A row that lacks what an event needs, but not its place in a chain, is a change with a fault: only its key waits.
   * @throws MILLRACE_OUTBOX_ROW_INVALID naming the position, the column and what was expected
   */
  change(relation: Relation, tuple: Tuple, position: Position, committedAt: number, bytes: number): Change {
    const layout = this.layout?.relation === relation ? this.layout : this.resolve(relation, position)
    const { buffer, offsets, lengths } = tuple
    const { columns } = this

    const idAt = offsets[layout.id] as number
    const idLength = lengths[layout.id] as number
    const aggregateType = this.aggregateTypes.read(tuple, layout.aggregateType)
    if (aggregateType === null)
      throw this.invalid(position, columns.aggregateType, 'a value that matches ^[A-Za-z0-9._-]{1,120}$')
    const type = this.types.read(tuple, layout.type)
    const aggregateId = view(tuple, layout.aggregateId)
    if (aggregateId === null || aggregateId.length === 0)
      throw this.invalid(position, columns.aggregateId, 'a value that is not null and not empty')
    let fault: MillraceError | null = null
    if (idLength <= 0) fault = this.invalid(position, columns.id, 'a value that is not null and not empty')
    else if (type === null) fault = this.invalid(position, columns.type, 'a value that is not null and not empty')
    let payload = view(tuple, layout.payload)
    if (payload !== null && layout.payloadIsBytea) {
      payload = fromHex(payload)
      if (payload === null) fault ??= this.invalid(position, columns.payload, 'bytea in its hex form')
    }

    return {
      position,
      committedAt,
      id: idLength <= 0 ? '' : buffer.toString('utf8', idAt, idAt + idLength),
      aggregateType,
      aggregateId,
      type: type ?? '',
      payload,
      headers: text(tuple, layout.headers),
      orderingKey: layout.orderingKey === -1 ? null : view(tuple, layout.orderingKey),
      version: layout.version === -1 ? '1' : (this.versions.read(tuple, layout.version) ?? '1'),
      fault,
      bytes: bytes + OBJECT_BYTES,
    }
  }

  private resolve(relation: Relation, position: Position): Layout {
    const { columns } = this
    const index = (name: string | null | undefined): number =>
      name == null ? -1 : relation.columns.findIndex((column) => column.name === name)
    const needed = (name: string): number => {
      const found = index(name)
      return found === -1 ? this.lacks(position, name) : found
    }
    const optional = (name: string | null | undefined): number => (name == null ? -1 : needed(name))
    const payload = needed(columns.payload)
    this.layout = {
      relation,
      id: needed(columns.id),
      aggregateType: needed(columns.aggregateType),
      aggregateId: needed(columns.aggregateId),
      type: needed(columns.type),
      payload,
      payloadIsBytea: relation.columns[payload]?.typeOid === BYTEA,
      headers: optional(columns.headers),
      orderingKey: optional(columns.orderingKey),
      version: optional(columns.version),
    }
    return this.layout
  }

  /** Somebody altered the table: the column may be back by now, and the row was still written without it. */
  private lacks(position: Position, column: string): never {
    const { message, code, fields } = this.invalid(position, column, 'the table to have it')
    throw new MillraceError(
      code,
      `${message}, which it had not when the row was written. What was relayed before it is safe, and so are the rows in the table`,
      { remedy: `put the column back, or correct source.outbox.columns; then go on from the table: ${RESUME}`, fields },
    )
  }

  private invalid(position: Position, column: string, expected: string): MillraceError {
    const table = `${this.table.schema}.${this.table.name}`
    return new MillraceError(
      'MILLRACE_OUTBOX_ROW_INVALID',
      `the outbox row at ${position} cannot become an event: column ${column} of ${table}: expected ${expected}`,
      {
        remedy: 'a constraint on the table refuses such rows at the writer; the row itself must be dealt with by a person',
        fields: { position, table, column },
      },
    )
  }
}

function view({ buffer, offsets, lengths }: Tuple, column: number): Buffer | null {
  const length = lengths[column] as number
  if (length < 0) return null
  if (length === 0) return EMPTY
  const at = offsets[column] as number
  return buffer.subarray(at, at + length)
}

function text({ buffer, offsets, lengths }: Tuple, column: number): string | null {
  if (column === -1) return null
  const length = lengths[column] as number
  if (length < 0) return null
  const at = offsets[column] as number
  return buffer.toString('utf8', at, at + length)
}

function fromHex(value: Buffer): Buffer | null {
  if (value.length < 2 || value.length % 2 !== 0 || value[0] !== 0x5c || value[1] !== 0x78) return null
  const bytes = Buffer.from(value.toString('latin1', 2), 'hex')
  return bytes.length === (value.length - 2) / 2 ? bytes : null
}

/** The texts of a column that has few different ones, decoded and checked once each: a direct-mapped cache. */
class Texts {
  private readonly valid: (text: string) => boolean
  private readonly keys: (Buffer | undefined)[] = new Array(64)
  private readonly values: string[] = new Array(64)

  constructor(valid: (text: string) => boolean) {
    this.valid = valid
  }

  /** null: SQL null, or not valid */
  read({ buffer, offsets, lengths }: Tuple, column: number): string | null {
    const length = lengths[column] as number
    if (length <= 0) return null
    const at = offsets[column] as number
    const slot =
      (length * 31 + (buffer[at] as number) * 7 + (buffer[at + length - 1] as number) + (buffer[at + (length >> 1)] as number)) &
      63
    const key = this.keys[slot]
    if (key !== undefined && key.length === length && same(key, buffer, at)) return this.values[slot] as string
    const value = buffer.toString('utf8', at, at + length)
    if (!this.valid(value)) return null
    if (length <= 256) {
      this.keys[slot] = Buffer.from(buffer.subarray(at, at + length))
      this.values[slot] = value
    }
    return value
  }
}

function same(key: Buffer, buffer: Buffer, at: number): boolean {
  for (let i = 0; i < key.length; i++) if (key[i] !== buffer[at + i]) return false
  return true
}
