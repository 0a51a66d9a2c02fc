import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import pg from 'pg'
import { MillraceError } from '../../core/errors.ts'
import { defineConfig, type MillraceConfig } from '../../runtime/config.ts'
import type { LogLevel } from '../../runtime/log.ts'
import { createPipeline } from '../../runtime/pipeline.ts'
import type { Running } from '../../runtime/run.ts'
import type { Terminal } from '../terminal.ts'
import { type LiveLine, liveLine, type Progress } from './live-line.ts'
import { type PostgresServer, startPostgresServer } from './postgres-server.ts'
import { ORDER_COLUMNS, openShop, type Shop } from './shop.ts'
import { compareTables, type Verdict } from './verdict.ts'

export interface DemoOptions {
  /** events to write */
  readonly events: number
  /** the shop closes after this long, ms */
  readonly duration: number | null
  /** null: the embedded queue */
  readonly kafka: readonly string[] | null
  readonly out: Terminal
  /** of what the pipeline says on standard error meanwhile */
  readonly logLevel: LogLevel
  /** asks to end early and to clean up */
  readonly signal: AbortSignal
}

const CLERKS = 8
/** how often the line is drawn and progress is looked at (ms) */
const FRAME = 100
/** the replica is given up when nothing moved for this long (ms) */
const PATIENCE = 60_000

/**
 * The main job on real input: a shop's database, its outbox, the relay, a queue and a replica, and at the end every row
 * compared. Whatever it started and made is gone when it returns.
 * @returns whether the replica is equal; null: it was interrupted
 */
export async function runDemo(options: DemoOptions): Promise<boolean | null> {
  const { out, signal } = options
  const cleanup: (() => Promise<unknown>)[] = []
  try {
    out.print()
    out.print(`  ${out.style('bold', 'Millrace')}: from a Postgres transaction to a replica`)
    out.print()
    const scene = await setScene(options, cleanup)
    if (signal.aborted) return null
    const pipeline = createPipeline(scene.config, { logLevel: options.logLevel })
    const made = await pipeline.init()
    step(out, 'millrace init')
    for (const what of made) out.print(out.style('dim', `      ${what}`))
    if (signal.aborted) return null
    const running = await pipeline.run()
    cleanup.push(() => running.stop())
    return await play(options, scene, running, cleanup)
  } catch (error) {
    if (signal.aborted) return null
    throw error
  } finally {
    if (signal.aborted) out.print('  Interrupted; cleaning up.')
    for (const undo of cleanup.reverse()) await undo().catch((error: unknown) => out.print(`  cleaning up: ${String(error)}`))
  }
}

interface Scene {
  readonly source: string
  readonly replica: string
  readonly config: MillraceConfig
}

async function setScene({ out, kafka }: DemoOptions, cleanup: (() => Promise<unknown>)[]): Promise<Scene> {
  const home = await mkdtemp(join(tmpdir(), 'millrace-demo-'))
  cleanup.push(() => rm(home, { recursive: true, force: true }))
  const begun = performance.now()
  const server = await startPostgresServer({ parent: tmpdir() })
  cleanup.push(() => server.remove())
  step(out, `${await versionOf(server)} on 127.0.0.1:${server.port}`, `${((performance.now() - begun) / 1_000).toFixed(1)} s`)

  await run(server.url(), 'create database shop', 'create database replica')
  const columns = Object.entries(ORDER_COLUMNS).map(([name, type]) => `${name} ${type}`)
  await run(server.url('shop'), `create table orders (${columns.join(', ')})`)
  await run(server.url('replica'), `create table orders (${columns.join(', ')}, _millrace_position text collate "C")`)
  step(out, 'database shop with its orders, and database replica with none')

  const name = `demo_${randomBytes(4).toString('hex')}`
  if (kafka !== null) {
    const { removeFromKafka } = await import('./kafka-topics.ts')
    cleanup.push(() => removeFromKafka(kafka, [`${name}.`, `millrace.${name}.`]))
  }
  step(out, kafka === null ? 'queue: the embedded log, fsynced' : `queue: Kafka at ${kafka.join(', ')}`)

  const topics = { name: `${name}.{aggregate_type}`, partitions: 4 }
  const config = defineConfig({
    name,
    source: { url: server.url('shop') },
    queue: kafka === null ? { kind: 'local', path: join(home, 'queue'), topics } : { kind: 'kafka', brokers: kafka, topics },
    sinks: {
      replica: {
        kind: 'postgres',
        url: server.url('replica'),
        tables: [
          {
            from: 'order',
            into: 'public.orders',
            key: 'id',
            naming: 'snake_case',
            on: { OrderPlaced: 'upsert', OrderPaid: 'merge', OrderCancelled: 'merge', OrderErased: 'delete' },
          },
        ],
      },
    },
    http: false,
  })
  return { source: server.url('shop'), replica: server.url('replica'), config }
}

async function play(
  options: DemoOptions,
  scene: Scene,
  running: Running,
  cleanup: (() => Promise<unknown>)[],
): Promise<boolean | null> {
  const { out, signal } = options
  out.print()
  out.print(`  ${CLERKS} clerks place, pay, cancel and erase orders in transactions; one in twelve is rolled back.`)
  out.print()
  const closing = options.duration === null ? signal : AbortSignal.any([signal, AbortSignal.timeout(options.duration)])
  const shop = openShop({
    url: scene.source,
    clerks: CLERKS,
    events: options.events,
    signal: closing,
    random: Math.random,
    now: Date.now,
  })
  cleanup.push(() => shop.closed.catch(() => {}))
  const begun = performance.now()
  const line = liveLine(out, options.events, Date.now)
  await follow(line, shop, running, signal)
  if (signal.aborted) return null

  const seconds = (performance.now() - begun) / 1_000
  const tally = shop.tally()
  line.end()
  out.print()
  const verdict = await compareTables({ ...scene, table: 'orders', key: 'id', columns: Object.keys(ORDER_COLUMNS) })
  return judge(out, verdict, tally, (await progressOf(shop, running)).applied, seconds)
}

/** Draws until the shop has closed and everything has been applied; a halt ends it, and so does silence. */
async function follow(line: LiveLine, shop: Shop, running: Running, signal: AbortSignal): Promise<void> {
  let closed = false
  const failed = Promise.race([
    shop.closed.then(() => {
      closed = true
      return new Promise<never>(() => {})
    }),
    running.done.then(() => {
      throw new MillraceError('MILLRACE_INTERNAL', 'the pipeline stopped by itself')
    }),
  ])
  // it may come when nobody looks any more
  failed.catch(() => {})
  let moved = Date.now()
  let before = -1
  while (!signal.aborted) {
    const progress = await progressOf(shop, running)
    line.show(progress)
    if (closed && progress.applied >= progress.written) return
    if (progress.applied !== before) [before, moved] = [progress.applied, Date.now()]
    if (closed && Date.now() - moved > PATIENCE)
      throw new MillraceError(
        'MILLRACE_INTERNAL',
        `nothing was applied for ${PATIENCE / 1_000} s, with ${progress.written - progress.applied} events to go`,
      )
    await Promise.race([wait(FRAME, undefined, { signal }).catch(() => {}), failed])
  }
}

async function progressOf(shop: Shop, running: Running): Promise<Progress> {
  const { relay, sinks } = await running.status()
  const partitions = sinks.flatMap((sink) => sink.partitions)
  const halted = partitions.find((partition) => partition.error !== null && partition.phase === 'halted')
  if (halted?.error)
    throw new MillraceError(
      'MILLRACE_INTERNAL',
      `partition ${halted.partition} of ${halted.topic} is halted: ${halted.error.message}`,
    )
  const applied = sum(partitions.map((partition) => partition.applied))
  return {
    written: shop.tally().events,
    relayed: sum(Object.values(relay?.published ?? {})),
    applied,
    lag: shop.waiting(applied),
  }
}

function judge(out: Terminal, verdict: Verdict, tally: ReturnType<Shop['tally']>, applied: number, seconds: number): boolean {
  const n = (value: number): string => new Intl.NumberFormat('en-US').format(value)
  const fault = (value: number, word: string): string => out.style(value === 0 ? 'dim' : 'red', `${n(value)} ${word}`)
  out.print(
    `  The shop has closed: ${n(tally.events)} events in ${n(tally.transactions)} transactions, ${n(tally.rolledBack)} rolled back.`,
  )
  out.print(`  Every row compared, by the exact text of every column:`)
  out.print()
  const { equal, different, missing, extra } = verdict
  out.print(
    `      ${n(verdict.rows)} orders   ${out.style('green', `${n(equal)} equal`)}   ${fault(different, 'different')}   ${fault(missing, 'missing')}   ${fault(extra, 'extra')}`,
  )
  for (const example of verdict.examples) out.print(`      ${out.style('red', example)}`)
  out.print()
  const same = verdict.equal === verdict.rows && applied === tally.events
  if (same)
    out.print(
      `  ${out.style('green', '✓')} ${out.style('bold', 'The replica is equal to what the shop committed.')} ${n(tally.events)} events in ${seconds.toFixed(1)} s.`,
    )
  else
    out.print(
      `  ${out.style('red', '✗')} ${out.style('bold', 'The replica is NOT equal to what the shop committed.')} ${n(applied)} of ${n(tally.events)} events applied.`,
    )
  out.print()
  return same
}

function step(out: Terminal, what: string, aside = ''): void {
  out.print(`  ${out.style('green', '✓')} ${what}${aside === '' ? '' : `  ${out.style('dim', aside)}`}`)
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

async function versionOf(server: PostgresServer): Promise<string> {
  const client = new pg.Client({ connectionString: server.url() })
  await client.connect()
  const { rows } = await client.query<{ server_version: string }>('show server_version')
  await client.end()
  return `Postgres ${rows[0]?.server_version.split(' ')[0]}`
}

async function run(url: string, ...statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}
