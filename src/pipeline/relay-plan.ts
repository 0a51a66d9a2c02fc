import type { Change } from '../core/change.ts'
import { MillraceError } from '../core/errors.ts'
import type { Event, Header } from '../core/event.ts'
import { partitionOf } from '../core/murmur2.ts'
import type { Position } from '../core/position.ts'
import type { PartitionRecords, QueueRecord } from '../core/queue.ts'
import { isReservedHeader, recordBytes, toRecord } from '../core/record.ts'
import type { RelayState, Tail } from '../core/relay-state.ts'
import { acknowledged } from '../core/tail.ts'
import { topicOf } from '../core/topic-template.ts'

/**
 * What to publish of what was read: decided per partition against its tail, never against one global maximum, because
 * one partition may be ahead of another when a session ends in the middle of a request (PROTOCOL 2.3).
 *
 * Holds the tails as the queue has acknowledged them; one request is under way at a time.
 */
export interface RelayPlan {
  readonly topics: Tails
  /** the topics of these changes that the relay's state does not know yet: record them before planning */
  unknownTopics(changes: readonly Change[]): readonly string[]
  addTopic(topic: string, tails: readonly Tail[]): void
  /** The records to publish, each with its place in its partition's chain; what stands in the queue already is dropped. */
  plan(changes: readonly Change[]): Planned
  /** @throws MILLRACE_QUEUE_LOST_END (iv) when an acknowledged offset is not above the one before it */
  acknowledge(planned: Planned, baseOffsets: readonly bigint[]): void
}

export interface Planned {
  readonly batches: readonly PlannedPartition[]
  /** how many records; the rest of the changes were there before */
  readonly count: number
  /** events that cannot be published whole: a placeholder stands among the records for each */
  readonly unpublishable: readonly MillraceError[]
  /** why the change after the planned ones cannot be published at all; what stands before it is published all the same */
  readonly refused: MillraceError | null
}

interface PlannedPartition extends PartitionRecords {
  readonly records: QueueRecord[]
  last: Position
}

/** What every partition is known to hold, by topic. */
export type Tails = ReadonlyMap<string, readonly Tail[]>

export interface PlanRules {
  readonly source: string
  readonly topicFor: (aggregateType: string) => string
  readonly maxRecordBytes: number
}

/** Pure: the same changes upon the same tails are the same records. */
export function planRecords({ source, topicFor, maxRecordBytes }: PlanRules, tails: Tails, changes: readonly Change[]): Planned {
  // our own headers take a few hundred bytes: below this a record fits without being measured
  const sureBytes = maxRecordBytes - 2_048
  const unpublishable: MillraceError[] = []
  let refused: MillraceError | null = null
  const byTopic = new Map<string, (PlannedPartition | undefined)[]>()
  const batches: PlannedPartition[] = []
  let count = 0
  for (const change of changes) {
    const topic = topicFor(change.aggregateType)
    const known = tails.get(topic)
    if (known === undefined) throw new MillraceError('MILLRACE_INTERNAL', `planned before the topic ${topic} was recorded`)
    const partition = partitionOf(change.orderingKey ?? change.aggregateId, known.length)
    let slots = byTopic.get(topic)
    if (slots === undefined) {
      slots = new Array(known.length).fill(undefined)
      byTopic.set(topic, slots)
    }
    let target = slots[partition]
    const prev = target?.last ?? (known[partition] as Tail).position
    if (prev !== null && change.position <= prev) continue
    const headers = change.headers === null ? NO_HEADERS : userHeaders(change)
    const event: Event = {
      source,
      position: change.position,
      prev,
      id: change.id,
      type: change.type,
      key: change.aggregateId,
      value: change.payload,
      headers: headers instanceof MillraceError ? NO_HEADERS : headers,
      committedAt: change.committedAt,
      version: change.version,
      orderingKey: change.orderingKey === null ? null : text.decode(change.orderingKey),
      placeholder: null,
    }
    let record = toRecord(event)
    // a header weighs up to three times what its JSON does
    const most = change.bytes + 2 * (change.headers?.length ?? 0)
    let fault = change.fault ?? (headers instanceof MillraceError ? headers : null)
    if (fault === null && most > sureBytes && recordBytes(record) > maxRecordBytes)
      fault = tooLarge(change, topic, recordBytes(record), maxRecordBytes)
    if (fault !== null) {
      record = toRecord({ ...event, value: null, headers: NO_HEADERS, placeholder: fault.code })
      if (recordBytes(record) > maxRecordBytes) {
        refused = fault
        break
      }
      unpublishable.push(fault)
    }
    if (target === undefined) {
      target = { topic, partition, records: [], last: change.position }
      slots[partition] = target
      batches.push(target)
    }
    target.records.push(record)
    target.last = change.position
    count++
  }
  return { batches, count, unpublishable, refused }
}

/**
 * The tails once the queue has acknowledged what was planned.
 * @throws MILLRACE_QUEUE_LOST_END (iv) when an acknowledged offset is not above the one before it
 */
export function tailsAfter(tails: Tails, planned: Planned, baseOffsets: readonly bigint[]): Tails {
  const after = new Map<string, readonly Tail[]>(tails)
  planned.batches.forEach((batch, i) => {
    const { topic, partition, records, last } = batch
    const known = after.get(topic) as readonly Tail[]
    const tail = acknowledged(batch, known[partition] as Tail, baseOffsets[i] as bigint, records.length, last)
    after.set(topic, known.with(partition, tail))
  })
  return after
}

/** Holds the tails of a session as they move on. */
export function createPlan(options: {
  readonly source: string
  readonly topicTemplate: string
  /** asked for each plan: a queue learns of it topic by topic */
  readonly maxRecordBytes: () => number
  readonly state: RelayState
}): RelayPlan {
  const { source, topicTemplate, maxRecordBytes } = options
  let topics: Tails = options.state.topics
  // aggregate types are few: the template is filled in once for each
  const names = new Map<string, string>()
  const topicFor = (aggregateType: string): string => {
    let topic = names.get(aggregateType)
    if (topic === undefined) {
      topic = topicOf(topicTemplate, aggregateType)
      if (names.size < 10_000) names.set(aggregateType, topic)
    }
    return topic
  }

  const { floor } = options.state
  /** in commit order, so that what was published before a drain comes first */
  const beyondFloor = (changes: readonly Change[]): readonly Change[] =>
    floor === null || (changes[0]?.position ?? floor) >= floor ? changes : changes.filter(({ position }) => position >= floor)

  return {
    get topics() {
      return topics
    },
    unknownTopics(changes) {
      const unknown = new Set<string>()
      let lastType = ''
      for (const { aggregateType } of beyondFloor(changes)) {
        if (aggregateType === lastType) continue
        lastType = aggregateType
        const topic = topicFor(aggregateType)
        if (!topics.has(topic)) unknown.add(topic)
      }
      return [...unknown]
    },
    addTopic(topic, tails) {
      topics = new Map([...topics, [topic, tails]])
    },
    plan: (changes) => planRecords({ source, topicFor, maxRecordBytes: maxRecordBytes() }, topics, beyondFloor(changes)),
    acknowledge(planned, baseOffsets) {
      topics = tailsAfter(topics, planned, baseOffsets)
    },
  }
}

const text = new TextDecoder('utf-8', { ignoreBOM: true })
const NO_HEADERS: readonly Header[] = []

/** The headers column: a flat object of strings, held by the table's constraint; a mapped foreign table may differ. */
function userHeaders(change: Change): readonly Header[] | MillraceError {
  let parsed: unknown
  try {
    parsed = JSON.parse(change.headers as string)
  } catch {
    parsed = undefined
  }
  if (parsed === null) return NO_HEADERS
  const entries = typeof parsed === 'object' && !Array.isArray(parsed) ? Object.entries(parsed as object) : null
  const fields = { position: change.position, id: change.id, type: change.type }
  if (!entries?.every((entry): entry is [string, string] => typeof entry[1] === 'string'))
    return new MillraceError(
      'MILLRACE_OUTBOX_ROW_INVALID',
      `the outbox row ${change.id} has headers that are not an object of strings`,
      { remedy: 'headers must be a JSON object whose values are strings, such as {"traceparent": "00-…"}', fields },
    )
  // a second `millrace-position` would be read in place of ours, and the event dropped as one that was applied before
  const reserved = entries.find(([name]) => isReservedHeader(name))
  if (reserved === undefined) return entries
  return new MillraceError(
    'MILLRACE_OUTBOX_ROW_INVALID',
    `the outbox row ${change.id} has a header ${reserved[0]}, a name that Millrace keeps for itself`,
    { remedy: 'give the header another name', fields },
  )
}

function tooLarge(change: Change, topic: string, bytes: number, maxRecordBytes: number): MillraceError {
  return new MillraceError(
    'MILLRACE_EVENT_TOO_LARGE',
    `the event ${change.id} (${change.type}) makes a record of ${bytes} bytes, and one of ${topic} may have ${maxRecordBytes}`,
    {
      remedy:
        "its key is parked at every sink until it is skipped (millrace parked); raise the queue's limit (Kafka: max.message.bytes of the topic), or refuse such events at the writer: set source.outbox.maxEventBytes and run millrace init",
      fields: { position: change.position, id: change.id, type: change.type, topic },
    },
  )
}
