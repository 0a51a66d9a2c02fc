import { MillraceError } from '../../../src/core/errors.ts'
import type { OffsetRange, TopicPartition } from '../../../src/core/queue.ts'
import type { Cluster } from './cluster.ts'
import { answered } from './failure.ts'
import { ERROR } from './protocol-errors.ts'

/** What ListOffsets takes in a timestamp's place. */
const LATEST = -1
const EARLIEST = -2
/** as in a fetch: up to the high watermark */
const READ_UNCOMMITTED = 0

interface ListOffsetsAnswer {
  readonly responses: readonly {
    readonly partitions: readonly { readonly partition: number; readonly errorCode: number; readonly offset: string }[]
  }[]
}

async function listOffset(cluster: Cluster, { topic, partition }: TopicPartition, timestamp: number): Promise<bigint> {
  const doing = `for an offset of ${topic}/${partition}`
  const { errorCode, answer } = await cluster.onLeader(
    topic,
    partition,
    async (link) => {
      const topics = [{ topic, partitions: [{ partition, timestamp }] }]
      const { responses } = await link.call<ListOffsetsAnswer>('ListOffsets', {
        replicaId: -1,
        isolationLevel: READ_UNCOMMITTED,
        topics,
      })
      const found = responses[0]?.partitions[0]
      return { errorCode: found?.errorCode ?? ERROR.LEADER_NOT_AVAILABLE, answer: found?.offset ?? '-1' }
    },
    doing,
  )
  if (errorCode !== ERROR.NONE) throw answered(errorCode, doing, { topic, partition })
  return BigInt(answer)
}

/** The first retained offset, and the high watermark. */
export async function rangeOf(cluster: Cluster, at: TopicPartition): Promise<OffsetRange> {
  const [start, end] = await Promise.all([listOffset(cluster, at, EARLIEST), listOffset(cluster, at, LATEST)])
  return { start, end }
}

/** The first offset of a record at or after the time (ms), or the end of the log. */
export async function offsetAtTime(cluster: Cluster, at: TopicPartition, time: number): Promise<bigint> {
  const found = await listOffset(cluster, at, Math.max(0, time))
  return found === -1n ? (await rangeOf(cluster, at)).end : found
}

export function offsetGone({ topic, partition }: TopicPartition, offset: bigint, { start, end }: OffsetRange): MillraceError {
  return new MillraceError(
    'MILLRACE_QUEUE_OFFSET_GONE',
    `offset ${offset} of ${topic}/${partition} is not in the log, which reaches from ${start} to ${end}`,
    {
      fields: { topic, partition, offset: String(offset), start: String(start), end: String(end) },
      remedy:
        offset < start
          ? 'retention removed what was not read yet: the reader is incomplete and must be rebuilt; give the topic a longer retention.ms'
          : 'the log lost its end (an unclean election, a topic made anew): a person must decide',
    },
  )
}
