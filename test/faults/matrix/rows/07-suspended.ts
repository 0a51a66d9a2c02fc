import { setTimeout as wait } from 'node:timers/promises'
import type { Failpoint } from '../../../../src/pipeline/failpoint.ts'
import { eventually } from '../../../support/eventually.ts'
import { defineRow, over } from '../row.ts'
import type { Trial } from '../trial.ts'

const MOMENTS: readonly Failpoint[] = ['planned', 'sent', 'acked', 'state-written', 'read']

export const suspendedRelay = defineRow({
  row: '7',
  fault: 'SIGSTOP of the relay until the server gave its slot to a second one; then SIGCONT',
  when: 'with a batch read, planned, sent, acknowledged; the state written',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ ownSource: { wal_sender_timeout: '1500ms' } })
    trial.applier()
    const first = ctx.pick(MOMENTS.length)
    for (let round = 0, rounds = ctx.times(1, 6); round < rounds; round++) {
      const name = MOMENTS[(first + round) % MOMENTS.length] as Failpoint
      const zombie = trial.relay({ failpoint: { name, pass: 2 + ctx.pick(5), signal: 'SIGSTOP' } })
      await zombie.heard(/^stopped$/)
      ctx.injected()
      const second = trial.relay()
      await second.heard(/^running$/)
      await trial.transactions(20)
      zombie.signal('SIGCONT')
      // what it had in hand goes out now, behind the second one's; then it finds its slot in other hands
      await zombie.heard(/^standby$/)
      await zombie.kill(ctx.random() < 0.5 ? 'SIGKILL' : 'SIGTERM')
      await second.kill(ctx.random() < 0.5 ? 'SIGKILL' : 'SIGTERM')
    }
    ctx.checked('a zombie relay finds its slot taken and stands by')
    await trial.judge()
  },
})

export const suspendedApplier = defineRow({
  row: '7',
  fault: 'SIGSTOP of the applier until its partitions are another’s; then SIGCONT',
  when: 'inside its transaction, its locks held',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    trial.relay()
    for (let left = ctx.times(1, 3); left > 0; left--) {
      const zombie = trial.applier()
      await zombie.heard(/^running$/)
      await eventually(
        async () => {
          zombie.signal('SIGSTOP')
          if (await insideTransaction(trial)) return true
          zombie.signal('SIGCONT')
          await wait(1 + ctx.pick(20))
          return false
        },
        { within: 30_000, what: 'the applier stops inside a transaction' },
      )
      ctx.injected()
      const second = trial.applier()
      await trial.applied(60_000)
      zombie.signal('SIGCONT')
      await trial.applied(60_000)
      await Promise.all([zombie.kill(), second.kill('SIGTERM')])
    }
    ctx.checked('the locks of a stopped applier are freed, and its partitions applied by another')
    await trial.judge()
  },
})

/** A stopped client's statement has ended on the server a moment later: what then is in a transaction stays there. */
async function insideTransaction({ replica }: Trial): Promise<boolean> {
  await wait(20)
  const { rows } = await replica.query(
    "select count(*)::int as n from pg_stat_activity where datname = current_database() and state = 'idle in transaction' and query not like '%repeatable read%' and backend_type = 'client backend'",
  )
  return rows[0].n > 0
}
