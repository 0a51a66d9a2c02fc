import { promisify } from 'node:util'
import zlib from 'node:zlib'
import { MillraceError } from '../../../src/core/errors.ts'
import type { CodecFactory, Compression } from './options.ts'

/** What the attributes of a batch say of its compression. */
const IDS = { none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 } as const
type Name = keyof typeof IDS

interface Codec {
  compress(records: Buffer): Promise<Buffer>
  decompress(records: Buffer): Promise<Buffer>
}

export interface Codecs {
  /** the id for the attributes, and what compresses; null: as it is */
  readonly own: { readonly id: number; compress(records: Buffer): Promise<Buffer> } | null
  /** @throws MILLRACE_QUEUE_NOT_READY for a codec that is not there */
  decompress(id: number, records: Buffer): Promise<Buffer>
}

/** A batch is at most some MiB by the broker's limit; what claims to hold more than this is not opened. */
const MAX_INFLATED = 256 * 1024 * 1024

const BUILT_IN: ReadonlyMap<number, Codec> = new Map([
  [IDS.gzip, { compress: promisify(zlib.gzip), decompress: (records) => inflate(zlib.gunzip, records) }],
  [IDS.zstd, { compress: promisify(zlib.zstdCompress), decompress: (records) => inflate(zlib.zstdDecompress, records) }],
])

/** @throws MILLRACE_CONFIG_INVALID when the codec's module is not installed or is none */
export async function openCodecs(compression: Compression): Promise<Codecs> {
  const codecs = new Map(BUILT_IN)
  const name: Name = typeof compression === 'string' ? compression : compression.type
  if (typeof compression === 'object') codecs.set(IDS[compression.type], await plugIn(compression))
  const own = codecs.get(IDS[name])
  return {
    own: own ? { id: IDS[name], compress: (records) => own.compress(records) } : null,
    async decompress(id, records) {
      const codec = codecs.get(id)
      if (codec) return codec.decompress(records)
      const wanted = Object.entries(IDS).find(([, each]) => each === id)?.[0] ?? `codec ${id}`
      throw new MillraceError('MILLRACE_QUEUE_NOT_READY', `a record batch is compressed with ${wanted}, which needs a codec`, {
        remedy: `install a kafkajs codec and name it: queue.compression: { type: ${wanted}, codec: kafkajs-${wanted} }`,
      })
    },
  }
}

async function plugIn({ type, codec }: Exclude<Compression, string>): Promise<Codec> {
  let factory: unknown = codec
  if (typeof codec === 'string') {
    const module = await import(codec).catch((cause) => {
      throw new MillraceError('MILLRACE_CONFIG_INVALID', `queue.compression.codec: the module ${codec} cannot be loaded`, {
        cause,
        remedy: `npm install ${codec}`,
      })
    })
    factory = codecFactory((module as { default?: unknown }).default ?? module)
  }
  const made = typeof factory === 'function' ? (factory as CodecFactory)() : undefined
  if (typeof made?.compress !== 'function' || typeof made.decompress !== 'function')
    throw new MillraceError(
      'MILLRACE_CONFIG_INVALID',
      `queue.compression.codec for ${type} makes no kafkajs codec: expected compress and decompress`,
    )
  return {
    compress: (records) => made.compress({ buffer: records }),
    decompress: (records) => made.decompress(records),
  }
}

/** `kafkajs-snappy` exports the factory; `kafkajs-lz4` and `@kafkajs/zstd` a class or factory of it. */
function codecFactory(exported: unknown): unknown {
  if (typeof exported !== 'function') return exported
  if (/^class\b/.test(Function.prototype.toString.call(exported)))
    return (new (exported as new () => { codec: unknown })() as { codec: unknown }).codec
  const made: unknown = exported()
  return typeof made === 'function' ? made : exported
}

type Inflate = (
  buffer: Buffer,
  options: { maxOutputLength: number },
  callback: (error: Error | null, result: Buffer<ArrayBuffer>) => void,
) => void

function inflate(by: Inflate, records: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) =>
    by(records, { maxOutputLength: MAX_INFLATED }, (error, result) => (error ? reject(error) : resolve(result))),
  )
}
