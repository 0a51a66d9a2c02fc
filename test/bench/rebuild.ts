/**
 * `node test/bench/rebuild.ts [rows] [--beside]`: a replica of so many rows (default 1,000,000), each made by an event of its
 * own, is verified, damaged, and rebuilt by the commands as they ship, beside a running pipeline whose writers go on and
 * a reader who counts the rows all the while.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { createPipeline, type MillraceConfig } from '../../src/index.ts'
import { millrace } from '../cli/millrace.ts'
import { REPLICA_TABLE, SOURCE_TABLE, startWorkload } from '../faults/workload.ts'

const rows = Number(process.argv[2] ?? 1_000_000)
const home = await mkdtemp(join(tmpdir(), 'millrace-rebuild-'))
const server = await startPostgresServer({ settings: { max_wal_size: '8GB', shared_buffers: '512MB' } })
const open = async (database: string): Promise<pg.Client> => {
  const client = new pg.Client({ connectionString: server.url(database) })
  await client.connect()
  return client
}
const admin = await open('postgres')
for (const name of ['source', 'replica']) await admin.query(`create database ${name}`)
const source = await open('source')
const replica = await open('replica')
await source.query(SOURCE_TABLE)
await replica.query(REPLICA_TABLE)

const config: MillraceConfig = {
  name: 'shop',
  source: { url: server.url('source'), acceptUnlimitedWal: true },
  queue: { kind: 'local', path: join(home, 'queue.db') },
  sinks: {
    warehouse: {
      kind: 'postgres',
      url: server.url('replica'),
      tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderChanged: 'upsert', OrderErased: 'delete' } }],
    },
  },
  http: false,
}
await writeFile(join(home, 'millrace.yaml'), JSON.stringify(config))
const pipeline = createPipeline(config, { logLevel: 'warn' })
await pipeline.init()
const running = await pipeline.run()

const say = (what: string): void => void process.stdout.write(`${what}\n`)
const timed = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
  const begun = performance.now()
  const result = await work()
  const took = (performance.now() - begun) / 1_000
  say(`${what}: ${took.toFixed(1)} s, ${Math.round(rows / took).toLocaleString('en-US')} rows a second`)
  return result
}
const countOf = async (client: pg.Client): Promise<number> =>
  (await client.query("select count(*)::int as count from orders where id like 'k%'")).rows[0].count

await timed('written, relayed and applied', async () => {
  for (let from = 1; from <= rows; from += 50_000)
    await source.query(
      `with o as (
         insert into orders select 'k' || lpad(n::text, 9, '0'), n, 'the body of the order ' || n, n::numeric / 100
         from generate_series($1::int, $2::int) n returning *
       )
       select count(millrace.emit(aggregate_type => 'order', aggregate_id => o.id, type => 'OrderChanged', payload => to_json(o))) from o`,
      [from, Math.min(from + 49_999, rows)],
    )
  while ((await countOf(replica)) < rows) await new Promise((resolve) => setTimeout(resolve, 500))
})

const workload = startWorkload({ url: server.url('source'), seed: 1, rate: 100, writers: 4 })
const reader = await open('replica')
let reading = true
let fewest = Number.POSITIVE_INFINITY
let longest = 0
const watched = (async () => {
  while (reading) {
    const begun = performance.now()
    fewest = Math.min(fewest, await countOf(reader))
    longest = Math.max(longest, performance.now() - begun)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
})()

async function command(what: string, ...args: readonly string[]): Promise<void> {
  await timed(what, async () => {
    const program = millrace(['-c', join(home, 'millrace.yaml'), ...args], { cwd: home })
    let peak = 0
    const look = setInterval(async () => {
      const status = await readFile(`/proc/${program.pid}/status`, 'utf8').catch(() => '')
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0))
    }, 100)
    const { code, stdout, stderr } = await program.finished
    clearInterval(look)
    say(`${stdout.split('\n').slice(0, 3).join('\n').trim()}${stderr === '' ? '' : `\n${stderr}`}`)
    say(
      `exit code ${code}, peak ${Math.round(peak / 1_024)} MB, fewest rows seen ${fewest.toLocaleString('en-US')}, slowest look ${Math.round(longest)} ms`,
    )
    longest = 0
  })
}
const damage = (): Promise<unknown> => replica.query("update orders set body = 'changed' where id like 'k%77'")

await command('verify', 'verify', 'warehouse')
await damage()
await command('rebuild in place, 1 % damaged', 'rebuild', 'warehouse', '--yes')
await damage()
await command('rebuild beside, 1 % damaged', 'rebuild', 'warehouse', '--beside', '--yes')
const committed = await workload.stop()
await command('verify', 'verify', 'warehouse')
reading = false
await watched
const { rows: wrong } = await replica.query("select count(*)::int as count from orders where body = 'changed'")
say(
  `damaged rows left: ${wrong[0].count}; rows of the writers: ${committed.rows.size}, in the replica: ${(await replica.query("select count(*)::int as count from orders where id like 'w%'")).rows[0].count}`,
)

await running.stop()
for (const client of [admin, source, replica, reader]) await client.end()
await server.remove()
await rm(home, { recursive: true, force: true })
