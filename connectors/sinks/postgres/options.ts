import { z } from 'zod'
import { DURATION, parseDuration } from '../../../src/core/duration.ts'
import type { TlsOptions } from '../../../src/core/tls.ts'

/** What an event does to the rows of a table. */
export type Operation = 'upsert' | 'merge' | 'append' | 'delete' | 'ignore'

/** What a user writes below `sinks.NAME:`, beside `kind: postgres`. Durations: `30s`, `7d`, or a number of ms. */
export interface PostgresSinkOptions {
  /** `postgres://user@host:port/database`: the direct address, not a pooler's */
  readonly url: string
  /** a function is called at every connect */
  readonly password?: string | (() => string | Promise<string>) | undefined
  readonly tls?: TlsOptions | undefined
  /** the schema of checkpoints and markers. Default: millrace */
  readonly schema?: string | undefined
  /** connections, over all partitions. Default: 8 */
  readonly poolSize?: number | undefined
  /** how long one statement may take. Default: 60s */
  readonly statementTimeout?: string | number | undefined
  /** how long a statement may wait for a lock. Default: 10s */
  readonly lockTimeout?: string | number | undefined
  /** after it the server ends a transaction whose owner stands still, so that its locks go. Default: 30s */
  readonly idleInTransactionTimeout?: string | number | undefined
  /** how long a deleted key is remembered; longer than the queue retains events. Default: 14d */
  readonly markerRetention?: string | number | undefined
  /** fields of a payload that no table takes: counted and said once, or a halt. Default: pass */
  readonly unknownFields?: 'pass' | 'halt' | undefined
  /** how much may be parked at once, over all partitions; beyond it, and with false, the partition halts */
  readonly parking?: ParkingOptions | false | undefined
  readonly tables: readonly TableOptions[]
}

export interface ParkingOptions {
  /** Default: 100 */
  readonly maxKeys?: number | undefined
  /** of payloads, keys and headers. Default: 64 MiB */
  readonly maxBytes?: number | undefined
}

export interface TableOptions {
  /** the aggregate type whose events feed the table */
  readonly from: string
  /** `schema.table` as the catalog spells it; without a schema: `public` */
  readonly into: string
  /**
   * The columns of a unique index. One column is the aggregate id, unless `keyFrom` says `payload`; several come from
   * the payload. With `append` it is the one column that takes the event's id.
   */
  readonly key: string | readonly string[]
  /** where a key of one column comes from. Default: aggregate */
  readonly keyFrom?: 'aggregate' | 'payload' | undefined
  /** `snake_case`: the column `order_no` takes the field `orderNo`. Default: same */
  readonly naming?: 'same' | 'snake_case' | undefined
  /**
   * Where naming does not tell: the path of a column in the payload (`address.city`), one of the event's own values
   * (`$id`, `$key`, `$type`, `$source`, `$position`, `$committed_at`), or false for a column that is left to the database.
   */
  readonly columns?: Readonly<Record<string, string | false>> | undefined
  /** where the position of a row is kept: `_millrace_position` in the table, or beside it. Default: column */
  readonly guard?: 'column' | 'table' | undefined
  /** every event type of the aggregate; another one halts */
  readonly on: Readonly<Record<string, Operation>>
}

/** The event's own values that a column may take. */
const EVENT_VALUES = ['$id', '$key', '$type', '$source', '$position', '$committed_at'] as const
export type EventValue = (typeof EVENT_VALUES)[number]

export function isEventValue(origin: string): origin is EventValue {
  return (EVENT_VALUES as readonly string[]).includes(origin)
}

/** The position of the event that wrote a row, in a table with `guard: column`. */
export const GUARD_COLUMN = '_millrace_position'

const expects = (what: string): { error: string } => ({ error: `expected ${what}` })
const nameBytes = (value: string): boolean => new TextEncoder().encode(value).length <= 63
const name = (what: string): z.ZodString =>
  z
    .string(expects(what))
    .min(1, expects(what))
    .refine(nameBytes, expects(`${what} of at most 63 bytes`)) as z.ZodString
const duration = z
  .union([z.string(), z.number()], expects(DURATION))
  .refine((value) => (parseDuration(value) ?? 0) > 0, expects(DURATION))
  .transform((value) => parseDuration(value) as number)
const text = z.string(expects('a string')).min(1, expects('a string that is not empty'))

const PATH = `a path such as address.city, one of ${EVENT_VALUES.join(', ')}, or false`
const path = z
  .string(expects(PATH))
  .refine(
    (value) => isEventValue(value) || (!value.startsWith('$') && value.split('.').every((field) => field !== '')),
    expects(PATH),
  )

const OPERATIONS = ['upsert', 'merge', 'append', 'delete', 'ignore'] as const

const table = z
  .strictObject({
    from: z.string().regex(/^[A-Za-z0-9._-]{1,120}$/, expects('an aggregate type: letters, digits, . _ and -')),
    into: z
      .string()
      .regex(/^([^.\0]+\.)?[^.\0]+$/, expects('schema.table'))
      .transform((value) => {
        const dot = value.indexOf('.')
        return { schema: dot === -1 ? 'public' : value.slice(0, dot), name: value.slice(dot + 1) }
      }),
    key: z
      .union(
        [name('a column'), z.array(name('a column')).min(1, expects('at least one column'))],
        expects('a column or a list of columns'),
      )
      .transform((value) => (typeof value === 'string' ? [value] : value)),
    keyFrom: z.enum(['aggregate', 'payload'], expects('aggregate or payload')).optional(),
    naming: z.enum(['same', 'snake_case'], expects('same or snake_case')).default('same'),
    columns: z.record(name('a column'), z.union([path, z.literal(false)], expects(PATH))).default({}),
    guard: z.enum(['column', 'table'], expects('column or table')).default('column'),
    on: z.record(text, z.enum(OPERATIONS, expects(OPERATIONS.join(', ')))),
  })
  .superRefine((value, context) => {
    const issue = (path: string[], message: string): void => context.addIssue({ code: 'custom', path, message })
    const { key, keyFrom, columns, on } = value
    const kinds = new Set(Object.values(on))
    const appends = kinds.has('append')
    if (new Set(key).size !== key.length) issue(['key'], 'names a column twice')
    if (keyFrom === 'aggregate' && key.length > 1) issue(['keyFrom'], 'a key of several columns comes from the payload')
    if (appends && (kinds.has('upsert') || kinds.has('merge') || kinds.has('delete')))
      issue(['on'], 'append does not go with upsert, merge or delete: its rows are events, theirs are aggregates')
    if (appends && key.length > 1) issue(['key'], 'with append the key is one column, which takes the id of the event')
    if (appends && Object.hasOwn(columns, key[0] as string) && columns[key[0] as string] !== '$id')
      issue(['columns', key[0] as string], 'with append the key takes $id')
    if (kinds.has('merge') && (key.length > 1 || keyFrom === 'payload'))
      issue(['key'], 'merge needs the aggregate id as its key: partial writes of one row must come in one order')
    for (const column of key) if (columns[column] === false) issue(['columns', column], 'a column of the key cannot be left out')
    if (GUARD_COLUMN in columns) issue(['columns', GUARD_COLUMN], 'is written by Millrace')
  })

export const postgresSinkOptions = z
  .strictObject({
    url: text,
    password: z
      .union(
        [z.string(), z.custom<() => string | Promise<string>>((value) => typeof value === 'function')],
        expects('a string or a function'),
      )
      .optional(),
    tls: z
      .strictObject({
        mode: z.enum(['verify-full', 'verify-ca', 'disable']).optional(),
        ca: text.optional(),
        cert: text.optional(),
        key: text.optional(),
        servername: text.optional(),
      })
      .optional(),
    schema: name('a schema').default('millrace'),
    poolSize: z.int(expects('a number of connections')).min(1).max(100).default(8),
    statementTimeout: duration.prefault('60s'),
    lockTimeout: duration.prefault('10s'),
    idleInTransactionTimeout: duration.prefault('30s'),
    markerRetention: duration.prefault('14d'),
    unknownFields: z.enum(['pass', 'halt'], expects('pass or halt')).default('pass'),
    parking: z
      .union(
        [
          z.literal(false),
          z.strictObject({
            maxKeys: z.int(expects('a number of keys')).min(1).max(10_000).default(100),
            maxBytes: z.int(expects('a number of bytes')).min(1).default(67_108_864),
          }),
        ],
        expects('false or an object'),
      )
      .prefault({}),
    tables: z.array(table).min(1, expects('at least one table')),
  })
  .superRefine(({ tables }, context) => {
    const feeds = new Map<string, number>()
    for (const [index, { from, into, guard, key, on }] of tables.entries()) {
      const issue = (path: PropertyKey[], message: string): void =>
        context.addIssue({ code: 'custom', path: ['tables', index, ...path], message })
      const target = `${into.schema}.${into.name}`
      if (feeds.has(`${from} ${target}`))
        issue(['into'], `${target} is fed from ${from} twice: say all its event types in one place`)
      feeds.set(`${from} ${target}`, index)
      const others = tables.filter((other) => other.into.schema === into.schema && other.into.name === into.name)
      if (others.some((other) => other.guard !== guard)) issue(['guard'], `${target} is fed twice, with different guards`)
      if (others.some((other) => other.key.join('\0') !== key.join('\0')))
        issue(['key'], `${target} is fed twice, with different keys`)
      if (others.length > 1 && Object.values(on).includes('merge'))
        issue(['on'], `${target} is fed from several aggregate types: one guard per row cannot order the partial writes of merge`)
    }
  })

/** The options, checked and with their defaults. */
export type PostgresSinkSettings = z.output<typeof postgresSinkOptions>
export type TableSettings = PostgresSinkSettings['tables'][number]
