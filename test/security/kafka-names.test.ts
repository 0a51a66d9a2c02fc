import { expect, test } from 'vitest'
import type { StoredRecord } from '../../src/core/queue.ts'
import { openKafka, uniqueName } from '../connectors/kafka-queue.ts'
import { quietLog } from '../faults/parts.ts'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { HOSTILE } from './hostile.ts'

requires('kafka')('in Kafka', () => {
  test('topics that are called what every object inherits are made, written and followed; keys and headers of any name arrive as they were', async () => {
    const queue = await openKafka(
      { brokers: await sharedKafka(), topics: { partitions: 1 }, requestTimeout: '10s' },
      'names',
      quietLog,
    )
    const topics = ['__proto__', 'constructor', 'toString']
    const records = HOSTILE.map((name) => ({
      key: Buffer.from(name),
      value: Buffer.from(JSON.stringify(name)),
      headers: [[name, name] as const, ['__proto__', 'x'] as const, ['constructor', name] as const],
    }))
    try {
      const publisher = await queue.publisher()
      for (const topic of topics) await queue.createTopic(topic)
      await publisher.publish(topics.map((topic) => ({ topic, partition: 0, records })))
      await publisher.close()
      expect([...(await queue.topics(topics)).keys()].sort()).toEqual([...topics].sort())
      const consumer = await queue.consume({
        group: uniqueName('names'),
        topics,
        clientId: 'names',
        signal: AbortSignal.timeout(30_000),
      })
      const found = new Map<string, StoredRecord[]>()
      for await (const assignment of consumer) {
        const own: StoredRecord[] = []
        for await (const batch of assignment.read(0n)) {
          own.push(...batch)
          if (own.length >= records.length) break
        }
        found.set(assignment.topic, own)
        if (found.size === topics.length) break
      }
      await consumer.close()
      const text = (bytes: Uint8Array | null): string => Buffer.from(bytes ?? []).toString()
      for (const topic of topics)
        expect(
          found
            .get(topic)
            ?.map(({ key, value, headers }) => [text(key), text(value), headers.map(([name, content]) => [name, text(content)])]),
          topic,
        ).toEqual(records.map(({ key, value, headers }) => [text(key), text(value), headers]))
    } finally {
      await queue.close()
    }
  }, 60_000)
})
