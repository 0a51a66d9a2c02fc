import { MillraceError } from '../core/errors.ts'
import type { TlsOptions } from '../core/tls.ts'

/** Which column of the outbox table is which part of an event. */
export interface OutboxColumns {
  readonly id: string
  readonly aggregateType: string
  readonly aggregateId: string
  readonly type: string
  /** json, jsonb, text or bytea; SQL null is a tombstone */
  readonly payload: string
  /** JSON text: an object of strings. Absent or null: the table has no such column */
  readonly headers?: string | null | undefined
  /** absent, or null in a row: the aggregate id orders */
  readonly orderingKey?: string | null | undefined
  /** absent, or null in a row: 1 */
  readonly version?: string | null | undefined
}

export interface OutboxOptions {
  /** `schema.table`, as the catalog spells it; without a schema: `public` */
  readonly table: string
  readonly columns: OutboxColumns
}

export const DEFAULT_OUTBOX: OutboxOptions = {
  table: 'millrace.outbox',
  columns: {
    id: 'id',
    aggregateType: 'aggregate_type',
    aggregateId: 'aggregate_id',
    type: 'type',
    payload: 'payload',
    headers: 'headers',
    orderingKey: 'ordering_key',
    version: 'version',
  },
}

export interface PostgresSourceOptions {
  readonly name: string
  /** `postgres://user@host:port/database`: the direct address, not a pooler's */
  readonly url: string
  /** a function is called at every connect */
  readonly password?: string | (() => string | Promise<string>) | undefined
  readonly tls?: TlsOptions | undefined
  /** default: `millrace_<name>`; `^[a-z0-9_]{1,63}$` */
  readonly slot?: string | undefined
  /** default: `millrace_<name>` */
  readonly publication?: string | undefined
  /** default: {@link DEFAULT_OUTBOX} */
  readonly outbox?: OutboxOptions | undefined
  /** accept a server whose `max_slot_wal_keep_size` is unlimited: a stopped relay can then fill its disk */
  readonly acceptUnlimitedWal?: boolean | undefined
  /** how often the confirmed LSN is said to the server (ms). Default: 150 */
  readonly statusIntervalMs?: number | undefined
  /** reading stops while changes of this many bytes wait to be taken. Default: 8 MiB */
  readonly bufferBytes?: number | undefined
}

export interface TableName {
  readonly schema: string
  readonly name: string
}

/** The options with every default filled in, and what is interpolated into replication commands proved harmless. */
export interface SourceSettings {
  readonly name: string
  readonly url: string
  readonly password: string | (() => string | Promise<string>) | undefined
  readonly tls: TlsOptions | undefined
  readonly slot: string
  readonly publication: string
  readonly table: TableName
  readonly columns: OutboxColumns
  readonly acceptUnlimitedWal: boolean
  readonly statusIntervalMs: number
  readonly bufferBytes: number
}

const SLOT = /^[a-z0-9_]{1,63}$/

/** @throws MILLRACE_CONFIG_INVALID */
export function settle(options: PostgresSourceOptions): SourceSettings {
  const slot = options.slot ?? `millrace_${options.name}`
  if (!SLOT.test(slot))
    throw new MillraceError(
      'MILLRACE_CONFIG_INVALID',
      `the slot name ${JSON.stringify(slot)} is not one: expected 1 to 63 of the characters a-z, 0-9 and _`,
    )
  const publication = options.publication ?? `millrace_${options.name}`
  if (publication === '' || publication.includes('\0') || Buffer.byteLength(publication) > 63)
    throw new MillraceError(
      'MILLRACE_CONFIG_INVALID',
      `the publication name ${JSON.stringify(publication)} is not one: expected 1 to 63 bytes`,
    )
  const outbox = options.outbox ?? DEFAULT_OUTBOX
  return {
    name: options.name,
    url: options.url,
    password: options.password,
    tls: options.tls,
    slot,
    publication,
    table: tableName(outbox.table),
    columns: outbox.columns,
    acceptUnlimitedWal: options.acceptUnlimitedWal ?? false,
    statusIntervalMs: options.statusIntervalMs ?? 150,
    bufferBytes: options.bufferBytes ?? 8 * 1024 * 1024,
  }
}

function tableName(text: string): TableName {
  const dot = text.indexOf('.')
  const schema = dot === -1 ? 'public' : text.slice(0, dot)
  const name = text.slice(dot + 1)
  if (schema === '' || name === '')
    throw new MillraceError(
      'MILLRACE_CONFIG_INVALID',
      `the outbox table ${JSON.stringify(text)} is not one: expected schema.table`,
    )
  return { schema, name }
}
