import { MillraceError } from './errors.ts'
import type { Event } from './event.ts'
import type { OffsetRange, TopicPartition } from './queue.ts'
import type { Tail } from './relay-state.ts'

/**
 * Finding a partition's tail at the start of a session (PROTOCOL 2.3 rule 2): from the recorded tail, reading forward.
 * Never "the last record" alone: it may be a zombie's late run, retention may have taken it, and a loss in the broker
 * would be bridged without a word.
 */
export interface TailSearch {
  readonly partition: TopicPartition
  readonly source: string
  readonly recorded: Tail
  /** what is to be read: the recorded record itself where it is still retained, and all after it */
  readonly range: OffsetRange
  /** retention has taken what the chain would be followed from: an event that does not follow is taken all the same */
  readonly trimmed: boolean
  readonly tail: Tail
  /** all that is retained is read: see {@link beginAnew} */
  readonly whole: boolean
  readonly recordedSeen: boolean
  /** (iii) the chain is broken; the search is over */
  readonly broken: MillraceError | null
}

/** @throws MILLRACE_QUEUE_LOST_END (i): the log ends at or before the recorded offset */
export function beginSearch(partition: TopicPartition, source: string, recorded: Tail, log: OffsetRange): TailSearch {
  if (log.end <= recorded.offset)
    throw lostEnd(partition, recorded, `its log ends at ${log.end}, but offset ${recorded.offset} was acknowledged`)
  const trimmed = log.start > recorded.offset + 1n
  const from = recorded.position === null ? recorded.offset + 1n : recorded.offset
  return {
    partition,
    source,
    recorded,
    range: { start: from < log.start ? log.start : from, end: log.end },
    trimmed,
    tail: recorded,
    whole: false,
    recordedSeen: false,
    broken: null,
  }
}

/**
 * The search over all that is retained, for a chain that is broken behind the recorded tail: that one may itself be a
 * zombie's late duplicate, behind what another session had published and not recorded, and what follows chains to that.
 * What was really lost is missing from the whole log as well.
 *
 * Where retention has cut the log, stale duplicates may stand first, with gaps between them: what stands below the
 * recorded tail is not judged, and of what stands above it only the first event that is left.
 */
export function beginAnew(partition: TopicPartition, source: string, recorded: Tail, log: OffsetRange): TailSearch {
  return {
    partition,
    source,
    recorded,
    range: log,
    trimmed: log.start > 0n && recorded.position !== null,
    tail: { position: null, offset: log.start - 1n },
    whole: true,
    recordedSeen: false,
    broken: null,
  }
}

/**
 * The search after one more record: `event` is null for a record that is not an event of any source.
 * @throws MILLRACE_QUEUE_LOST_END (ii): another record stands at the recorded offset
 */
export function searchStep(before: TailSearch, offset: bigint, event: Event | null): TailSearch {
  const { recorded, partition, source } = before
  const ours = event !== null && event.source === source ? event : null
  let search = before
  if (offset === recorded.offset && recorded.position !== null) {
    if (ours?.position !== recorded.position)
      throw lostEnd(partition, recorded, `another record stands at offset ${offset}, where ${recorded.position} was acknowledged`)
    search = { ...search, recordedSeen: true }
  }
  if (ours === null) return search
  const { position } = search.tail
  if (position !== null && ours.position <= position) return search
  if (ours.prev !== position && !search.trimmed) {
    const what = `the record at offset ${offset} follows ${ours.prev}, but ${position} was read before it`
    return { ...search, broken: lostEnd(partition, recorded, what) }
  }
  const judged = search.whole && recorded.position !== null && ours.position >= recorded.position
  return { ...search, trimmed: search.trimmed && !judged, tail: { position: ours.position, offset } }
}

/**
 * @throws MILLRACE_QUEUE_LOST_END (ii): the log holds nothing at the recorded offset although retention has not reached
 *   it; (iii) the chain is broken
 */
export function endSearch({ recorded, range, partition, tail, recordedSeen, broken }: TailSearch): Tail {
  if (broken !== null) throw broken
  if (recorded.position !== null && range.start <= recorded.offset && !recordedSeen)
    throw lostEnd(
      partition,
      recorded,
      `no record stands at offset ${recorded.offset}, where ${recorded.position} was acknowledged`,
    )
  return tail
}

/** @throws MILLRACE_QUEUE_LOST_END (iv): lost under a live session */
export function acknowledged(
  partition: TopicPartition,
  tail: Tail,
  baseOffset: bigint,
  count: number,
  last: Tail['position'],
): Tail {
  if (baseOffset <= tail.offset)
    throw lostEnd(partition, tail, `it acknowledged offset ${baseOffset}, but offset ${tail.offset} was acknowledged before`)
  return { position: last, offset: baseOffset + BigInt(count) - 1n }
}

/** What is safe, and the ways on, when the queue lost what it had acknowledged. */
export const LOST_END =
  'nothing was bridged: what is not confirmed waits in the slot, and the sinks keep what they applied. Look for a topic that was restored, truncated or made again, and put it back as it was; if it is gone for good, begin a new stream: millrace teardown --slot --publication --schema, then millrace init'

function lostEnd(partition: TopicPartition, recorded: Tail, what: string): MillraceError {
  const { topic } = partition
  return new MillraceError('MILLRACE_QUEUE_LOST_END', `the queue lost events of ${topic}/${partition.partition}: ${what}`, {
    remedy: LOST_END,
    fields: {
      topic,
      partition: partition.partition,
      recordedPosition: recorded.position,
      recordedOffset: String(recorded.offset),
    },
  })
}
