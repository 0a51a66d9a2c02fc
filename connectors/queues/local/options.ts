import { z } from 'zod'
import { DURATION, parseDuration } from '../../../src/core/duration.ts'
import { DEFAULT_TOPIC } from '../../../src/core/topic-template.ts'

const MiB = 1 << 20

const duration = z.union([z.string(), z.number()]).transform((value, context) => {
  const ms = parseDuration(value)
  if (ms !== null && ms > 0) return ms
  context.addIssue({ code: 'custom', message: `expected ${DURATION}` })
  return z.NEVER
})

const topics = z.strictObject({
  /** the topic of an aggregate type */
  name: z.string().min(1).default(DEFAULT_TOPIC),
  /** false: topics are made by somebody else; a missing one is an error */
  create: z.boolean().default(true),
  /** of a topic that is made; one that exists keeps its own */
  partitions: z.number().int().min(1).max(1_000).default(3),
  /** how long events stay, in ms or as `7d`; far longer than any sink may stand still */
  retention: duration.default(7 * 86_400_000),
})

export const localOptions = z.strictObject({
  /** the file, on a disk of this machine; beside it stand PATH-wal and PATH-shm */
  path: z
    .string()
    .min(1)
    .refine(
      (path) => !/^(:memory:|file:)/.test(path),
      'expected the path of a file: what is in memory only is lost with the process',
    ),
  topics: topics.prefault({}),
  /** what the file may occupy: beyond it the oldest events go before their retention, read or not. Default: no limit */
  maxBytes: z
    .number()
    .int()
    .min(16 * MiB)
    .optional(),
  /** the largest record that is taken: key, value and headers */
  maxRecordBytes: z
    .number()
    .int()
    .min(1_024)
    .max(64 * MiB)
    .default(MiB),
})

/** What a user writes below `queue:`, beside `kind: local`. */
export type LocalOptions = z.input<typeof localOptions>

/** The same, checked and with its defaults. */
export type LocalSettings = z.output<typeof localOptions>
