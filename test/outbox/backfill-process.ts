import pg from 'pg'
import { createOutbox } from '../../src/outbox/index.ts'

/** A backfill in a process of its own, slow enough to be killed in the middle. */
const pool = new pg.Pool({ connectionString: process.argv[2], max: 2 })
await createOutbox().backfill<{ readonly id: number; readonly note: string }>(pool, {
  name: 'orders',
  chunk: 20,
  rate: 1_000,
  select: { table: 'orders' },
  toEvent: ({ id, note }) => ({ aggregateType: 'order', aggregateId: id, type: 'OrderChanged', payload: { id, note } }),
})
await pool.end()
