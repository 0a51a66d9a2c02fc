import pg from 'pg'
import type { Event } from '../../src/core/event.ts'
import type { Position } from '../../src/core/position.ts'
import type { Queue } from '../../src/core/queue.ts'
import { fromRecord } from '../../src/core/record.ts'
import type { Committed } from './workload.ts'

/** What stands in the topic, held against what the writers know (PROTOCOL 2.6: I2 nothing lost, I3 order, I4 no phantom). */
export interface TopicVerdict {
  readonly records: number
  readonly duplicates: number
  readonly violations: readonly string[]
  /** committed events that are not in the topic (yet) */
  readonly missing: number
  readonly partitions: number
}

/** what judgeTopic and judgeReplica together hold a stream to */
export const STREAM_INVARIANTS = ['I2', 'I3', 'I4', 'I7', 'I8']

export interface JudgeTopicOptions {
  /** shown every event where it first stands in the topic, in the order of its partition */
  readonly first?: (event: Event, partition: number) => void
  /** judges the events of this source only: the topic holds others' too */
  readonly source?: string | undefined
}

export async function judgeTopic(
  queue: Queue,
  topic: string,
  committed: Committed,
  { first = () => {}, source }: JudgeTopicOptions = {},
): Promise<TopicVerdict> {
  const violations: string[] = []
  const seen = new Set<string>()
  const orderByKey = new Map<string, Pick<Event, 'id' | 'position'>[]>()
  let records = 0
  let duplicates = 0
  const text = new TextDecoder()
  const ranges = await queue.ranges(topic)
  for (const [partition, range] of ranges.entries()) {
    let last: Position | null = null
    if (range.start === range.end) continue
    for await (const batch of queue.read({ topic, partition }, range))
      for (const record of batch) {
        const event = fromRecord(record)
        if (event === null || (source !== undefined && event.source !== source)) continue
        records++
        if (last !== null && event.position <= last) {
          duplicates++
          if (!seen.has(event.id)) violations.push(`I3: ${event.position} comes first after ${last} in ${partition}`)
          continue
        }
        if (event.prev !== last)
          violations.push(`I3: ${event.position} follows ${event.prev}, but ${last} stands before it in ${partition}`)
        last = event.position
        if (seen.has(event.id)) violations.push(`I3: event ${event.id} has two positions`)
        seen.add(event.id)
        first(event, partition)
        if (!committed.ids.has(event.id))
          violations.push(
            `I4: event ${event.id} is in the topic and was ${committed.rolledBack.has(event.id) ? 'rolled back' : 'never written'}`,
          )
        const key = text.decode(event.key)
        const order = orderByKey.get(key)
        const { id, position } = event
        if (order) order.push({ id, position })
        else orderByKey.set(key, [{ id, position }])
      }
  }
  let missing = 0
  for (const id of committed.ids) if (!seen.has(id)) missing++
  if (missing === 0)
    for (const [key, ids] of committed.idsByKey)
      if (ids.join() !== inOrder(orderByKey.get(key) ?? []).join()) violations.push(`I3: the events of ${key} are out of order`)
  return { records, duplicates, violations, missing, partitions: ranges.length }
}

/** Within a partition the positions were seen to ascend; a drain may have moved the key from one to another. */
const inOrder = (events: readonly Pick<Event, 'id' | 'position'>[]): readonly string[] =>
  [...events].sort((a, b) => (a.position < b.position ? -1 : 1)).map(({ id }) => id)

/** I7, I8: the differences between the replica and the writers' own fold, exact text by exact text. */
export async function judgeReplica(url: string, committed: Committed): Promise<readonly string[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query('select id, version::text, body, amount::text from orders')
    const shown = new Map(rows.map((row) => [row.id as string, row]))
    const differences: string[] = []
    for (const [key, row] of committed.rows) {
      const found = shown.get(key)
      if (found === undefined) differences.push(`${key} is missing`)
      else if (found.version !== row.version || found.body !== row.body || found.amount !== row.amount)
        differences.push(
          `${key} shows version ${found.version} amount ${found.amount}, committed was ${row.version} ${row.amount}`,
        )
    }
    for (const key of shown.keys()) if (!committed.rows.has(key)) differences.push(`${key} is there and should not be`)
    return differences
  } finally {
    await client.end()
  }
}
