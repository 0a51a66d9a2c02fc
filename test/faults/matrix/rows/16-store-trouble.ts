import { setTimeout as wait } from 'node:timers/promises'
import { query } from '../../parts.ts'
import { defineRow, over } from '../row.ts'
import type { Trial } from '../trial.ts'

const LOCK_NOT_AVAILABLE = '55P03'

export const deadlocks = defineRow({
  row: '16',
  fault: 'deadlocks of the sink with somebody who locks its rows the other way round; the sink is the victim',
  when: 'steady',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ ownReplica: { deadlock_timeout: '50ms' }, rate: 300 })
    trial.relay()
    const applier = trial.applier()
    await trial.applied()
    const victims = async (): Promise<number> =>
      (await trial.replica.query('select deadlocks::int as n from pg_stat_database where datname = current_database()')).rows[0].n
    const before = await victims()
    const deadline = performance.now() + ctx.times(6_000, 25_000)
    await query(trial.replica.directUrl, async (rival) => {
      // a wait is checked once, deadlock_timeout after it began: of a deadlock that closes later than the sink's, nobody hears
      await rival.query("set deadlock_timeout = '60s'; set lock_timeout = '300ms'")
      while (performance.now() < deadline) {
        const { rows } = await rival.query('select id from orders order by id desc limit 30')
        await rival.query('begin')
        try {
          for (const { id } of rows) await rival.query('select from orders where id = $1 for update', [id])
        } catch (error) {
          if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error
        }
        await rival.query('rollback')
        await wait(10 + ctx.pick(30))
      }
    })
    await trial.applied()
    // the statistics are told at the end of a transaction, now and then
    await wait(1_500)
    const count = (await victims()) - before
    if (count < 3) throw new Error(`there were only ${count} deadlocks`)
    ctx.injected(count)
    if (!applier.alive) throw new Error(`the applier ended:\n${applier.output()}`)
    await trial.judge()
  },
})

export const refusals = defineRow({
  row: '16',
  fault: "the sink's statements fail with 40001 and 40P01, are cancelled, and their sessions ended",
  when: 'steady',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ rate: 300 })
    trial.relay()
    const applier = trial.applier()
    await trial.applied()
    await trial.replica.query('create sequence refused')
    await trial.replica.query(`create function refuse() returns trigger language plpgsql as $$ begin
      if random() < 0.01 then
        perform nextval('refused');
        raise exception using errcode = (array['40001', '40P01'])[1 + floor(random() * 2)::int], message = 'forced';
      end if;
      return coalesce(new, old);
    end $$`)
    await trial.replica.query(
      'create trigger refuse before insert or update or delete on orders for each row execute function refuse()',
    )
    let interrupted = 0
    const deadline = performance.now() + ctx.times(6_000, 30_000)
    while (performance.now() < deadline) {
      interrupted += await interrupt(trial, ctx.pick(3) === 0 ? 'pg_terminate_backend' : 'pg_cancel_backend')
      await wait(30 + ctx.pick(150))
    }
    await trial.replica.query('drop trigger refuse on orders')
    const { rows } = await trial.replica.query('select case when is_called then last_value else 0 end::int as n from refused')
    ctx.injected(rows[0].n + interrupted)
    ctx.say(`${rows[0].n} refused, ${interrupted} cancelled or ended`)
    if (rows[0].n === 0 || interrupted === 0) throw new Error('nothing was refused, or nothing interrupted')
    if (!applier.alive) throw new Error(`the applier ended:\n${applier.output()}`)
    await trial.judge()
  },
})

/** @returns how many of the sink's sessions were at work and were told to stop */
async function interrupt(trial: Trial, how: 'pg_cancel_backend' | 'pg_terminate_backend'): Promise<number> {
  const { rows } = await trial.replica.query(
    `select ${how}(pid) as done from pg_stat_activity
     where datname = current_database() and application_name like 'millrace %' and state <> 'idle'`,
  )
  return rows.filter(({ done }) => done).length
}
