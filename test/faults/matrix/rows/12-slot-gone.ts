import { eventually } from '../../../support/eventually.ts'
import { judgeGapHalt } from '../gap-halt.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

/** What somebody does to the slot; while the relay is stopped, and under its hands. */
interface Deed {
  readonly name: string
  /** of what the relay says of it */
  readonly code: RegExp
  readonly settings?: Readonly<Record<string, string>>
  readonly only?: 18
  /** while running: the relay stays connected, and hears nothing */
  readonly stalled?: true
  do(trial: Trial, slot: string): Promise<void>
}

const DEEDS: readonly Deed[] = [
  {
    name: 'dropped',
    code: /^MILLRACE_SLOT_MISSING$/,
    do: (trial, slot) => whenFree(trial, `perform pg_drop_replication_slot('${slot}')`),
  },
  {
    name: 'dropped and made again',
    code: /^MILLRACE_SLOT_MOVED$/,
    async do(trial, slot) {
      await whenFree(trial, `perform pg_drop_replication_slot('${slot}')`)
      await emit(trial, 20)
      await trial.source.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [slot])
    },
  },
  {
    name: 'advanced by somebody else',
    code: /^MILLRACE_SLOT_MOVED$/,
    do: (trial, slot) => whenFree(trial, `perform pg_replication_slot_advance('${slot}', pg_current_wal_insert_lsn())`),
  },
  {
    name: 'lost by max_slot_wal_keep_size',
    code: /^MILLRACE_SLOT_LOST$/,
    settings: { max_slot_wal_keep_size: '1MB', max_wal_size: '32MB', min_wal_size: '32MB' },
    stalled: true,
    do: (trial) =>
      untilLost(
        trial,
        'select pg_logical_emit_message(false, $$filler$$, repeat($$x$$, 100000)); select pg_switch_wal(); checkpoint',
      ),
  },
  {
    name: 'lost by idle_replication_slot_timeout',
    code: /^MILLRACE_SLOT_LOST$/,
    only: 18,
    settings: { idle_replication_slot_timeout: '1s' },
    do: (trial) => untilLost(trial, 'checkpoint'),
  },
]

export const slotGone = DEEDS.map((deed) =>
  defineRow({
    row: '12',
    fault: `the slot is ${deed.name}`,
    when: 'the relay is stopped, and running',
    runs: over(deed.only === undefined ? [15, 18] : [deed.only], ['local']),
    async run(ctx) {
      for (let left = ctx.times(1, 2); left > 0; left--)
        for (const when of ['stopped', 'running'] as const) await once(ctx, deed, when)
      ctx.checked('it halts with one message: what happened, from where to where, what is safe, and the command to go on')
      ctx.checked('once it is halted nothing more is published, also after a restart')
    },
  }),
)

async function once(ctx: RowContext, deed: Deed, when: 'stopped' | 'running'): Promise<void> {
  const trial = await ctx.trial({ quiet: true, ...(deed.settings !== undefined && { ownSource: deed.settings }) })
  trial.applier()
  const relay = trial.relay()
  await relay.heard(/^running/)
  await emit(trial, RELAYED)
  await eventually(async () => (await shown(trial)) === RELAYED, { within: 90_000, what: 'the first events are applied' })
  if (when === 'stopped') await relay.kill('SIGTERM')
  else trial.source.proxy[deed.stalled === true ? 'hold' : 'refuse']()
  // what is committed meanwhile is what the gap swallows
  await emit(trial, SWALLOWED)
  await deed.do(trial, `millrace_${trial.pipeline.name}`)
  ctx.injected()
  trial.source.proxy.restore()
  judgeGapHalt(deed.name, deed.code, await (when === 'stopped' ? trial.relay() : relay).halted(90_000))
  // again, and as loudly: nothing heals by itself
  judgeGapHalt(deed.name, deed.code, await trial.relay().halted(90_000))
  // what had been sent before it was lost may have arrived late, and was relayed
  const allowed = deed.stalled === true && when === 'running' ? [RELAYED, RELAYED + SWALLOWED] : [RELAYED]
  let found = 0
  // what arrived late is applied partition by partition
  await eventually(async () => allowed.includes((found = await shown(trial))), {
    within: 60_000,
    what: 'whole transactions are shown',
  }).catch(() => {
    throw new Error(`the replica shows ${found} orders, and ${RELAYED} stood before the gap`)
  })
}

const shown = async (trial: Trial): Promise<number> =>
  (await trial.replica.query('select count(*)::int as shown from orders')).rows[0].shown

/** Does it as soon as the server has noticed that the relay is gone. */
async function whenFree(trial: Trial, deed: string): Promise<void> {
  await trial.source.query(`do $$ begin
    for attempt in 1..400 loop
      begin
        ${deed};
        return;
      exception when object_in_use then
        perform pg_sleep(0.05);
      end;
    end loop;
    raise 'the slot is still in use';
  end $$`)
}

async function untilLost(trial: Trial, hasten: string): Promise<void> {
  await eventually(
    async () => {
      for (const statement of hasten.split(';')) await trial.source.query(statement)
      const { rows } = await trial.source.query('select wal_status from pg_replication_slots')
      return rows[0].wal_status === 'lost'
    },
    { within: 90_000, what: 'the slot is lost' },
  )
}

const RELAYED = 50
const SWALLOWED = 20
let count = 0
const emit = async (trial: Trial, n: number): Promise<void> => {
  await trial.source.query(
    `select millrace.emit(aggregate_type => 'order', aggregate_id => 'o' || g, type => 'OrderChanged',
       payload => jsonb_build_object('id', 'o' || g, 'version', 1, 'body', 'b', 'amount', 1)::text::json)
     from generate_series($1::int, $2::int) g`,
    [(count += n) - n + 1, count],
  )
}
