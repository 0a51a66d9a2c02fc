import { isAbsolute } from 'node:path'
import { z } from 'zod'
import { DURATION, parseDuration } from '../core/duration.ts'
import { CHECKPOINT_LIMITS } from '../core/saved-checkpoint.ts'
import { postgresConnection, type TlsOptions } from '../core/tls.ts'
import { DEFAULT_TOPIC } from '../core/topic-template.ts'
import { DEFAULT_OUTBOX } from '../postgres/options.ts'
import { type ConfigIssue, configError, toConfigIssues } from './config-issues.ts'
import { LOG_LEVELS } from './log.ts'
import { type ReferenceContext, resolveReferences } from './references.ts'

const NAME = /^[a-z][a-z0-9_]{0,39}$/
const SINK_NAME = /^[a-z][a-z0-9_-]{0,39}$/
const SLOT = /^[a-z0-9_]{1,63}$/

/** An expectation, as it ends every message: `expected …, found …`. */
const expects = (what: string): { error: string } => ({ error: `expected ${what}` })

const text = z.string(expects('a string')).min(1, expects('a string that is not empty'))
const identifier = text.max(63, expects('at most 63 characters'))
const column = z
  .string(expects('the name of a column'))
  .min(1, expects('the name of a column'))
  .max(63, expects('the name of a column'))
const duration = z
  .union([z.string(), z.number()], expects(DURATION))
  .refine((value) => parseDuration(value) !== null, expects(DURATION))
const milliseconds = duration.transform((value) => parseDuration(value) as number)
const password = z.union(
  [z.string(), z.custom<() => string | Promise<string>>((value) => typeof value === 'function')],
  expects('a string or a function'),
)

const tlsSchema = z.strictObject({
  mode: z.enum(['verify-full', 'verify-ca', 'disable']).optional(),
  ca: text.optional(),
  cert: text.optional(),
  key: text.optional(),
  servername: text.optional(),
})

const outbox = z.strictObject({
  table: text.default(DEFAULT_OUTBOX.table).describe('schema.table, or a table of the schema public'),
  columns: z
    .strictObject({
      id: column,
      aggregateType: column,
      aggregateId: column,
      type: column,
      payload: column,
      headers: column.optional(),
      orderingKey: column.optional(),
      version: column.optional(),
      createdAt: column.optional(),
    })
    .optional(),
  retention: z
    .union([z.literal('forever'), milliseconds], expects(`${DURATION}, or "forever"`))
    .default(86_400_000)
    .describe('how long a relayed row stays in the outbox'),
  maxEventBytes: z.int(expects('a number of bytes')).min(1_024, expects('at least 1024 bytes')).optional(),
})

const source = z
  .strictObject({
    url: text.describe('postgres://user@host:port/database: the direct address, not a pooler'),
    password: password.optional(),
    tls: tlsSchema.optional(),
    outbox: outbox.prefault({}),
    slot: z.string().regex(SLOT, expects('1 to 63 of the characters a-z, 0-9 and _')).optional(),
    publication: identifier.optional(),
    acceptUnlimitedWal: z.boolean(expects('true or false')).default(false),
  })
  .superRefine((value, context) => {
    try {
      postgresConnection({ url: value.url, tls: value.tls as TlsOptions | undefined })
    } catch (error) {
      context.addIssue({ code: 'custom', path: ['url'], message: (error as Error).message })
    }
  })

const kind = (what: string): z.ZodString => z.string(expects(what)).min(1, expects(what)).describe(what)

const topics = z.looseObject({
  name: z
    .string(expects('a topic name such as "outbox.event.{aggregate_type}"'))
    .regex(
      /^[A-Za-z0-9._-]*(\{aggregate_type\})?[A-Za-z0-9._-]*$/,
      expects('letters, digits, . _ - and at most one {aggregate_type}'),
    )
    .min(1, expects('a topic name such as "outbox.event.{aggregate_type}"'))
    .max(200, expects('at most 200 characters'))
    .default(DEFAULT_TOPIC),
})

const queue = z.looseObject({
  kind: kind('"kafka", "local" or the path of a module'),
  topics: topics.prefault({}),
})

const START = '"earliest", "latest" or a time such as "2026-11-20T10:00Z"'

const verifyQuery = z.strictObject({
  table: text.describe('one of the tables of the sink'),
  from: text.describe('the aggregate type of its rows'),
  type: text.describe('an event type of it that writes whole rows'),
  query: text.describe('gives aggregate_id and payload, in the database of the source'),
})

const sink = z.looseObject({
  kind: kind('"postgres", "stdout" or the path of a module'),
  start: z
    .string(expects(START))
    .refine((value) => startOf(value) !== null, expects(START))
    .default('earliest'),
  sources: z
    .array(z.string().regex(NAME, expects('the name of a source')))
    .min(1, expects('at least one source'))
    .readonly()
    .optional(),
  verify: z.array(verifyQuery).readonly().optional(),
})

const checkpoints = z
  .strictObject({
    every: milliseconds.default(3_600_000).describe('how often the running relay takes one'),
    keep: milliseconds.default(604_800_000).describe('how long it is kept'),
  })
  .superRefine(({ every, keep }, context) => {
    if (every < 1_000) context.addIssue({ code: 'custom', path: ['every'], message: 'expected at least 1s' })
    else if (keep < every) context.addIssue({ code: 'custom', path: ['keep'], message: 'expected no less than every' })
    else if (keep / every > CHECKPOINT_LIMITS.automatic)
      context.addIssue({ code: 'custom', path: ['keep'], message: `expected at most ${CHECKPOINT_LIMITS.automatic} times every` })
  })

const port = z.coerce
  .number(expects('a port, 0 to 65535'))
  .pipe(z.int(expects('a port, 0 to 65535')).min(0, expects('a port, 0 to 65535')).max(65_535, expects('a port, 0 to 65535')))

const NAME_EXPECTED = 'a lower-case letter, then at most 39 of a-z, 0-9 and _'

/** The one schema: types, the JSON Schema for editors and every message come from it. */
export const configSchema = z.strictObject({
  name: z
    .string(expects(NAME_EXPECTED))
    .regex(NAME, expects(NAME_EXPECTED))
    .describe('becomes the slot, the publication, topics and groups'),
  source: source.optional(),
  queue: queue.optional(),
  sinks: z
    .record(z.string().regex(SINK_NAME, expects('a sink name: a lower-case letter, then at most 39 of a-z, 0-9, _ and -')), sink)
    .default({}),
  checkpoints: z.union([z.literal(false), checkpoints], expects('false or an object')).prefault({}),
  http: z
    .union(
      [z.literal(false), z.strictObject({ host: text.default('127.0.0.1'), port: port.default(9464) })],
      expects('false or an object'),
    )
    .prefault({}),
  log: z.strictObject({ level: z.enum(LOG_LEVELS).default('info') }).prefault({}),
})

/** A config that was read: checked, its references resolved, its defaults filled in. */
export type ParsedConfig = z.output<typeof configSchema>
export type ParsedSource = NonNullable<ParsedConfig['source']>
export type ParsedQueue = NonNullable<ParsedConfig['queue']>

/**
 * Which sections a role needs. The others are not read at all: a process that runs one sink works without the
 * secrets of the source and of the other sinks.
 */
export interface Needs {
  readonly source: boolean
  /** `topics`: what its topics are called, and none of its secrets */
  readonly queue: boolean | 'topics'
  /** names; null: all of them */
  readonly sinks: readonly string[] | null
}

export const EVERYTHING: Needs = { source: true, queue: true, sinks: null }

/** @throws MILLRACE_CONFIG_INVALID with one line per issue: its path in the config, what was expected, what was found */
export function parseConfig(raw: unknown, origin: string, context: ReferenceContext, needs: Needs = EVERYTHING): ParsedConfig {
  const wanted = select(raw, needs)
  const references = resolveReferences(wanted, context)
  const parsed = configSchema.safeParse(references.value)
  const broken = new Set(references.issues.map((issue) => issue.path.join('.')))
  const issues: ConfigIssue[] = [
    ...references.issues,
    // what a missing variable would have held is not judged as well
    ...toConfigIssues(parsed.error?.issues ?? [], wanted, configSchema).filter((issue) => !broken.has(issue.path.join('.'))),
  ]
  if (issues.length > 0 || !parsed.success) throw configError(origin, issues)
  return parsed.data
}

function select(raw: unknown, needs: Needs): unknown {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return raw
  const { source: rawSource, queue: rawQueue, sinks: rawSinks, ...rest } = raw as Record<string, unknown>
  return {
    ...rest,
    ...(needs.source && rawSource !== undefined && { source: rawSource }),
    ...(needs.queue &&
      rawQueue !== undefined && { queue: needs.queue === 'topics' ? pick(rawQueue, ['kind', 'topics']) : rawQueue }),
    ...(rawSinks !== undefined && { sinks: needs.sinks === null ? rawSinks : pick(rawSinks, needs.sinks) }),
  }
}

function pick(value: unknown, names: readonly string[]): unknown {
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).filter(([name]) => names.includes(name)))
}

/** ms since the Unix epoch for a time; null for what is neither a time with its zone nor one of the two words */
export function startOf(value: string): 'earliest' | 'latest' | number | null {
  if (value === 'earliest' || value === 'latest') return value
  if (!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})$/.test(value)) return null
  const time = Date.parse(value)
  return Number.isNaN(time) ? null : time
}

/** whether a `kind` names a module of the user's own instead of a connector of the house */
export function isModulePath(value: string): boolean {
  return value.startsWith('.') || isAbsolute(value) || value.startsWith('file:')
}
