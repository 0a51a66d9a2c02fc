/** What the author of a queue writes, with every type that it takes; `pack.test.ts` compiles it against the package. */

import {
  type Assignment,
  type ConnectorDeps,
  type ConsumeOptions,
  type Consumer,
  defineQueue,
  type Finding,
  MillraceError,
  type OffsetRange,
  type OptionsSchema,
  type PartitionRecords,
  type Publisher,
  type Queue,
  type QueueRecord,
  recordBytes,
  type StateStore,
  type StoredRecord,
  type TopicPartition,
} from '../../src/connector.ts'

const options: OptionsSchema<{ limit: number }> = {
  '~standard': { version: 1, vendor: 'own', validate: () => ({ value: { limit: 1_000 } }) },
}

export const ownQueue = defineQueue({
  name: 'own',
  options,
  open: async ({ limit }, { log, now, pipeline }: ConnectorDeps): Promise<Queue> => {
    log.info({ pipeline }, 'opened')
    const logs = new Map<string, StoredRecord[]>()
    const of = ({ topic, partition }: TopicPartition): StoredRecord[] => logs.get(`${topic}/${partition}`) ?? []
    const range = (place: TopicPartition): OffsetRange => ({ start: 0n, end: BigInt(of(place).length) })
    const stored = (record: QueueRecord, offset: number): StoredRecord => {
      if (recordBytes(record) > limit)
        throw new MillraceError('MILLRACE_EVENT_TOO_LARGE', 'too large', { remedy: 'raise the limit' })
      const headers = record.headers.map(
        ([name, value]) => [name, typeof value === 'string' ? Buffer.from(value) : value] as const,
      )
      return { ...record, headers, offset: BigInt(offset), timestamp: now() }
    }
    const state: StateStore = { read: async () => new Map(), write: async () => {}, remove: async () => {} }
    async function* consume({ signal }: ConsumeOptions): AsyncGenerator<Assignment> {
      const place = { topic: 'orders', partition: 0 }
      yield {
        ...place,
        signal,
        range: async () => range(place),
        read: async function* (from: bigint) {
          yield of(place).filter(({ offset }) => offset >= from)
        },
        report: () => {},
      }
    }
    return {
      traits: { name: 'own', maxRecordBytes: limit, durability: 'none' },
      check: async (): Promise<readonly Finding[]> => [{ level: 'warning', subject: 'queue', message: 'it forgets' }],
      topics: async () => new Map(),
      createTopic: async () => {},
      ranges: async (topic) => [range({ topic, partition: 0 })],
      offsetAt: async () => 0n,
      read: async function* (place, { start, end }) {
        yield of(place).slice(Number(start), Number(end))
      },
      publisher: async (): Promise<Publisher> => ({
        publish: async (batches: readonly PartitionRecords[]) =>
          batches.map((batch) => {
            const log = of(batch)
            const base = log.length
            logs.set(`${batch.topic}/${batch.partition}`, [
              ...log,
              ...batch.records.map((record, at) => stored(record, base + at)),
            ])
            return BigInt(base)
          }),
        close: async () => {},
      }),
      consume: async (how): Promise<Consumer> => {
        const assignments = consume(how)
        return { [Symbol.asyncIterator]: () => assignments, close: async () => {} }
      },
      state,
      close: async () => {},
    }
  },
})
