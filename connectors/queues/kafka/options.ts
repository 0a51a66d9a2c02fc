import { z } from 'zod'
import { parseDuration } from '../../../src/core/duration.ts'
import { isLocal } from '../../../src/core/tls.ts'
import { DEFAULT_TOPIC } from '../../../src/core/topic-template.ts'

const DURATION = 'expected a duration: 7d, 36h, 90m, 30s, or ms as a number'

const milliseconds = z
  .union([z.string(), z.number()], { error: DURATION })
  .refine((value) => (parseDuration(value) ?? 0) > 0, { error: DURATION })
  .transform((value) => parseDuration(value) as number)

const broker = z.string().regex(/^(\[[0-9a-fA-F:]+\]|[^:\s/]+):\d{1,5}$/, 'expected host:port')

const tls = z.strictObject({
  mode: z.enum(['verify-full', 'verify-ca', 'disable']).optional(),
  ca: z.string().optional(),
  cert: z.string().optional(),
  key: z.string().optional(),
  servername: z.string().optional(),
})

const password = z.union([
  z.string(),
  z.custom<() => string | Promise<string>>((value) => typeof value === 'function', 'a text or a function'),
])

const sasl = z.discriminatedUnion('mechanism', [
  z.strictObject({ mechanism: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']), username: z.string().min(1), password }),
  z.strictObject({
    mechanism: z.literal('oauthbearer'),
    /** asked at every connect and re-authentication */
    token: z.custom<() => Promise<BearerToken>>((value) => typeof value === 'function', 'a function that gives { value }'),
  }),
])

/**
 * `gzip` and `zstd` are Node's own. `snappy` and `lz4` take a codec as kafkajs' plug-ins are (`kafkajs-snappy`,
 * `kafkajs-lz4`): the module's name, whose default export makes one, or the factory itself.
 */
const compression = z.union([
  z.enum(['none', 'gzip', 'zstd']),
  z.strictObject({
    type: z.enum(['snappy', 'lz4', 'zstd']),
    codec: z.union([
      z.string().min(1),
      z.custom<CodecFactory>((value) => typeof value === 'function', 'a module name or a codec factory'),
    ]),
  }),
])

const topics = z.strictObject({
  /** the topic of an aggregate type */
  name: z.string().min(1).default(DEFAULT_TOPIC),
  /** false: topics are made by somebody else; a missing one is an error that says how */
  create: z.boolean().default(true),
  partitions: z.number().int().min(1).max(10_000).default(6),
  /** default: 3, or the number of brokers where there are fewer; those of `brokers` that are down count too */
  replication: z.number().int().min(1).max(100).optional(),
  /** how long events stay, in ms or as `7d`; far longer than any sink may stand still */
  retention: milliseconds.default(7 * 86_400_000),
  /** default: 2, or 1 where there is one replica */
  minInsyncReplicas: z.number().int().min(1).optional(),
})

export const kafkaOptions = z
  .strictObject({
    brokers: z.array(broker).min(1),
    clientId: z.string().min(1).optional(),
    tls: tls.optional(),
    sasl: sasl.optional(),
    compression: compression.default('none'),
    topics: topics.prefault({}),
    /** ms; how long an answer may take. A publish without one has an unknown outcome */
    requestTimeout: milliseconds.default(30_000),
  })
  .superRefine((options, context) => {
    const { tls, sasl, brokers } = options
    if (sasl?.mechanism === 'plain' && !secured(tls, brokers) && !brokers.every(isLoopback))
      context.addIssue({
        code: 'custom',
        path: ['sasl', 'mechanism'],
        message: 'plain sends the password readable to anyone on the way: use TLS (leave out tls.mode: disable) or scram-sha-512',
      })
    const { replication, minInsyncReplicas } = options.topics
    if (replication !== undefined && minInsyncReplicas !== undefined && minInsyncReplicas > replication)
      context.addIssue({
        code: 'custom',
        path: ['topics', 'minInsyncReplicas'],
        message: `expected at most topics.replication (${replication}): nothing could ever be published`,
      })
  })

/** What a user writes below `queue:`, beside `kind: kafka`. */
export interface KafkaOptions {
  readonly brokers: string[]
  readonly clientId?: string | undefined
  readonly tls?: z.input<typeof tls> | undefined
  readonly sasl?: Sasl | undefined
  readonly compression?: Compression | undefined
  readonly topics?: z.input<typeof topics> | undefined
  readonly requestTimeout?: number | string | undefined
}

/** The same, checked and with its defaults. */
export type KafkaSettings = z.output<typeof kafkaOptions>
export type TopicSettings = KafkaSettings['topics']
export type Sasl = z.output<typeof sasl>
export type Compression = z.output<typeof compression>

export interface BearerToken {
  readonly value: string
  /** SASL extensions, as some services ask for (KIP-342) */
  readonly extensions?: Readonly<Record<string, string>>
}

/** A codec as kafkajs' plug-ins make them. */
export type CodecFactory = () => {
  compress(encoder: { readonly buffer: Buffer }): Promise<Buffer>
  decompress(buffer: Buffer): Promise<Buffer>
}

export interface Address {
  readonly host: string
  readonly port: number
}

export function parseAddress(broker: string): Address {
  const colon = broker.lastIndexOf(':')
  return { host: broker.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(broker.slice(colon + 1)) }
}

export function isLoopback(broker: string): boolean {
  return isLocal(parseAddress(broker).host)
}

/** Whether connections are secured. The whole broker list decides, since any broker may send us to any other. */
export function secured(tls: KafkaSettings['tls'], brokers: readonly string[]): boolean {
  const mode = tls?.mode ?? (tls === undefined && brokers.every(isLoopback) ? 'disable' : 'verify-full')
  return mode !== 'disable'
}
