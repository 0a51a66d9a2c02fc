import { eventually } from '../../../support/eventually.ts'
import { openQueue, query, topicOfOrders } from '../../parts.ts'
import { judgeReplica, judgeTopic, STREAM_INVARIANTS } from '../../verdict.ts'
import { Ledger, type Written } from '../ledger.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

/** Each pair is done and undone, with events before, between and after it, in one transaction that is spilled while it is decoded. */
const ALTERATIONS: readonly (readonly [string, string])[] = [
  ["add column extra text not null default 'x'", 'drop column extra'],
  ['add column extra int', 'drop column extra'],
  ['alter column type type varchar(200)', 'alter column type type text'],
  ['alter column aggregate_id type varchar(400)', 'alter column aggregate_id type text'],
  ['alter column version type bigint', 'alter column version type int'],
  ['alter column payload type text', 'alter column payload type json using payload::json'],
  [
    "alter column payload type bytea using convert_to(payload::text, 'UTF8')",
    "alter column payload type json using convert_from(payload, 'UTF8')::json",
  ],
  ['rename column created_at to made_at', 'rename column made_at to created_at'],
  ['rename to outbox_away', 'rename to outbox'],
]

export const outboxAltered = defineRow({
  row: '14',
  fault: 'the outbox gets, loses and renames columns, their types change, the table itself is renamed and truncated',
  when: 'inside one transaction among its events, streamed with logical_decoding_work_mem = 64kB',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ quiet: true, ownSource: { logical_decoding_work_mem: '64kB' } })
    trial.applier()
    const relay = trial.relay()
    await relay.heard(/^running/)
    // our own outbox's check ties the types of its columns; that of somebody else has none
    await trial.source.query('alter table millrace.outbox drop constraint outbox_event')
    const ledger = new Ledger()
    for (let left = ctx.times(1, 4); left > 0; left--) {
      for (const [change, undo] of ALTERATIONS) await alterAmongEvents(ctx, trial, ledger, change, undo)
      await truncateAmongEvents(ctx, trial, ledger)
    }
    await equal(ctx, trial, ledger)
    if (!relay.alive) throw new Error(`the relay ended:\n${relay.output()}`)
    ctx.checked('every event of the transactions that altered the outbox arrived in order, none of those rolled back')
  },
})

async function alterAmongEvents(ctx: RowContext, trial: Trial, ledger: Ledger, change: string, undo: string): Promise<void> {
  const table = undo === 'rename to outbox' ? 'millrace.outbox_away' : 'millrace.outbox'
  for (const end of ['commit', 'rollback'] as const)
    await query(trial.source.directUrl, async (client) => {
      const emitted: Written[] = []
      const emit = async (into = 'millrace.outbox'): Promise<void> => {
        for (let i = 0; i < 30; i++) {
          const event = ledger.next(`o${ctx.pick(7)}`, 'b'.repeat(2_000))
          emitted.push(event)
          await client.query(
            `insert into ${into} (id, aggregate_type, aggregate_id, type, payload) values ($1, 'order', $2, 'OrderChanged', $3)`,
            [event.id, event.key, event.payload],
          )
        }
      }
      await client.query('begin')
      await emit()
      await client.query(`alter table millrace.outbox ${change}`)
      ctx.injected()
      await emit(table)
      await client.query(`alter table ${table} ${undo}`)
      await emit()
      await client.query(end)
      ledger.settle(emitted, end === 'commit')
    })
}

async function truncateAmongEvents(ctx: RowContext, trial: Trial, ledger: Ledger): Promise<void> {
  await query(trial.source.directUrl, async (client) => {
    const emitted: Written[] = []
    await client.query('begin')
    for (let i = 0; i < 60; i++) {
      if (i === 30) {
        await client.query('truncate millrace.outbox')
        ctx.injected()
      }
      const event = ledger.next(`o${ctx.pick(7)}`, 'b'.repeat(2_000))
      emitted.push(event)
      await client.query(
        "select millrace.emit(aggregate_type => 'order', aggregate_id => $1, type => 'OrderChanged', payload => $2, id => $3)",
        [event.key, event.payload, event.id],
      )
    }
    await client.query('commit')
    ledger.settle(emitted, true)
  })
}

async function equal(ctx: RowContext, trial: Trial, ledger: Ledger): Promise<void> {
  const queue = await openQueue(trial.pipeline)
  try {
    const verdict = () => judgeTopic(queue, topicOfOrders(trial.pipeline), ledger.committed)
    await eventually(async () => (await verdict()).missing === 0, { within: 90_000, what: 'every event is in the topic' })
    const judged = await verdict()
    const { violations } = judged
    if (violations.length > 0) throw new Error(violations.slice(0, 5).join('\n'))
    await eventually(async () => (await judgeReplica(trial.replica.directUrl, ledger.committed)).length === 0, {
      within: 90_000,
      what: 'the replica is equal',
    })
    ctx.judged({ ...judged, events: ledger.committed.ids.size, unknownOutcomes: 0, invariants: STREAM_INVARIANTS })
  } finally {
    await queue.close()
  }
}

export const columnTaken = defineRow({
  row: '14',
  fault: 'a column that events are made of is renamed, and rows are written without it',
  when: 'the relay is running',
  runs: over([15, 18], ['local']),
  async run(ctx) {
    for (const column of ['payload', 'aggregate_id', 'headers'].slice(0, ctx.times(1, 3))) {
      const trial = await ctx.trial({ quiet: true })
      const relay = trial.relay()
      await relay.heard(/^running/)
      await trial.source.query(`alter table millrace.outbox rename column ${column} to away`)
      ctx.injected()
      const names = ['aggregate_type', 'aggregate_id', 'type', 'payload'].map((name) => (name === column ? 'away' : name))
      await trial.source.query(`insert into millrace.outbox (${names.join(', ')}) values ('order', '1', 'OrderChanged', '{}')`)
      const { code, message, remedy } = await relay.halted(30_000)
      if (code !== 'MILLRACE_OUTBOX_ROW_INVALID' && code !== 'MILLRACE_SCHEMA_OUTDATED') throw new Error(`${code} ${message}`)
      for (const said of [column, 'millrace.outbox', 'safe'])
        if (!message.includes(said)) throw new Error(`it does not say ${said}: ${message}`)
      if (!/millrace resume --refill/.test(remedy ?? '')) throw new Error(`it does not name the command to go on: ${remedy}`)
    }
    ctx.checked('it halts with one message: which row and column, what is safe, and the command to go on')
  },
})
