import { Kafka, logLevel } from 'kafkajs'
import { onTestFinished } from 'vitest'
import type { Assignment, Queue, QueueRecord, StoredRecord } from '../../src/core/queue.ts'
import { eventually } from '../support/eventually.ts'

/** What the tests of the Kafka queue do again and again. */

export type Admin = ReturnType<Kafka['admin']>

/** kafkajs' own, to do to the cluster what somebody else would do */
export async function adminOf(brokers: readonly string[]): Promise<Admin> {
  const admin = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING }).admin()
  await admin.connect()
  return admin
}

/** keyed `<prefix>0`, `<prefix>1`, … */
export function recordsOf(count: number, prefix: string, bytes = 100): readonly QueueRecord[] {
  return Array.from({ length: count }, (_, n) => ({
    key: Buffer.from(`${prefix}${n}`),
    value: Buffer.alloc(bytes, `${n} `),
    headers: [['n', `${n}`]],
  }))
}

export const keysOf = (records: readonly (QueueRecord | StoredRecord)[]): string[] =>
  records.map(({ key }) => Buffer.from(key as Uint8Array).toString())

/** to partition 0, by a publisher of its own; @returns the first offset */
export async function publish(queue: Queue, topic: string, records: readonly QueueRecord[]): Promise<bigint> {
  const publisher = await queue.publisher()
  try {
    return (await publisher.publish([{ topic, partition: 0, records }]))[0] as bigint
  } finally {
    await publisher.close()
  }
}

/** partition 0, whole */
export async function readAll(queue: Queue, topic: string): Promise<readonly StoredRecord[]> {
  const [range] = await queue.ranges(topic)
  const found: StoredRecord[] = []
  for await (const batch of queue.read({ topic, partition: 0 }, range ?? { start: 0n, end: 0n })) found.push(...batch)
  return found
}

/** at least so many from the offset on */
export async function take(assignment: Assignment, from: bigint, count: number): Promise<readonly StoredRecord[]> {
  const found: StoredRecord[] = []
  for await (const batch of assignment.read(from)) {
    found.push(...batch)
    if (found.length >= count) break
  }
  return found
}

export interface Joined {
  /** rejects with what ends the member */
  readonly ended: Promise<void>
  /** what it was assigned and still has */
  held(): readonly Assignment[]
  holding(partitions: number): Promise<readonly [Assignment, ...Assignment[]]>
}

/** A member of the group until the test is over. */
export async function join(queue: Queue, topics: readonly string[], group: string): Promise<Joined> {
  const consumer = await queue.consume({ group, topics, clientId: 'test', signal: new AbortController().signal })
  onTestFinished(() => consumer.close())
  const assigned: Assignment[] = []
  const ended = (async () => {
    for await (const assignment of consumer) assigned.push(assignment)
  })()
  ended.catch(() => {})
  const held = (): readonly Assignment[] => assigned.filter(({ signal }) => !signal.aborted)
  return {
    ended,
    held,
    async holding(partitions) {
      await eventually(() => held().length === partitions, { within: 30_000, what: `${partitions} partitions are held` })
      return held() as readonly [Assignment, ...Assignment[]]
    },
  }
}
