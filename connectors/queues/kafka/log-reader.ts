import type { OffsetRange, StoredRecord, TopicPartition } from '../../../src/core/queue.ts'
import type { Cluster } from './cluster.ts'
import type { Codecs } from './codecs.ts'
import { answered } from './failure.ts'
import { fetchFrom } from './fetch.ts'
import { offsetGone, rangeOf } from './offsets.ts'
import { ERROR } from './protocol-errors.ts'
import { offsetAfter, RecordReader } from './record-reader.ts'

export const BATCH_BYTES = 1024 * 1024
const MAX_WAIT = 500

/**
 * The records of a range, straight from the partition's leader: no group, no seek that could be reset.
 * @throws MILLRACE_QUEUE_OFFSET_GONE when the log does not hold the range's start, or ends before its end
 */
export async function* readRange(
  cluster: Cluster,
  codecs: Codecs,
  at: TopicPartition,
  range: OffsetRange,
  signal?: AbortSignal,
): AsyncGenerator<readonly StoredRecord[]> {
  const { topic, partition } = at
  const doing = `to read ${topic}/${partition}`
  const limits = { maxWait: MAX_WAIT, maxBytes: BATCH_BYTES, maxPartitionBytes: BATCH_BYTES }
  let offset = range.start
  let holes = 0
  while (offset < range.end) {
    if (signal?.aborted) return
    const { errorCode, answer } = await cluster.onLeader(
      topic,
      partition,
      async (link) => {
        const { errorCode, fetched } = await fetchFrom(link, [{ topic, partition, offset }], limits, cluster.requestTimeout)
        return { errorCode: errorCode || (fetched[0]?.errorCode ?? ERROR.NONE), answer: fetched[0] }
      },
      doing,
    )
    if (errorCode === ERROR.OFFSET_OUT_OF_RANGE) throw offsetGone(at, offset, await rangeOf(cluster, at))
    if (errorCode !== ERROR.NONE) throw answered(errorCode, doing, { topic, partition })
    // throttled: the broker said nothing of the partition
    if (!answer) continue
    if (answer.highWatermark < range.end) {
      // a leader that was just elected says a high watermark that is behind; asked for its end, it waits until it knows (KIP-207)
      const now = await rangeOf(cluster, at)
      if (now.end < range.end) throw offsetGone(at, range.end - 1n, now)
    }
    const next = offsetAfter(answer.bytes, offset)
    if (next === null) {
      // below the high watermark and nothing there: compaction emptied the end of what is asked for. Asked twice to be sure
      if (++holes > 1) return
      continue
    }
    holes = 0
    const reader = new RecordReader(answer.bytes, codecs, offset, range.end)
    for (let batch = await reader.next(BATCH_BYTES); batch && !signal?.aborted; batch = await reader.next(BATCH_BYTES))
      yield batch
    offset = next
  }
}
