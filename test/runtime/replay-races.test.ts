import pg from 'pg'
import { afterEach, expect, test } from 'vitest'
import type { PipelineOptions, ReplayReport } from '../../src/index.ts'
import { eventually } from '../support/eventually.ts'
import { type VerifyStream, verifyStream } from './verify-stream.ts'

let stream: VerifyStream
afterEach(() => stream?.drop())

const k = (n: number): string => `k${String(n).padStart(7, '0')}`
const FROM = { from: '2026-01-01T00:00Z' }

async function rows(to: number): Promise<void> {
  await eventually(async () => (await shown("id like 'k%'")) === to, { within: 30_000, what: `${to} rows` })
}

async function shown(where: string): Promise<number> {
  return Number((await stream.replica.query(`select count(*) from orders where ${where}`)).rows[0].count)
}

async function applied(sql: string, what: string): Promise<void> {
  await eventually(async () => (await stream.replica.query(sql)).rows.length > 0, { within: 30_000, what })
}

/** Replays, and does something once: when what was compared is about to be mended. */
async function replayWhile(meanwhile: () => Promise<void>, later = async (): Promise<void> => {}): Promise<ReplayReport> {
  let folded = false
  let done = false
  const failpoint: PipelineOptions['failpoint'] = async (name) => {
    if (name === 'replay-folded') folded = true
    if (done) await later()
    if (name !== 'replay-batch-folded' || !folded || done) return
    done = true
    await meanwhile()
  }
  const report = await stream.another({}, { failpoint }).replay('warehouse', FROM)
  expect(done).toBe(true)
  return report
}

test('a row whose later delete has left no trace any more is not brought back half-way', async () => {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 20)
  await rows(20)
  await stream.replica.query(`delete from orders where id in ('${k(3)}', '${k(4)}')`)
  let seen = 0
  const forgotten = async (): Promise<void> => {
    await stream.erase(k(3))
    await applied(`select from millrace.deleted where key like '%${k(3)}%'`, 'the delete')
    // its time is over, as the sink itself forgets markers
    await stream.replica.query('update millrace.target set forgotten_below = (select max(position) from millrace.deleted)')
    await stream.replica.query('delete from millrace.deleted')
  }
  const report = await replayWhile(forgotten, async () => {
    seen += await shown(`id = '${k(3)}'`)
  })
  expect(seen).toBe(0)
  expect(report).toMatchObject({ outcome: 'done', rows: { left: [] } })
  expect(await shown(`id = '${k(3)}'`)).toBe(0)
  expect(await shown(`id = '${k(4)}'`)).toBe(1)
  await stream.shows(null)
}, 60_000)

test('a row that a live transaction is deleting is not brought back', async () => {
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 20)
  await rows(20)
  const { replica } = stream
  await replica.query(`create function hold() returns trigger language plpgsql as $$ begin
    perform pg_advisory_xact_lock(4242); return new; end $$;
    create trigger hold before insert on millrace.deleted for each row execute function hold()`)
  await replica.query(`delete from orders where id = '${k(3)}'`)
  let released: Promise<unknown> = Promise.resolve()
  const waiting = async (what: string): Promise<boolean> =>
    Number(
      (
        await replica.query(
          `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and wait_event = '${what}'`,
        )
      ).rows[0].count,
    ) > 0
  await replayWhile(async () => {
    const holder = new pg.Client({ connectionString: replica.url })
    await holder.connect()
    await holder.query('select pg_advisory_lock(4242)')
    await stream.erase(k(3))
    await eventually(() => waiting('advisory'), { within: 30_000, what: 'the live transaction stands in the midst' })
    // either the replay waits for that transaction, or it has written beside it
    released = eventually(
      async () => (await waiting('transactionid')) || (await waiting('tuple')) || (await shown(`id = '${k(3)}'`)) > 0,
      { within: 20_000, what: 'the replay comes to the row' },
    ).finally(() => holder.end())
  })
  await released
  await stream.shows(null)
  expect(await shown(`id = '${k(3)}'`)).toBe(0)
}, 90_000)
