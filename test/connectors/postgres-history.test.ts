import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { codeOf } from '../../src/core/errors.ts'
import type { Event } from '../../src/core/event.ts'
import type { Lane, LaneBatch, Sink } from '../../src/core/sink.ts'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { at, openSink } from './postgres-fixture.ts'

const TABLE = `create table orders (id text primary key, total numeric default -1, note text default 'none', _millrace_position text collate "C")`

let database: Database
let proxy: TcpProxy
let sink: Sink
let partitions = 0

beforeAll(async () => {
  database = await createDatabase()
  for (const name of ['orders', 'guarded']) await database.query(TABLE.replace('orders', name))
  await database.query('alter table guarded drop column _millrace_position')
  const url = new URL(database.url)
  proxy = await startTcpProxy({ port: Number(url.port) })
  url.port = String(proxy.port)
  const on = { Changed: 'upsert', Paid: 'merge', Erased: 'delete', Viewed: 'ignore' } as const
  sink = await openSink({
    url: url.href,
    statementTimeout: '5s',
    tables: [
      { from: 'order', into: 'orders', key: 'id', on },
      { from: 'order', into: 'guarded', key: 'id', guard: 'table', on },
    ],
  })
  await sink.init()
})
afterAll(async () => {
  await sink?.close()
  await proxy?.remove()
  await database?.drop()
})

interface Row {
  readonly id: string
  readonly total: string | null
  readonly note: string | null
}

const NEW = { total: '-1', note: 'none' }

/** what a history makes of the rows, one event at a time */
function fold(history: readonly Step[], prefix: string): Row[] {
  const rows = new Map<string, Row>()
  for (const { type, key, total, note } of history) {
    const id = prefix + key
    if (type === 'Changed') rows.set(id, { id, total: total ?? null, note: note ?? null })
    else if (type === 'Erased') rows.delete(id)
    else if (type === 'Paid')
      rows.set(id, {
        ...(rows.get(id) ?? { id, ...NEW }),
        ...(total !== undefined && { total }),
        ...(note !== undefined && { note }),
      })
  }
  return [...rows.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
}

interface Step {
  readonly type: 'Changed' | 'Paid' | 'Erased' | 'Viewed'
  readonly key: string
  readonly total?: string | null | undefined
  readonly note?: string | null | undefined
  /** what happens to the connection in the batch that ends with this event, if one does */
  readonly fault: 'none' | 'before the server has it' | 'after the commit' | 'somewhere' | 'another owner'
  readonly ends: boolean
  readonly bytes: number
}

const step: fc.Arbitrary<Step> = fc.record({
  type: fc.constantFrom(
    'Changed' as const,
    'Changed' as const,
    'Paid' as const,
    'Paid' as const,
    'Erased' as const,
    'Viewed' as const,
  ),
  key: fc.constantFrom('a', 'b', 'c'),
  total: fc.option(fc.constantFrom('1.10', '9007199254740993', null), { nil: undefined }),
  note: fc.option(fc.constantFrom('x', 'y"\\\n', null), { nil: undefined }),
  fault: fc.oneof(
    { weight: 4, arbitrary: fc.constant('none' as const) },
    {
      weight: 2,
      arbitrary: fc.constantFrom(
        'before the server has it' as const,
        'after the commit' as const,
        'somewhere' as const,
        'another owner' as const,
      ),
    },
  ),
  ends: fc.boolean(),
  bytes: fc.integer({ min: 1, max: 4_000 }),
})

function payload({ type, key, total, note }: Step, prefix: string): string | null {
  if (type === 'Erased') return null
  const fields = [`"id":${JSON.stringify(prefix + key)}`]
  if (total !== undefined || type === 'Changed') fields.push(`"total":${total ?? null}`)
  if (note !== undefined || type === 'Changed') fields.push(`"note":${JSON.stringify(note ?? null)}`)
  return `{${fields.join(',')}}`
}

const moved = async (partition: number, offset: bigint): Promise<boolean> =>
  (await database.query('select from millrace.checkpoint where partition = $1 and "offset" = $2', [partition, String(offset)]))
    .rows.length === 1

/** Applies the batch with the fault, as an applier does: an unknown outcome is read again, and what was not applied is applied once more. */
async function applyWith(lane: Lane, batch: LaneBatch, { fault, bytes }: Step): Promise<Lane> {
  const { partition } = lane.checkpoint
  if (fault === 'another owner') {
    const next = await sink.claim(at(partition))
    await expect(lane.apply(batch)).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
    await next.apply(batch)
    return next
  }
  if (fault === 'before the server has it') void proxy.cutAfter(bytes, 'to-server')
  if (fault === 'somewhere') void proxy.cutAfter(1 + (bytes % 60), 'to-client')
  if (fault === 'after the commit') proxy.hold('to-client')
  const outcome = lane.apply(batch).then(
    () => null,
    (error: unknown) => error,
  )
  if (fault === 'after the commit') {
    await eventually(() => moved(partition, batch.offset), { what: 'the batch was committed' })
    proxy.cut()
  }
  const error = await outcome
  proxy.restore()
  if (error === null) return lane
  expect(codeOf(error)).toBe('MILLRACE_SINK_UNREACHABLE')
  const checkpoint = await eventually(() => lane.reread(), { what: 'the checkpoint can be read again' })
  const [move] = batch.moves
  if (fault === 'after the commit') expect(checkpoint.offset).toBe(batch.offset)
  if (checkpoint.offset !== batch.offset) {
    expect(checkpoint.positions.get('shop') ?? null).toBe(move?.from)
    await lane.apply(batch)
  }
  return lane
}

it('a replica equals the fold of its history, however it is split and wherever its connection breaks', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (history) => {
      const partition = partitions++
      const prefix = `p${partition}-`
      const stream = eventStream()
      let lane = await sink.claim(at(partition))
      let batch: Event[] = []
      let offset = 0n
      for (const [index, one] of history.entries()) {
        batch.push(stream.next({ type: one.type, key: prefix + one.key, payload: payload(one, prefix) }))
        offset++
        if (!one.ends && index < history.length - 1) continue
        lane = await applyWith(lane, batchOf(batch, offset), one)
        batch = []
      }
      for (const table of ['orders', 'guarded']) {
        const { rows } = await database.query(`select id, total::text, note from ${table} where id like $1 order by id`, [
          `${prefix}%`,
        ])
        expect(rows, table).toEqual(fold(history, prefix))
      }
    }),
    { numRuns: 60, endOnFailure: false },
  )
}, 180_000)
