import { setTimeout as wait } from 'node:timers/promises'
import pg from 'pg'
import type { Event } from '../../../src/core/event.ts'
import { formatLsn, type Lsn, type Position, parseLsn } from '../../../src/core/position.ts'
import { latestState, statePrefix } from '../../../src/core/relay-state.ts'
import { ANSWER_WITHIN, openQueue, type Pipeline, quietLog, topicOfOrders } from '../parts.ts'

/**
 * Looks at the pipeline from outside while it is under faults. What it saw is judged at the end, when the topic tells
 * what each checkpoint had to come with:
 * - I1: what Postgres was told is never above what the queue's state says;
 * - I5: no checkpoint goes back;
 * - I6: at every moment the rows are those of the checkpoint, whatever has just crashed.
 */
export interface Watch {
  /** ends it; the violations of I1 and I5 */
  stop(): Promise<readonly string[]>
  /** the violations of I6, once every first occurrence is known */
  judgeRows(events: ReadonlyMap<number, readonly FirstEvent[]>): readonly string[]
  readonly looks: { readonly confirmed: number; readonly rows: number }
}

/** What is needed of an event to say what the replica shows after it. */
export interface FirstEvent {
  readonly position: Position
  readonly key: string
  /** null: deleted */
  readonly version: string | null
}

interface Look {
  /** by partition */
  readonly checkpoints: ReadonlyMap<number, Position>
  readonly rows: ReadonlyMap<string, { readonly version: string; readonly position: string | null }>
}

const ROWS_EVERY = 150
const CONFIRMED_EVERY = 700
const text = new TextDecoder()

export function firstEvent(event: Event): FirstEvent {
  const version = event.value === null ? null : (/"version":(\d+)/.exec(text.decode(event.value))?.[1] ?? null)
  return { position: event.position, key: text.decode(event.key), version }
}

export function startWatch(pipeline: Pipeline): Watch {
  const ending = new AbortController()
  const looks: Look[] = []
  const violations: string[] = []
  let confirmedLooks = 0

  const every = async (ms: number, look: () => Promise<void>): Promise<void> => {
    while (!ending.signal.aborted) {
      // what cannot be reached now is looked at later: much is broken on purpose
      await look().catch(() => {})
      await wait(ms, undefined, { signal: ending.signal }).catch(() => {})
    }
  }
  const rows = connection(pipeline.replicaUrl)
  const slot = connection(pipeline.sourceUrl)
  const queue = openQueue(pipeline, quietLog, ANSWER_WITHIN)

  const watching = [
    every(ROWS_EVERY, async () => {
      const look = await lookAtRows(rows, pipeline)
      const last = looks.at(-1)
      for (const [partition, position] of last?.checkpoints ?? [])
        if ((look.checkpoints.get(partition) ?? '') < position)
          violations.push(
            `I5: the checkpoint of partition ${partition} went from ${position} to ${look.checkpoints.get(partition)}`,
          )
      looks.push(look)
    }),
    every(CONFIRMED_EVERY, async () => {
      const confirmed = await confirmedOf(slot, pipeline)
      const state = latestState(await (await queue).state.read(statePrefix(pipeline.name)))
      if (confirmed === null || state === null) return
      confirmedLooks++
      if (confirmed > state.intent)
        violations.push(`I1: Postgres was told ${formatLsn(confirmed)}, and the state says ${formatLsn(state.intent)}`)
    }),
  ]

  return {
    async stop() {
      ending.abort()
      await Promise.all(watching)
      await Promise.allSettled([rows.end(), slot.end(), queue.then((opened) => opened.close())])
      return violations
    },
    judgeRows: (events) => judgeRows(looks, events),
    get looks() {
      return { confirmed: confirmedLooks, rows: looks.length }
    },
  }
}

function judgeRows(looks: readonly Look[], events: ReadonlyMap<number, readonly FirstEvent[]>): readonly string[] {
  const violations: string[] = []
  const expected = new Map<string, FirstEvent>()
  const next = new Map<number, number>()
  for (const [number, { checkpoints, rows }] of looks.entries()) {
    for (const [partition, checkpoint] of checkpoints) {
      const own = events.get(partition) ?? []
      let i = next.get(partition) ?? 0
      for (; i < own.length && (own[i] as FirstEvent).position <= checkpoint; i++) {
        const event = own[i] as FirstEvent
        if (event.version === null) expected.delete(event.key)
        else expected.set(event.key, event)
      }
      next.set(partition, i)
    }
    for (const [key, { version, position }] of expected) {
      const row = rows.get(key)
      if (row?.version !== version || row.position !== position)
        violations.push(
          `I6: in look ${number} ${key} shows ${row?.version} of ${row?.position}; its checkpoint stands after ${version} of ${position}`,
        )
    }
    for (const key of rows.keys())
      if (!expected.has(key)) violations.push(`I6: in look ${number} ${key} is there; at its checkpoint it was not`)
    if (violations.length > 20) break
  }
  return violations
}

async function lookAtRows(connection: Connection, pipeline: Pipeline): Promise<Look> {
  const client = await connection.get()
  await client.query('begin transaction isolation level repeatable read, read only')
  const checkpoints = await client.query(
    'select partition, position from millrace.checkpoint where topic = $1 and source = $2 and position is not null',
    [topicOfOrders(pipeline), pipeline.name],
  )
  const { rows } = await client.query('select id, version::text, _millrace_position as position from orders')
  await client.query('commit')
  return {
    checkpoints: new Map(checkpoints.rows.map(({ partition, position }) => [partition, position])),
    rows: new Map(rows.map(({ id, version, position }) => [id, { version, position }])),
  }
}

async function confirmedOf(connection: Connection, pipeline: Pipeline): Promise<Lsn | null> {
  const client = await connection.get()
  const { rows } = await client.query('select confirmed_flush_lsn::text as lsn from pg_replication_slots where slot_name = $1', [
    `millrace_${pipeline.name}`,
  ])
  return rows[0]?.lsn ? parseLsn(rows[0].lsn) : null
}

interface Connection {
  get(): Promise<pg.Client>
  end(): Promise<void>
}

/** One client that is made again when it broke. */
function connection(url: string): Connection {
  let client: pg.Client | null = null
  return {
    async get() {
      if (client !== null) return client
      const fresh = new pg.Client({ connectionString: url, connectionTimeoutMillis: 3_000, query_timeout: 5_000 })
      fresh.on('error', () => {
        if (client === fresh) client = null
      })
      fresh.once('end', () => {
        if (client === fresh) client = null
      })
      await fresh.connect()
      client = fresh
      return fresh
    },
    async end() {
      await client?.end()
    },
  }
}
