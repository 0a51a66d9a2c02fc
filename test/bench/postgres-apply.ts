import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import pg from 'pg'
import postgresSink from '../../connectors/sinks/postgres.ts'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import type { Log } from '../../src/core/connector.ts'
import type { Lane } from '../../src/core/sink.ts'
import { batchOf, type EventSpec, type EventStream, eventStream } from '../../src/testing/events.ts'
import { processUsage } from './process-usage.ts'

/**
 * What `lane.apply` takes: rows a second of upserts of about 300 bytes into an indexed table, by lanes in parallel; and how
 * long a batch of one event takes. `node test/bench/postgres-apply.ts [--rows N] [--batch N] [--lanes N] [--guard table]`
 */
const { values: args } = parseArgs({
  options: {
    rows: { type: 'string', default: '200000' },
    batch: { type: 'string', default: '1000' },
    lanes: { type: 'string', default: '1' },
    guard: { type: 'string', default: 'column' },
    /** upsert, merge, or churn: one delete in ten */
    operation: { type: 'string', default: 'upsert' },
    keys: { type: 'string', default: '20000' },
  },
})
const [rows, batch, lanes] = [Number(args.rows), Number(args.batch), Number(args.lanes)]

const TABLE = `create table orders (id bigint primary key, customer text not null, total numeric not null, note text not null,
  tags text[] not null, meta jsonb not null, placed_at timestamptz not null, _millrace_position text collate "C")`

const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent }

function order(id: number, of: number): string {
  const note = 'n'.repeat(60)
  return `{"id":${id},"customer":"customer ${id}","total":${id % 1000}.50,"note":"${note}","tags":["a","b"],"meta":{"of":${of},"source":"${'m'.repeat(60)}"},"placedAt":"2026-11-21T10:00:00.123456Z"}`
}

/** Each lane owns its keys; the first time round they are inserted, from then on updated. Made before the clock starts. */
const KEYS = Number(args.keys)

function ownEvents(lane: number): readonly EventSpec[] {
  return Array.from({ length: KEYS }, (_, index) => {
    const id = ((index * 7_919) % KEYS) * lanes + lane
    const type = args.operation === 'merge' ? 'Merged' : args.operation === 'churn' && index % 10 === 0 ? 'Erased' : 'Placed'
    return { type, key: String(id), payload: Buffer.from(order(id, lane)), id: randomUUID() }
  })
}

async function applyAll(lane: Lane, stream: EventStream, specs: readonly EventSpec[]): Promise<void> {
  const own = Math.floor(rows / lanes)
  for (let made = 0; made < own; made += batch) {
    const size = Math.min(batch, own - made)
    const events = Array.from({ length: size }, (_, index) => stream.next(specs[(made + index) % KEYS] as EventSpec))
    await lane.apply(batchOf(events, BigInt(made + size)))
  }
}

const server = await startPostgresServer()
try {
  const client = new pg.Client({ connectionString: server.url() })
  await client.connect()
  await client.query(TABLE)
  const options = {
    url: server.url(),
    tables: [
      {
        from: 'order',
        into: 'orders',
        key: 'id',
        naming: 'snake_case',
        guard: args.guard,
        on: { Placed: 'upsert', Merged: 'merge', Erased: 'delete' },
      },
    ],
  }
  const parsed = await postgresSink.options['~standard'].validate(options)
  if (parsed.issues) throw new Error(JSON.stringify(parsed.issues))
  const sink = await postgresSink.open(parsed.value, { log: silent, pipeline: 'bench', sink: 'replica', now: Date.now })
  await sink.init()

  const work = await Promise.all(
    Array.from({ length: lanes }, async (_, partition) => {
      const stream = eventStream({ source: 'bench' })
      return { lane: await sink.claim({ topic: 'outbox.event.order', partition }), stream, specs: ownEvents(partition) }
    }),
  )
  const bytes = order(1, 1).length
  const cpu = processUsage(process.pid).cpuSeconds
  const backendCpu = async (): Promise<number> => {
    const { rows: backends } = await client.query("select pid from pg_stat_activity where application_name like 'millrace %'")
    return backends.reduce((sum: number, { pid }: { pid: number }) => sum + processUsage(pid).cpuSeconds, 0)
  }
  const serverCpu = await backendCpu()
  const began = performance.now()
  await Promise.all(work.map(({ lane, stream, specs }) => applyAll(lane, stream, specs)))
  const seconds = (performance.now() - began) / 1_000
  const used = processUsage(process.pid)
  const serverUsed = (await backendCpu()) - serverCpu
  const perMillion = (spent: number): string => ((spent / rows) * 1e6).toFixed(1)
  console.log(
    `${args.operation}, guard ${args.guard}, ${lanes} lanes, batches of ${batch}, ${bytes} B: ${Math.round(rows / seconds)} rows/s, ` +
      `CPU-s per million: ${perMillion(used.cpuSeconds - cpu)} here, ${perMillion(serverUsed)} in Postgres; peak RSS ${Math.round(used.peakRssBytes / 1_048_576)} MB`,
  )

  const { lane, stream } = work[0] as (typeof work)[number]
  const times: number[] = []
  for (let n = 0; n < 1_000; n++) {
    const event = stream.next({ type: 'Placed', key: String(n), payload: order(n, n) })
    const start = performance.now()
    await lane.apply(batchOf([event], BigInt(rows + n)))
    times.push(performance.now() - start)
  }
  times.sort((a, b) => a - b)
  console.log(`one event a batch: p50 ${times[500]?.toFixed(2)} ms, p99 ${times[990]?.toFixed(2)} ms`)
  await sink.close()
  await client.end()
} finally {
  await server.remove()
}
