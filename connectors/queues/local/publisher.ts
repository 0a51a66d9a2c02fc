import { setImmediate as turn } from 'node:timers/promises'
import { MillraceError } from '../../../src/core/errors.ts'
import type { PartitionRecords, Publisher } from '../../../src/core/queue.ts'
import type { Log } from './log.ts'
import { BatchEncoder } from './record-batch.ts'

export interface PublisherOptions {
  readonly log: Log
  readonly maxRecordBytes: number
  readonly partitionId: (topic: string, partition: number) => number
  readonly now: () => number
  readonly appended: () => void
  readonly closed: () => void
}

export function openPublisher({ log, maxRecordBytes, partitionId, now, appended, closed }: PublisherOptions): Publisher {
  const encoder = new BatchEncoder(maxRecordBytes)
  let state: 'open' | 'publishing' | 'failed' | 'closed' = 'open'

  return {
    async publish(entries) {
      if (state !== 'open') throw new MillraceError('MILLRACE_INTERNAL', REFUSED[state])
      state = 'publishing'
      try {
        // a publisher that is never out of work must not keep timers and sockets from theirs
        await turn()
        if ((state as string) === 'closed') throw new MillraceError('MILLRACE_INTERNAL', REFUSED.closed)
        encoder.begin()
        const appends = entries.map((entry) => ({
          partition: partitionId(entry.topic, entry.partition),
          batches: encode(encoder, entry),
        }))
        const bases = log.append(appends, now())
        state = 'open'
        appended()
        return bases.map(BigInt)
      } catch (error) {
        if (state === 'publishing') state = 'failed'
        throw error
      }
    },
    async close() {
      if (state === 'closed') return
      state = 'closed'
      closed()
    },
  }
}

const REFUSED = {
  publishing: 'a publish was called while another one was under way',
  failed: 'a publisher is of no more use after a failure: close it and open another one',
  closed: 'the publisher is closed',
} as const

function encode(encoder: BatchEncoder, { topic, partition, records }: PartitionRecords) {
  try {
    return encoder.encode(records)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new MillraceError('MILLRACE_EVENT_TOO_LARGE', `${topic}/${partition}: ${error.message}; nothing was published`, {
      cause: error,
      remedy: 'raise queue.maxRecordBytes, and the limit that the outbox was made with',
      fields: { topic, partition },
    })
  }
}
