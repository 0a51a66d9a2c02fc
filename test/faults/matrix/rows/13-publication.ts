import { parseLsn } from '../../../../src/core/position.ts'
import { judgeGapHalt } from '../gap-halt.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

/** What somebody does to the publication; `%` is its name. `back` puts it as it was, when events have been left out. */
interface Deed {
  readonly name: string
  readonly away: string
  readonly back: string
}

const CREATE = "create publication % for table millrace.outbox with (publish = 'insert')"
const DEEDS: readonly Deed[] = [
  { name: 'dropped, and made again', away: 'drop publication %', back: CREATE },
  {
    name: 'made to publish updates only, and put back',
    away: "alter publication % set (publish = 'update')",
    back: "alter publication % set (publish = 'insert')",
  },
  {
    name: 'given a row filter, and put back',
    away: "alter publication % set table millrace.outbox where (aggregate_id = 'nobody')",
    back: 'alter publication % set table millrace.outbox',
  },
  {
    name: 'emptied, and put back',
    away: 'alter publication % drop table millrace.outbox',
    back: 'alter publication % add table millrace.outbox',
  },
]

export const publicationAltered = DEEDS.map((deed) =>
  defineRow({
    row: '13',
    fault: `the publication is ${deed.name}: Postgres leaves out what is written in between`,
    when: 'the relay is running, and stopped',
    runs: over([15, 18], ['local']),
    async run(ctx) {
      for (let left = ctx.times(1, 3); left > 0; left--)
        for (const when of ['running', 'stopped'] as const) await leaveOut(ctx, deed, when)
      ctx.checked('the relay halts and names the gap, and the slot was not confirmed beyond what was left out')
    },
  }),
)

async function leaveOut(ctx: RowContext, { away, back, name }: Deed, when: 'running' | 'stopped'): Promise<void> {
  const trial = await ctx.trial({ quiet: true })
  const alter = (statement: string): Promise<unknown> =>
    trial.source.query(statement.replace('%', `millrace_${trial.pipeline.name}`))
  const relay = trial.relay()
  await relay.heard(/^running/)
  await emit(trial, 10)
  if (when === 'stopped') await relay.kill('SIGTERM')
  await alter(away)
  ctx.injected()
  const { rows } = await trial.source.query('select pg_current_wal_insert_lsn()::text as lsn')
  await emit(trial, 10)
  await alter(back)
  await emit(trial, 10)
  const halt = await (when === 'stopped' ? trial.relay() : relay).halted(90_000)
  judgeGapHalt(name, /^MILLRACE_PUBLICATION_MISSING$/, halt)
  const { rows: slots } = await trial.source.query(
    'select confirmed_flush_lsn::text as lsn from pg_replication_slots where slot_name = $1',
    [`millrace_${trial.pipeline.name}`],
  )
  if (parseLsn(slots[0].lsn) > parseLsn(rows[0].lsn))
    throw new Error(`${name}: confirmed up to ${slots[0].lsn}, and what was written from ${rows[0].lsn} on was left out`)
  judgeGapHalt(name, /^MILLRACE_PUBLICATION_MISSING$/, await trial.relay().halted(90_000))
}

export const tableAdded = defineRow({
  row: '13',
  fault: 'another table joins the publication, is written to, and leaves it again',
  when: 'the relay is running',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    trial.applier()
    const relay = trial.relay()
    await relay.heard(/^running/)
    const publication = `millrace_${trial.pipeline.name}`
    await trial.source.query('create table guest (id int primary key)')
    for (let left = ctx.times(2, 12); left > 0; left--) {
      await trial.source.query(`alter publication ${publication} add table guest`)
      ctx.injected()
      await trial.source.query('insert into guest select g from generate_series(1, 50) g')
      await trial.transactions(20)
      await trial.source.query(`alter publication ${publication} drop table guest`)
      await trial.source.query('truncate guest')
      await trial.transactions(20)
    }
    if (!relay.alive) throw new Error(`the relay ended:\n${relay.output()}`)
    await trial.judge()
    ctx.checked('rows of other tables are passed over, and every event around them is published')
  },
})

let count = 0
const emit = async (trial: Trial, n: number): Promise<void> => {
  await trial.source.query(
    `select millrace.emit(aggregate_type => 'order', aggregate_id => 'o' || g, type => 'OrderChanged', payload => '{}')
     from generate_series($1::int, $2::int) g`,
    [(count += n) - n + 1, count],
  )
}
