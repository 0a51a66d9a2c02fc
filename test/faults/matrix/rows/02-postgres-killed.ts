import { parseLsn } from '../../../../src/core/position.ts'
import { recover } from '../recover.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

export const sourceKilled = defineRow({
  row: '2',
  fault: 'kill -9 of the source Postgres, all of it, then a restart',
  when: 'after a confirm, before a checkpoint',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ ownSource: true })
    trial.applier()
    await trial.relay().heard(/^running/)
    let rewinds = 0
    for (let left = ctx.times(2, 8); left > 0; left--) {
      await trial.transactions(60 + ctx.pick(120))
      // else it might be killed again before it was told anything
      await trial.caughtUp()
      const confirmed = await confirmedLsn(trial)
      await crash(ctx, trial.source, async () => {
        if ((await confirmedLsn(trial)) < confirmed) rewinds++
      })
    }
    if (rewinds === 0) throw new Error('the slot never went back: the row proved nothing')
    await trial.judge()
    ctx.checked('the slot went back behind what was confirmed, and what came again had no second effect')
  },
})

export const replicaKilled = defineRow({
  row: '2',
  fault: "kill -9 of the sink's Postgres, all of it, then a restart",
  when: 'while batches are applied',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ ownReplica: true })
    trial.relay()
    await trial.applier().heard(/^running/)
    for (let left = ctx.times(2, 12); left > 0; left--) {
      await trial.transactions(40 + ctx.pick(80))
      await crash(ctx, trial.replica, async () => {})
    }
    await trial.judge()
  },
})

/** Ends the server in one of the two ways that leave it to its recovery; `look` sees it before the pipeline does. */
async function crash(ctx: RowContext, { server, proxy }: Trial['source'], look: () => Promise<void>): Promise<void> {
  if (server === null) throw new Error('a shared server is not to be killed')
  await server.stop(ctx.pick(3) === 0 ? 'immediate' : 'kill')
  ctx.injected()
  proxy.refuse()
  await recover(server)
  await look()
  proxy.restore()
}

async function confirmedLsn(trial: Trial): Promise<bigint> {
  const { rows } = await trial.source.query(
    'select confirmed_flush_lsn::text as lsn from pg_replication_slots where slot_name = $1',
    [`millrace_${trial.pipeline.name}`],
  )
  return parseLsn(rows[0].lsn)
}
