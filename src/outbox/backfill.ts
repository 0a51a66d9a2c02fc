import { MillraceError } from '../core/errors.ts'
import { type BackfillDatabase, type ChunkTransaction, transactions } from './backfill-database.ts'
import { type BackfillSelect, type BackfillTable, backfillTable, KEY } from './backfill-table.ts'
import type { OutboxTransaction } from './transaction.ts'

/**
 * Rows that are older than the outbox become events (PROTOCOL 2.5): read in the order of their key, in chunks. Each chunk
 * is one transaction that locks its rows `for share`, writes their events and moves the backfill on. So an event shows its row
 * as it is when the event commits, whoever changes the row waits until then and emits a later one, and a backfill that was
 * killed goes on where it stood.
 *
 * It is to begin when every writer of the table emits.
 */
export interface BackfillDefinition<Row, Event> {
  /** its progress is kept under it: 1 to 200 characters */
  readonly name: string
  readonly select: BackfillSelect
  /** the event that shows the row as it is; several; or null: none */
  readonly toEvent: (row: Row) => Event | readonly Event[] | null | undefined
  /** the most rows of one transaction. Default: 1,000 */
  readonly chunk?: number
  /** rows a second. Default: as fast as it goes */
  readonly rate?: number
}

export interface BackfillControl {
  /** stops after the chunk that is under way; calling again goes on */
  readonly signal?: AbortSignal
  /** begins anew, from the first row */
  readonly restart?: boolean
  /** after each chunk */
  readonly onProgress?: (progress: BackfillProgress) => void
}

export interface BackfillProgress {
  readonly name: string
  /** rows that were read, and events that they became, by all runs */
  readonly rows: number
  readonly events: number
  /** rows of the table, as the server guesses; null: it does not know */
  readonly estimate: number | null
  readonly done: boolean
  /** chunks of this run that were tried again: rows that others had locked, a connection that broke */
  readonly retries: number
}

export interface BackfillOptions<Row, Event> extends BackfillDefinition<Row, Event>, BackfillControl {}

/** What `millrace backfill` takes: the default export of a module. */
export interface BackfillModule<Row, Event> extends BackfillDefinition<Row, Event> {
  /** whose registry the events belong to; default: one without a registry */
  readonly outbox?: Backfiller<Event>
  /** the database as a role that may read and lock the rows and write events; default: `source.url` of the config */
  readonly url?: string
}

export interface Backfiller<Event> {
  backfill<Row>(db: BackfillDatabase, options: BackfillOptions<Row, Event>): Promise<BackfillProgress>
}

/** Gives a backfill its types; returns what it was given. */
export function defineBackfill<Row, Event>(definition: BackfillModule<Row, Event>): BackfillModule<Row, Event> {
  return definition
}

const CHUNK = 1_000
/** what the first chunk has; those that are done soon are followed by twice as many rows */
const FIRST_CHUNK = 64
const SOON = 500
/** of the events of one chunk, before the next one is made smaller */
const CHUNK_BYTES = 4 << 20
/**
 * How long a chunk waits for rows that others have locked (ms): well below `deadlock_timeout`, so that of two who wait for
 * each other the backfill gives way, and not the service.
 */
const ROW_PATIENCE = 250
/** … and with one row, which it waits for without holding another */
const LAST_PATIENCE = 10_000
/** failures of one chunk in a row, and how long to wait after them (ms) */
const ATTEMPTS = 12
const PAUSE = { first: 50, most: 5_000 }

/** @throws MILLRACE_USAGE, MILLRACE_SCHEMA_OUTDATED, MILLRACE_EVENT_INVALID, MILLRACE_EVENT_UNKNOWN; and what the database refuses again and again */
export async function runBackfill<Row, Event>(
  db: BackfillDatabase,
  options: BackfillOptions<Row, Event>,
  emitAll: EmitAll<Event>,
): Promise<BackfillProgress> {
  const {
    name,
    select,
    toEvent,
    signal,
    onProgress,
    restart = false,
    chunk: most = CHUNK,
    rate = Number.POSITIVE_INFINITY,
  } = options
  requireOptions(options)
  const transact = transactions(db)
  const table = await transact((chunk) => backfillTable(chunk, select))
  await transact((chunk) => beginBackfill(chunk, { name, definition: table.definition, restart }))

  let size = Math.min(FIRST_CHUNK, most, Math.ceil(rate))
  let progress: BackfillProgress = { name, rows: 0, events: 0, estimate: table.estimate, done: false, retries: 0 }
  let failures = 0
  while (!progress.done && signal?.aborted !== true) {
    const begun = performance.now()
    let done: Chunk
    try {
      done = await transact((chunk) => fillChunk(chunk, { name, table, size, toEvent, emitAll }))
    } catch (error) {
      // one of its events is refused: alone, it can be named
      if (isRefusal(error) && size > 1) {
        size = 1
        continue
      }
      if (!isPassing(error) || ++failures >= ATTEMPTS) throw explained(error, name)
      size = Math.max(1, size >> 1)
      progress = { ...progress, retries: progress.retries + 1 }
      await pause(Math.min(PAUSE.first * 2 ** (failures - 1), PAUSE.most), signal)
      continue
    }
    failures = 0
    progress = { ...progress, ...done.total, done: done.done }
    onProgress?.(progress)
    const took = performance.now() - begun
    if (done.bytes > CHUNK_BYTES) size = Math.max(1, size >> 1)
    else if (took < SOON) size = Math.min(size * 2, most, Math.ceil(rate))
    if (!progress.done) await pause((done.rows / rate) * 1_000 - took, signal)
  }
  return progress
}

function requireOptions<Row, Event>({ name, toEvent, chunk = 1, rate = 1 }: BackfillOptions<Row, Event>): void {
  const refuse = (what: string): never => {
    throw new MillraceError('MILLRACE_USAGE', `backfill: ${what}`)
  }
  if (typeof name !== 'string' || name.length < 1 || name.length > 200 || name.includes('\0'))
    refuse('name: expected 1 to 200 characters')
  if (typeof toEvent !== 'function') refuse('toEvent: expected a function')
  if (!Number.isSafeInteger(chunk) || chunk < 1 || chunk > 10_000) refuse('chunk: expected 1 to 10000 rows')
  if (typeof rate !== 'number' || !(rate > 0)) refuse('rate: expected rows a second, more than 0')
}

async function beginBackfill(
  chunk: ChunkTransaction,
  { name, definition, restart }: { readonly name: string; readonly definition: string; readonly restart: boolean },
): Promise<void> {
  const [known] = await chunk.rows({ text: "select to_regclass('millrace.backfill') is not null as known", values: [] })
  if (known?.['known'] !== true)
    throw new MillraceError(
      'MILLRACE_SCHEMA_OUTDATED',
      'the database has no table millrace.backfill, in which backfills keep their progress',
      {
        remedy: 'run: millrace init',
      },
    )
  if (restart) await chunk.rows({ text: 'delete from millrace.backfill where name = $1::text', values: [name] })
  await chunk.rows({
    text: 'insert into millrace.backfill (name, definition) values ($1::text, $2::text) on conflict (name) do nothing',
    values: [name, definition],
  })
  const [row] = await chunk.rows({ text: 'select definition from millrace.backfill where name = $1::text', values: [name] })
  if (row !== undefined && row['definition'] !== definition)
    throw new MillraceError(
      'MILLRACE_USAGE',
      `the backfill ${name} was begun with other rows: ${String(row['definition'])}; now it is ${definition}`,
      { remedy: 'give it a name of its own, or begin anew with restart' },
    )
}

interface Chunk {
  readonly rows: number
  readonly bytes: number
  readonly done: boolean
  readonly total: { readonly rows: number; readonly events: number }
}

/** @returns how large they are, in characters */
export type EmitAll<Event> = (tx: OutboxTransaction, events: readonly Event[]) => Promise<number>

interface ChunkOptions<Row, Event> {
  readonly name: string
  readonly table: BackfillTable
  readonly size: number
  readonly toEvent: BackfillDefinition<Row, Event>['toEvent']
  readonly emitAll: EmitAll<Event>
}

/** One chunk, in the transaction that it is given. Two that run the same backfill take its chunks in turn. */
async function fillChunk<Row, Event>(
  { tx, rows }: ChunkTransaction,
  { name, table, size, toEvent, emitAll }: ChunkOptions<Row, Event>,
): Promise<Chunk> {
  // what is locked is read as it is then, and never as of an earlier snapshot
  await rows({ text: 'set transaction isolation level read committed', values: [] })
  await rows(settings(LAST_PATIENCE))
  const [stand] = await rows({ text: STAND, values: [name] })
  if (stand === undefined) throw new MillraceError('MILLRACE_USAGE', `the backfill ${name} was removed while it ran`)
  const total = { rows: Number(stand['read']), events: Number(stand['events']) }
  if (stand['finished'] === true) return { rows: 0, bytes: 0, done: true, total }
  const after = stand['after'] === null ? null : (JSON.parse(String(stand['after'])) as readonly string[])

  // first where the chunk ends, then its rows: what waits for a lock may come back with another key
  const [end] = await rows(table.upTo(after, size))
  if (end === undefined) {
    await rows({ text: FINISH, values: [name] })
    return { rows: 0, bytes: 0, done: true, total }
  }
  if (size > 1) await rows(settings(ROW_PATIENCE))
  const last = String(end['last'])
  const read = await rows(table.locked(after, JSON.parse(last) as readonly string[]))
  const events: Event[] = []
  for (const { [KEY]: key, ...row } of read) events.push(...eventsOf(row as Row, String(key), name, toEvent))
  const bytes = events.length === 0 ? 0 : await emitted(emitAll(tx, events), { name, last, size })
  await rows({ text: MOVE, values: [name, last, read.length, events.length] })
  return {
    rows: read.length,
    bytes,
    done: false,
    total: { rows: total.rows + read.length, events: total.events + events.length },
  }
}

/** What the outbox refuses is told with its row, as soon as it is alone. */
async function emitted(
  emitting: Promise<number>,
  { name, last, size }: { readonly name: string; readonly last: string; readonly size: number },
): Promise<number> {
  try {
    return await emitting
  } catch (cause) {
    if (size > 1 || !isRefusal(cause)) throw cause
    throw new MillraceError(
      'MILLRACE_EVENT_INVALID',
      `backfill ${name}: the event of the row ${last} is refused: ${(cause as Error).message}`,
      {
        cause,
        remedy: 'mend the row or toEvent and run it again: it goes on with this row',
        fields: { backfill: name, key: last },
      },
    )
  }
}

const STAND = `select after, rows_read::text as read, events::text as events, finished_at is not null as finished
  from millrace.backfill where name = $1::text for update`
const MOVE = `update millrace.backfill set after = $2::text, rows_read = rows_read + $3::int, events = events + $4::int, updated_at = now()
  where name = $1::text`
const FINISH = 'update millrace.backfill set finished_at = now(), updated_at = now() where name = $1::text'

/** Of this transaction. The key's text must mean the same in the next run; a process that was stopped must let go of its rows. */
const settings = (lockTimeout: number) => ({
  text: `select set_config('lock_timeout', $1::text, true), set_config('statement_timeout', '60s', true),
    set_config('idle_in_transaction_session_timeout', '60s', true), set_config('datestyle', 'ISO, YMD', true),
    set_config('intervalstyle', 'postgres', true), set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true)`,
  values: [`${lockTimeout}ms`],
})

function eventsOf<Row, Event>(
  row: Row,
  key: string,
  name: string,
  toEvent: BackfillDefinition<Row, Event>['toEvent'],
): readonly Event[] {
  try {
    const made = toEvent(row)
    if (made === null || made === undefined) return []
    return Array.isArray(made) ? (made as readonly Event[]) : [made as Event]
  } catch (cause) {
    throw new MillraceError('MILLRACE_EVENT_INVALID', `backfill ${name}: toEvent failed at the row ${key}`, {
      cause,
      remedy: 'mend toEvent and run it again: it goes on with this chunk',
      fields: { backfill: name, key },
    })
  }
}

/** a value that a column or a check does not take, or an event that its definition does not */
const isRefusal = (error: unknown): boolean =>
  error instanceof MillraceError
    ? (error.code === 'MILLRACE_EVENT_INVALID' || error.code === 'MILLRACE_EVENT_UNKNOWN') &&
      error.fields['backfill'] === undefined
    : /^2[23]/.test(String((error as { readonly code?: unknown }).code))

const PASSING = /^(08...|40001|40P01|55P03|57014|57P0[1-5]|25P0[34]|53...)$/
const BROKEN = new Set(['ECONNRESET', 'ECONNREFUSED', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN'])

/** What may be otherwise the next time. Where the outcome of a commit is unknown, the progress that stands tells it. */
function isPassing(error: unknown): boolean {
  if (error instanceof MillraceError) return false
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown }
  if (typeof code === 'string') return PASSING.test(code) || BROKEN.has(code)
  return (
    typeof message === 'string' &&
    /^(Connection terminated|Client has encountered a connection error|Query read timeout|timeout exceeded)/.test(message)
  )
}

function explained(error: unknown, name: string): unknown {
  if (!isPassing(error)) return error
  return new MillraceError(
    'MILLRACE_SOURCE_UNREACHABLE',
    `the backfill ${name} failed ${ATTEMPTS} times at one chunk: ${(error as Error).message}`,
    {
      cause: error,
      remedy: 'nothing is lost: run it again, and it goes on where it stands',
      fields: { backfill: name },
    },
  )
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  if (!(ms > 0) || signal?.aborted === true) return
  await new Promise<void>((resolve) => {
    const end = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal?.addEventListener('abort', end, { once: true })
  })
}
