import { MillraceError } from '../../../src/core/errors.ts'
import type { OffsetRange, StoredRecord, TopicPartition } from '../../../src/core/queue.ts'
import { commitFailure, damaged } from './failure.ts'
import type { LocalFile } from './file.ts'
import { decodeBatch, type EncodedBatch, type StoredBatch } from './record-batch.ts'

/** One piece of reading: this much is decoded at a time. */
const READ = { records: 1_000, bytes: 1 << 20 } as const

/** One step of retention: the write lock is held for this many batches at most. */
const SWEEP = 64

export interface Appended {
  readonly partition: number
  readonly batches: readonly EncodedBatch[]
}

/** The partitions and their records in the file; partitions are known by their ids here. */
export class Log {
  readonly #file: LocalFile

  constructor(file: LocalFile) {
    this.#file = file
  }

  /** partition counts by topic */
  topics(): ReadonlyMap<string, number> {
    return this.#file.snapshot('its topics cannot be read', () => {
      const rows = this.#file.sql('select topic, count(*) as partitions from partition group by topic order by topic').all()
      return new Map(rows.map(({ topic, partitions }) => [String(topic), Number(partitions)]))
    })
  }

  createTopic(topic: string, partitions: number): void {
    this.#file.transaction(`the topic ${topic} cannot be made`, () => {
      if (this.#partitionsOf(topic).length > 0) return
      const insert = this.#file.sql('insert into partition (topic, number) values (?, ?)')
      for (let number = 0; number < partitions; number++) insert.run(topic, number)
    })
  }

  /** the ids of the topic's partitions, by partition number; none when there is no such topic */
  partitionsOf(topic: string): readonly number[] {
    return this.#file.snapshot('its topics cannot be read', () => this.#partitionsOf(topic))
  }

  range(partition: number): OffsetRange {
    const { start, end } = this.#file.snapshot('its ranges cannot be read', () => this.#range(partition))
    return { start: BigInt(start), end: BigInt(end) }
  }

  /**
   * Appends all of it, or nothing; durable when it returns.
   * @returns the offset of the first record of each entry
   */
  append(entries: readonly Appended[], timestamp: number): readonly number[] {
    const insert = this.#file.sql('insert into batch (partition, base, count, timestamp, data) values (?, ?, ?, ?, ?)')
    const move = this.#file.sql('update partition set log_end = ? where id = ?')
    return this.#file.transaction(
      'a publish failed',
      () =>
        entries.map(({ partition, batches }) => {
          const { end: base } = this.#range(partition)
          let end = base
          for (const { count, data } of batches) {
            insert.run(partition, end, count, timestamp, data)
            end += count
          }
          move.run(end, partition)
          return base
        }),
      (error) => commitFailure(error, this.#file.path),
    )
  }

  /**
   * The next records from the offset, a bounded number of them; none when it is the end of the log.
   * @throws MILLRACE_QUEUE_OFFSET_GONE when the offset is not between the start and the end of the log
   */
  read(place: TopicPartition, partition: number, from: number, to = Number.MAX_SAFE_INTEGER): readonly StoredRecord[] {
    return this.#file.snapshot(`${place.topic}/${place.partition} cannot be read`, () => {
      const { start, end } = this.#range(partition)
      if (from < start || from > end) throw offsetGone(place, from, { start: BigInt(start), end: BigInt(end) })
      return from === end ? [] : this.#decode(partition, from, Math.min(to, end))
    })
  }

  #decode(partition: number, from: number, to: number): readonly StoredRecord[] {
    const rows = this.#file
      .sql(
        `select base, count, timestamp, data from batch
         where partition = ? and base < ?
           and base >= (select max(base) from batch where partition = ? and base <= ?)
         order by base`,
      )
      .iterate(partition, to, partition, from)
    const records: StoredRecord[] = []
    let bytes = 0
    let next = from
    for (const row of rows) {
      const { base, count, data } = row as unknown as StoredBatch
      if (records.length > 0 && (records.length + count > READ.records || bytes + data.length > READ.bytes)) break
      if (base > next || base + count <= next) break
      try {
        records.push(...decodeBatch(row as unknown as StoredBatch, from, to))
      } catch (error) {
        throw damaged(this.#file.path, (error as Error).message)
      }
      bytes += data.length
      next = base + count
    }
    if (records.length === 0) throw damaged(this.#file.path, `the record at offset ${from} of partition ${partition} is missing`)
    return records
  }

  /** the offset of the first record published at or after the time, or the end of the log */
  offsetAt(partition: number, time: number): bigint {
    return this.#file.snapshot('its times cannot be read', () => {
      const row = this.#file
        .sql('select base from batch where partition = ? and timestamp >= ? order by base limit 1')
        .get(partition, time)
      const { start, end } = this.#range(partition)
      return BigInt(row === undefined ? end : Math.max(start, Number(row['base'])))
    })
  }

  /**
   * One step of retention: the oldest batches go, while they are older than the time or the file is larger than it may
   * be. Only ever from the start of a log.
   * @returns whether more is to go
   */
  sweep(olderThan: number, maxBytes: number): boolean {
    const sql = (text: string) => this.#file.sql(text)
    const pragma = (name: string): number => this.#file.pragma(name)
    const excess = (): number => (pragma('page_count') - pragma('freelist_count')) * pragma('page_size') - maxBytes
    const oldest = (count: number) =>
      sql('select id, partition, base, count, timestamp, length(data) as bytes from batch order by id limit ?').all(count)
    const isDue = (timestamp: unknown, over: number): boolean => Number(timestamp) < olderThan || over > 0

    // first a look, which takes no lock: mostly there is nothing to do
    const due = this.#file.snapshot('retention failed', () => oldest(1).some(({ timestamp }) => isDue(timestamp, excess())))
    if (!due) return false
    return this.#file.transaction('retention failed', () => {
      let over = excess()
      const rows = oldest(SWEEP)
      for (const { id, partition, base, count, timestamp, bytes } of rows) {
        if (!isDue(timestamp, over)) return false
        sql('delete from batch where id = ?').run(Number(id))
        sql('update partition set log_start = max(log_start, ?) where id = ?').run(
          Number(base) + Number(count),
          Number(partition),
        )
        over -= Number(bytes)
      }
      return rows.length === SWEEP
    })
  }

  #partitionsOf(topic: string): readonly number[] {
    const rows = this.#file.sql('select id from partition where topic = ? order by number').all(topic)
    return rows.map(({ id }) => Number(id))
  }

  #range(partition: number): { readonly start: number; readonly end: number } {
    const row = this.#file.sql('select log_start, log_end from partition where id = ?').get(partition)
    if (row === undefined) throw damaged(this.#file.path, `the partition with the id ${partition} is gone`)
    return { start: Number(row['log_start']), end: Number(row['log_end']) }
  }
}

export function offsetGone({ topic, partition }: TopicPartition, offset: number | bigint, log: OffsetRange): MillraceError {
  return new MillraceError(
    'MILLRACE_QUEUE_OFFSET_GONE',
    `offset ${offset} of ${topic}/${partition} is not in its log, which holds ${log.start} to ${log.end}`,
    {
      remedy:
        'below the start, retention has taken it; beyond the end, the queue lost what it had: neither is bridged without a person',
      fields: { topic, partition, offset: String(offset), start: String(log.start), end: String(log.end) },
    },
  )
}
