import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import {
  createPipeline,
  defineConfig,
  type MillraceConfig,
  type Pipeline,
  type PipelineOptions,
  type Running,
} from '../../src/index.ts'
import { type Committed, REPLICA_TABLE, SOURCE_TABLE, startWorkload, type Workload } from '../faults/workload.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'

/** A whole pipeline under the writers of the fault matrix, whose replica is to be damaged behind its back. */
export interface VerifyStream {
  readonly source: Database
  readonly replica: Database
  readonly config: MillraceConfig
  readonly pipeline: Pipeline
  /** a folder of its own, that goes with it */
  readonly home: string
  another(different: Partial<MillraceConfig>, options?: PipelineOptions): Pipeline
  run(pipeline?: Pipeline): Promise<Running>
  /** starts writers; ended with the stream */
  write(options?: { readonly rate?: number; readonly writers?: number; readonly seed?: number }): Workload
  /** rows that no writer touches, each by an event of its own */
  place(from: number, to: number, type?: string): Promise<void>
  erase(key: string): Promise<void>
  /** the replica holds just what the writers know, and the rows that were placed */
  shows(committed: Committed | null): Promise<void>
  /** the replica has just these rows of those that were placed */
  has(count: number): Promise<void>
  /** what was published before the time (ms) is no longer in the queue; the embedded one only */
  trim(before: number): void
  drop(): Promise<void>
}

export const TABLES = [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderChanged: 'upsert', OrderErased: 'delete' } }]

export async function verifyStream(
  options: {
    readonly brokers?: readonly string[]
    readonly sink?: Record<string, unknown>
    /** done after the schema is there, and before the slot */
    readonly before?: (source: Database) => Promise<void>
  } = {},
): Promise<VerifyStream> {
  const { brokers } = options
  const home = await mkdtemp(join(tmpdir(), 'millrace-verify-'))
  const [source, replica] = await Promise.all([createDatabase('source'), createDatabase('replica')])
  await source.query(SOURCE_TABLE)
  await replica.query(REPLICA_TABLE)
  const name = source.name.slice(0, 40)
  const topics = {
    name: `${name}.{aggregate_type}`,
    partitions: 3,
    ...(brokers !== undefined && { replication: 1, minInsyncReplicas: 1 }),
  }
  const config = defineConfig({
    name,
    source: { url: source.url, acceptUnlimitedWal: true },
    queue: brokers === undefined ? { kind: 'local', path: join(home, 'queue.db'), topics } : { kind: 'kafka', brokers, topics },
    sinks: { warehouse: { kind: 'postgres', url: replica.url, tables: TABLES, ...options.sink } },
    http: false,
  } as MillraceConfig)
  const running: Running[] = []
  const workloads: Workload[] = []
  const stream: VerifyStream = {
    source,
    replica,
    config,
    pipeline: createPipeline(config, { logLevel: 'silent' }),
    home,
    another: (different, more = {}) => createPipeline({ ...config, ...different }, { logLevel: 'silent', ...more }),
    async run(pipeline = stream.pipeline) {
      const one = await pipeline.run()
      one.done.catch(() => {})
      running.push(one)
      return one
    },
    write({ rate = 100, writers = 4, seed = 7 } = {}) {
      const workload = startWorkload({ url: source.url, seed, rate, writers, largeTransaction: 50 })
      workloads.push(workload)
      return workload
    },
    async place(from, to, type = 'OrderChanged') {
      await source.query(
        `with o as (
           insert into orders select 'k' || lpad(n::text, 7, '0'), n, 'body ' || n, n::numeric / 100 from generate_series($1::int, $2::int) n
           on conflict (id) do update set version = orders.version + 1 returning *
         )
         select count(millrace.emit(aggregate_type => 'order', aggregate_id => o.id, type => $3, payload => to_json(o))) from o`,
        [from, to, type],
      )
    },
    async erase(key) {
      await source.query(
        "with gone as (delete from orders where id = $1) select millrace.tombstone(aggregate_type => 'order', aggregate_id => $1, type => 'OrderErased')",
        [key],
      )
    },
    async shows(committed) {
      const expected = JSON.stringify((await source.query(ROWS)).rows)
      await eventually(async () => JSON.stringify((await replica.query(ROWS)).rows) === expected, {
        within: 30_000,
        what: 'the replica shows what the source has',
      })
      if (committed === null) return
      const { rows } = await replica.query("select id from orders where id like 'w%' order by id")
      const written = [...committed.rows.keys()].sort()
      if (JSON.stringify(rows.map(({ id }) => id).sort()) !== JSON.stringify(written))
        throw new Error('the replica does not show what the writers committed')
    },
    has: (count) =>
      eventually(
        async () => Number((await replica.query("select count(*) from orders where id like 'k%'")).rows[0].count) === count,
        {
          within: 30_000,
          what: `${count} rows in the replica`,
        },
      ).then(() => {}),
    trim(before) {
      const file = new DatabaseSync(join(home, 'queue.db'))
      file
        .prepare(
          'update partition set log_start = coalesce((select max(base + count) from batch where partition = partition.id and timestamp < ?), log_start)',
        )
        .run(before)
      file.prepare('delete from batch where timestamp < ?').run(before)
      file.close()
    },
    async drop() {
      await Promise.allSettled(workloads.splice(0).map((one) => one.abandon()))
      await Promise.allSettled(running.splice(0).map((one) => one.stop()))
      await Promise.all([source.drop(), replica.drop()])
      await rm(home, { recursive: true, force: true })
    },
  }
  if (options.before !== undefined) {
    await source.query(await stream.pipeline.sql('owner'))
    await options.before(source)
  }
  await stream.pipeline.init()
  return stream
}

const ROWS = 'select id, version, body, amount from orders order by id collate "C"'
