import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import local from '../../connectors/queues/local.ts'
import type { TableOptions } from '../../connectors/sinks/postgres/options.ts'
import type { Event } from '../../src/core/event.ts'
import type { Queue, QueueRecord } from '../../src/core/queue.ts'
import { toRecord } from '../../src/core/record.ts'
import type { Sink } from '../../src/core/sink.ts'
import { type Applier, type ApplierOptions, startApplier } from '../../src/pipeline/applier.ts'
import type { PartitionStatus } from '../../src/pipeline/lane-follower.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { ORDERS, openSink, silent } from '../connectors/postgres-fixture.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'

export const TOPIC = 'outbox.event.order'

/** An embedded queue with one topic, a replica, and appliers between them: what relays would publish is published by hand. */
export interface Rig {
  readonly queue: Queue
  readonly replica: Database
  /** another handle on the same queue, closed with the rig */
  handle(): Promise<Queue>
  /** the sink `replica`, closed with the rig; `url`: default the rig's own replica; `tables`: beside that of the orders */
  sink(url?: string, options?: { readonly tables?: readonly TableOptions[]; readonly parking?: false }): Promise<Sink>
  applier(sink: Sink, options?: Partial<ApplierOptions>): Applier
  /** behind the queue's back, as an operator would */
  deleteTopic(topic: string): Promise<void>
  /** one publish by a publisher of its own; a record that is no event may stand among them */
  publish(partition: number, records: readonly (Event | QueueRecord)[]): Promise<void>
  rows(): Promise<readonly string[]>
  rowsAre(expected: readonly string[]): Promise<unknown>
  drop(): Promise<void>
}

export async function createRig(topics: { partitions?: number; retention?: number } = {}): Promise<Rig> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-pipeline-'))
  const replica = await createDatabase('replica')
  await replica.query(ORDERS)
  const path = join(folder, 'queue.db')
  const open: { close(): Promise<void> }[] = []
  const appliers: Applier[] = []

  async function handle(): Promise<Queue> {
    const parsed = await local.options['~standard'].validate({ path, topics: { partitions: 2, ...topics } })
    if (parsed.issues) throw new Error(JSON.stringify(parsed.issues))
    const queue = await local.open(parsed.value, { log: silent, pipeline: 'shop', now: Date.now })
    open.push(queue)
    return queue
  }
  const queue = await handle()
  await queue.createTopic(TOPIC)

  const rows = async (): Promise<readonly string[]> =>
    (await replica.query('select id, note from orders order by id')).rows.map(({ id, note }) => `${id}=${note}`)

  return {
    queue,
    replica,
    handle,
    async sink(url = replica.url, { tables = [], ...options } = {}) {
      const sink = await openSink({
        url,
        ...options,
        tables: [
          { from: 'order', into: 'public.orders', key: 'id', guard: 'column', on: { Put: 'upsert', Gone: 'delete' } },
          ...tables,
        ],
      })
      await sink.init()
      open.unshift(sink)
      return sink
    },
    applier(sink, options = {}) {
      const applier = startApplier({
        name: 'replica',
        pipeline: 'shop',
        sink,
        queue,
        topics: [TOPIC],
        start: 'earliest',
        sources: null,
        log: silent,
        clock: systemClock,
        random: Math.random,
        ...options,
      })
      appliers.push(applier)
      return applier
    },
    async deleteTopic(topic) {
      const file = new DatabaseSync(path)
      file.prepare('delete from batch where partition in (select id from partition where topic = ?)').run(topic)
      file.prepare('delete from partition where topic = ?').run(topic)
      file.close()
    },
    async publish(partition, records) {
      const publisher = await queue.publisher()
      await publisher.publish([
        { topic: TOPIC, partition, records: records.map((record) => ('position' in record ? toRecord(record) : record)) },
      ])
      await publisher.close()
    },
    rows,
    rowsAre: (expected) =>
      eventually(async () => JSON.stringify(await rows()) === JSON.stringify(expected), {
        within: 15_000,
        what: `the replica shows ${expected.join(', ')}`,
      }),
    async drop() {
      await Promise.all(appliers.map((applier) => applier.stop()))
      for (const one of open) await one.close()
      await replica.drop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

export function laneOf(applier: Applier, partition: number): PartitionStatus | undefined {
  return applier.status().partitions.find((lane) => lane.partition === partition)
}

/** The lane's status once it stands in this phase. */
export function inPhase(applier: Applier, partition: number, phase: PartitionStatus['phase']): Promise<PartitionStatus> {
  return eventually(
    () => {
      const lane = laneOf(applier, partition)
      return lane?.phase === phase ? lane : undefined
    },
    { within: 20_000, what: `partition ${partition} is ${phase}` },
  )
}

export const put = (key: string, note: string) => ({ type: 'Put', key, payload: { id: key, total: 1, note } })
