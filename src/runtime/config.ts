import type { TlsOptions } from '../core/tls.ts'
import type { LogLevel } from './log.ts'

/** What a config file holds, and what `createPipeline` takes. Strings may hold `${env:NAME}` and `${file:PATH}`. */
export interface MillraceConfig {
  /** becomes the slot, the publication, topics and groups: `^[a-z][a-z0-9_]{0,39}$` */
  readonly name: string
  readonly source?: SourceConfig
  readonly queue?: QueueConfig
  /** by name; a sink's name is its identity: a renamed sink is a new sink */
  readonly sinks?: Readonly<Record<string, SinkConfig>>
  /** the automatic checkpoints of the running relay; false: none. Default: one an hour, kept for 7 days */
  readonly checkpoints?: false | CheckpointsConfig
  /** the health, metrics and status endpoints; false: none. Default: 127.0.0.1:9464 */
  readonly http?: false | HttpConfig
  readonly log?: LogConfig
}

export interface SourceConfig {
  /** `postgres://user@host:port/database`: the direct address, not a pooler's */
  readonly url: string
  /** a function is called, and a `${file:}` read again, at every connect */
  readonly password?: Password
  readonly tls?: TlsOptions
  readonly outbox?: OutboxConfig
  /** default: `millrace_<name>` */
  readonly slot?: string
  /** default: `millrace_<name>` */
  readonly publication?: string
  /** accept a server whose `max_slot_wal_keep_size` is unlimited: a stopped relay can then fill its disk */
  readonly acceptUnlimitedWal?: boolean
}

export type Password = string | (() => string | Promise<string>)

/** Duration: `30s`, `12h`, `7d`, or a number of milliseconds. */
export type Duration = string | number

export interface OutboxConfig {
  /** default: `millrace.outbox` */
  readonly table?: string
  /** the columns of a table that was there before Millrace; default: those of `millrace.outbox` */
  readonly columns?: OutboxColumns
  /** how long a relayed row stays; `forever`: housekeeping leaves the table alone. Default: 1d */
  readonly retention?: Duration | 'forever'
  /** how many bytes the payload and the headers of an event may have together; set at `init`. Default: 1,000,000 */
  readonly maxEventBytes?: number
}

/** Column names by their part in an event. What is not named, of the optional ones, the table does not have. */
export interface OutboxColumns {
  readonly id: string
  readonly aggregateType: string
  readonly aggregateId: string
  readonly type: string
  /** json, jsonb, text or bytea; SQL null is a tombstone */
  readonly payload: string
  /** JSON text: an object of strings */
  readonly headers?: string
  /** null in a row: the aggregate id orders */
  readonly orderingKey?: string
  readonly version?: string
  /** timestamptz, for housekeeping alone: without it the rows of a table that is not ours are never removed */
  readonly createdAt?: string
}

export interface QueueConfig {
  /** `kafka`, `local`, or the path of a module of your own */
  readonly kind: string
  readonly topics?: TopicsConfig
  /** the connector's own options */
  readonly [option: string]: unknown
}

export interface TopicsConfig {
  /** default: `outbox.event.{aggregate_type}` */
  readonly name?: string
  /** the connector's own: `create`, `partitions`, `retention`, `replication` … */
  readonly [option: string]: unknown
}

export interface SinkConfig {
  /** `postgres`, `stdout`, or the path of a module of your own */
  readonly kind: string
  /** where a sink without a checkpoint begins: `earliest` (default), `latest`, or a time such as `2026-11-20T10:00Z` */
  readonly start?: string
  /** the sources it follows; default: every one whose records are on its topics */
  readonly sources?: readonly string[]
  /** what its tables are compared with by `verify --against source` */
  readonly verify?: readonly VerifyQuery[]
  /** the connector's own options */
  readonly [option: string]: unknown
}

/** What a table must show, as the source's own tables have it. */
export interface VerifyQuery {
  /** one of the sink's tables */
  readonly table: string
  /** the aggregate type of its rows */
  readonly from: string
  /** an event type of it that the sink maps to `upsert`: the payload is what such an event would hold */
  readonly type: string
  /** gives `aggregate_id`, `payload` and, where it is not the aggregate id, `ordering_key` */
  readonly query: string
}

export interface CheckpointsConfig {
  /** at least a second. Default: 1h */
  readonly every?: Duration
  /** at most a thousand times `every`. Default: 7d */
  readonly keep?: Duration
}

export interface HttpConfig {
  /** default: 127.0.0.1 */
  readonly host?: string
  /** default: 9464 */
  readonly port?: number | string
}

export interface LogConfig {
  /** default: info */
  readonly level?: LogLevel
}

/** Gives a `millrace.config.ts` its types; returns what it was given. */
export function defineConfig(config: MillraceConfig): MillraceConfig {
  return config
}
