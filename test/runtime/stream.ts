import type { Queue } from '../../src/core/queue.ts'
import { fromRecord } from '../../src/core/record.ts'
import { latestState, type RelayState, stateKey, statePrefix } from '../../src/core/relay-state.ts'
import { encodeState } from '../../src/core/state-text.ts'
import {
  createPipeline,
  defineConfig,
  type MillraceConfig,
  type Pipeline,
  type PipelineOptions,
  type Running,
} from '../../src/index.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { parseConfig } from '../../src/runtime/config-schema.ts'
import { openQueue } from '../../src/runtime/open.ts'
import { Secrets } from '../../src/runtime/secrets.ts'
import { quietLog } from '../faults/parts.ts'
import { withClient } from '../postgres/each-postgres.ts'
import { eventually } from '../support/eventually.ts'

/** A pipeline of one table whose writer knows what it wrote, for tests of what happens between two relays. */
export interface Stream {
  readonly name: string
  readonly config: MillraceConfig
  /** of the slot and of the publication */
  readonly made: string
  /** the next events of five keys, each in a transaction of its own */
  write(count: number, url?: string): Promise<void>
  /** what was written so far will not arrive, from that many events back on */
  giveUp(count: number): void
  pipeline(different?: Partial<MillraceConfig>, options?: PipelineOptions): Pipeline
  /** runs everything until all that was written is in the replica, then stops */
  flow(different?: Partial<MillraceConfig>): Promise<void>
  run(different?: Partial<MillraceConfig>): Promise<Running>
  /** the last event of each key is in the replica */
  arrived(): Promise<void>
  /** every event that was written and not given up stands in the queue once, by key in order within its partition, and every chain holds */
  judge(): Promise<Verdict>
  /** a record of one session more in the queue, as a relay writes that begins */
  raiseSession(): Promise<void>
  query(text: string, values?: unknown[]): Promise<readonly Record<string, string>[]>
  stop(): Promise<void>
}

export interface Verdict {
  readonly missing: number
  readonly twice: number
  readonly unordered: number
  readonly brokenChains: number
  /** of given-up events that arrived all the same */
  readonly phantoms: number
}

export const CLEAN: Verdict = { missing: 0, twice: 0, unordered: 0, brokenChains: 0, phantoms: 0 }

const KEYS = 5

export function streamOf(options: {
  readonly name: string
  readonly sourceUrl: string
  readonly replicaUrl: string
  readonly queue:
    | { readonly kind: 'local'; readonly path: string }
    | { readonly kind: 'kafka'; readonly brokers: readonly string[] }
}): Stream {
  const { name, sourceUrl, replicaUrl } = options
  const config = defineConfig({
    name,
    source: { url: sourceUrl, acceptUnlimitedWal: true },
    queue: { ...options.queue, topics: { name: `${name}.{aggregate_type}`, partitions: 3 } } as MillraceConfig['queue'] & object,
    sinks: {
      warehouse: {
        kind: 'postgres',
        url: replicaUrl,
        tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderChanged: 'upsert' } }],
      },
    },
    http: false,
  })
  let written = 0
  const gone = new Set<number>()
  const running: Running[] = []
  const opened = (): Promise<Queue> => {
    const context = { env: {}, folder: '/', secrets: new Secrets() }
    const around = { origin: 'test', folder: '/', log: quietLog, clock: systemClock, random: Math.random }
    return openQueue(parseConfig(config, 'test', context), around)
  }
  const stream: Stream = {
    name,
    config,
    made: `millrace_${name}`,
    pipeline: (different = {}, more = {}) => createPipeline({ ...config, ...different }, { logLevel: 'silent', ...more }),
    async write(count, url = sourceUrl) {
      await withClient(url, async (client) => {
        for (let i = 0; i < count; i++) {
          written++
          const id = `key ${written % KEYS}`
          await client.query(
            "select millrace.emit(aggregate_type => 'order', aggregate_id => $1, type => 'OrderChanged', payload => $2)",
            [id, JSON.stringify({ id, n: written })],
          )
        }
      })
    },
    giveUp(count) {
      for (let n = written - count + 1; n <= written; n++) gone.add(n)
    },
    async run(different) {
      const one = await stream.pipeline(different).run()
      one.done.catch(() => {})
      running.push(one)
      return one
    },
    async flow(different) {
      const one = await stream.run(different)
      await Promise.race([stream.arrived(), one.done])
      await one.stop()
    },
    async arrived() {
      const last = new Map<number, number>()
      for (let n = 1; n <= written; n++) if (!gone.has(n)) last.set(n % KEYS, n)
      const expected = [...last.values()].sort((a, b) => a - b).join()
      await eventually(
        async () => {
          const rows = await withClient(
            replicaUrl,
            async (client) => (await client.query('select n from orders order by n')).rows,
          )
          return rows.map((row) => row.n).join() === expected
        },
        { within: 30_000, what: `the replica to show ${expected}` },
      )
    },
    async judge() {
      const queue = await opened()
      const seen = new Map<number, number>()
      let unordered = 0
      let brokenChains = 0
      try {
        for (const topic of (await queue.topics([`${name}.*`])).keys())
          for (const [partition, range] of (await queue.ranges(topic)).entries()) {
            let at: string | null = null
            const lastOfKey = new Map<number, number>()
            if (range.start < range.end)
              for await (const records of queue.read({ topic, partition }, range))
                for (const record of records) {
                  const event = fromRecord(record)
                  if (event === null || (at !== null && event.position <= at)) continue
                  if (range.start === 0n && event.prev !== at) brokenChains++
                  at = event.position
                  const { n } = JSON.parse(Buffer.from(event.value ?? []).toString()) as { n: number }
                  seen.set(n, (seen.get(n) ?? 0) + 1)
                  if (n < (lastOfKey.get(n % KEYS) ?? 0)) unordered++
                  lastOfKey.set(n % KEYS, n)
                }
          }
      } finally {
        await queue.close()
      }
      let missing = 0
      let phantoms = 0
      for (let n = 1; n <= written; n++)
        if (gone.has(n)) phantoms += seen.has(n) ? 1 : 0
        else if (!seen.has(n)) missing++
      const twice = [...seen.values()].filter((times) => times > 1).length
      return { missing, twice, unordered, brokenChains, phantoms }
    },
    async raiseSession() {
      const queue = await opened()
      const state = latestState(await queue.state.read(statePrefix(name))) as RelayState
      const session = state.session + 1
      await queue.state.write(stateKey(name, session, 'another'), encodeState({ ...state, session }))
      await queue.close()
    },
    query: (text, values) => withClient(sourceUrl, async (client) => (await client.query(text, values)).rows),
    async stop() {
      await Promise.allSettled(running.splice(0).map((one) => one.stop()))
    },
  }
  return stream
}

export const REPLICA = 'create table orders (id text primary key, n int not null, _millrace_position text collate "C")'
