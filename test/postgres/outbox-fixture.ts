import pg from 'pg'
import { onTestFinished } from 'vitest'
import type { Change, ChangeBatch } from '../../src/core/change.ts'
import type { Log } from '../../src/core/connector.ts'
import { nextEpoch } from '../../src/core/epoch.ts'
import { type Lsn, parsePosition } from '../../src/core/position.ts'
import type { SourceSession } from '../../src/core/source.ts'
import { readMigrations } from '../../src/postgres/migrate.ts'
import type { PostgresSourceOptions } from '../../src/postgres/options.ts'
import { openPostgresSource, type PostgresSource } from '../../src/postgres/source.ts'

/** what `millrace init` applies */
export const SCHEMA = (await readMigrations()).map(({ sql }) => sql).join('\n')

export const insert = (aggregateId: string, payload = '{}'): string =>
  `insert into millrace.outbox (aggregate_type, aggregate_id, type, payload) values ('order', '${aggregateId}', 'OrderPlaced', '${payload}')`

export const insertMany = (count: number, bytes = 100): string =>
  `insert into millrace.outbox (aggregate_type, aggregate_id, type, payload)
   select 'order', i::text, 'OrderPlaced', json_build_object('i', i, 'pad', repeat('x', ${bytes})) from generate_series(1, ${count}) i`

export interface LoggedLine {
  readonly level: string
  readonly message: string
}

export function collectLog(lines: LoggedLine[] = []): Log {
  const at = (level: string) => (_fields: object, message: string) => void lines.push({ level, message })
  const log: Log = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error'), child: () => log }
  return log
}

/** A source on the database, closed with the test. */
export function sourceOn(url: string, options: Partial<PostgresSourceOptions> = {}, lines: LoggedLine[] = []): PostgresSource {
  const source = openPostgresSource({ name: uniqueName(), url, ...options }, { log: collectLog(lines), now: Date.now })
  onTestFinished(() => source.close().catch(() => {}))
  return source
}

let count = 0
/** slot names are per server, and a run's databases share one */
export const uniqueName = (): string => `t${process.pid}_${++count}_${Math.random().toString(36).slice(2, 8)}`

/** A session, closed with the test. */
export async function session(source: PostgresSource, epoch = 1): Promise<SourceSession> {
  const opened = await source.open({ signal: new AbortController().signal })
  opened.begin([{ ...nextEpoch([], opened.identity), epoch }])
  onTestFinished(() => opened.close().catch(() => {}))
  return opened
}

export const ROOM = { maxChanges: 10_000, maxBytes: 64 << 20 }

export interface Read {
  readonly changes: Change[]
  readonly batches: ChangeBatch[]
}

/**
 * Reads until `count` changes have come and, where wanted, an end behind the last of them. Without the end it takes not one
 * change more: how many of them one batch holds is the moment's.
 */
export async function read(from: SourceSession, count: number, { untilEnd = true, limit = ROOM } = {}): Promise<Read> {
  const changes: Change[] = []
  const batches: ChangeBatch[] = []
  for (;;) {
    const maxChanges = untilEnd ? limit.maxChanges : Math.min(limit.maxChanges, count - changes.length)
    const batch = await within(20_000, from.next({ ...limit, maxChanges }), `${count} changes (${changes.length} came)`)
    if (batch === null) throw new Error('the session was closed')
    batches.push(batch)
    changes.push(...batch.changes)
    if (changes.length >= count && (!untilEnd || isBehind(batch.end, changes.at(-1)))) return { changes, batches }
  }
}

/** The end that comes with a change may be a keepalive's from before it. */
const isBehind = (end: Lsn | null, change: Change | undefined): boolean =>
  end !== null && (change === undefined || end > parsePosition(change.position).commitLsn)

export const lastEnd = ({ batches }: Read): bigint => batches.findLast(({ end }) => end !== null)?.end as bigint

export async function within<T>(ms: number, promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

export async function until(condition: () => Promise<boolean> | boolean, what: string, ms = 15_000): Promise<void> {
  const deadline = performance.now() + ms
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

export const textOf = (bytes: Uint8Array | null): string | null => (bytes === null ? null : Buffer.from(bytes).toString())

/** A connection, closed with the test; a server that goes away under it is no error. */
export async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  onTestFinished(() => client.end().catch(() => {}))
  return client
}

export async function queryOnce(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(text)
  await client.end()
}
