import type { Failpoint } from '../../../../src/pipeline/failpoint.ts'
import { eventually } from '../../../support/eventually.ts'
import type { Process } from '../../processes.ts'
import { defineRow, over, type RowContext } from '../row.ts'
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

/** the sink's `idleInTransactionTimeout`, and its lock time-out, and what a group takes to notice */
const FREED = 60_000

export const suspendedApplier = defineRow({
  row: '7',
  fault: 'SIGSTOP of the applier until its partitions are another’s; then SIGCONT',
  when: 'with half of its transaction sent, or between two statements of its claim, its locks held',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    trial.relay()
    for (let round = 0, rounds = ctx.times(1, 3); round < rounds; round++) {
      const zombie = await (round % 2 === 0 ? stoppedAtHalf : stoppedClaiming)(ctx, trial)
      ctx.injected()
      const second = trial.applier()
      await allApplied(trial)
      zombie.signal('SIGCONT')
      await allApplied(trial)
      await Promise.all([zombie.kill(), second.kill('SIGTERM')])
    }
    ctx.checked('the locks of a stopped applier are freed, and its partitions applied by another')
    await trial.judge()
  },
})

/** Of every partition: one that is locked would be passed over among others that flow. */
async function allApplied(trial: Trial): Promise<void> {
  await trial.transactions(20)
  trial.workload.rest()
  await trial.caughtUp()
  await trial.settled(FREED)
  trial.workload.resume()
}

/** An applier whose server has run the first statements of a transaction, and waits for the rest, which is not sent. */
async function stoppedAtHalf(ctx: RowContext, trial: Trial): Promise<Process> {
  const { proxy } = trial.replica
  const zombie = trial.applier()
  await zombie.heard(/^running$/)
  await eventually(
    async () => {
      await proxy.holdAfter(1 + ctx.pick(20_000), 'to-server')
      if (await holdsLocks(trial, "state = 'active' and wait_event = 'ClientRead'")) return true
      proxy.restore()
      return false
    },
    { within: 90_000, what: 'half of a transaction has arrived' },
  )
  zombie.signal('SIGSTOP')
  proxy.strand()
  proxy.restore()
  return zombie
}

/** ReadyForQuery, which says: inside a transaction */
const INSIDE = Buffer.from([0x5a, 0, 0, 0, 5, 0x54])

/** An applier that has the locks of its claim: it stops before it reads the answer that says so. */
async function stoppedClaiming(ctx: RowContext, trial: Trial): Promise<Process> {
  const { promise: stopped, resolve } = Promise.withResolvers<void>()
  // to `begin`, to the row that may have to be made, to the lock, to the epoch that is raised
  const answer = 3 + ctx.pick(2)
  trial.replica.tap(() => {
    let answers = 0
    return (direction, bytes) => {
      if (direction === 'to-client' && bytes.includes(INSIDE) && ++answers === answer) {
        zombie.signal('SIGSTOP')
        resolve()
      }
      return 'pass'
    }
  })
  const zombie = trial.applier()
  await Promise.race([stopped, zombie.ended])
  trial.replica.tap(null)
  await eventually(() => holdsLocks(trial, "state = 'idle in transaction'"), {
    within: 60_000,
    what: 'it holds the locks of its claim',
  })
  return zombie
}

async function holdsLocks({ replica }: Trial, waiting: string): Promise<boolean> {
  const { rows } = await replica.query(
    `select 1 from pg_stat_activity where datname = current_database() and application_name like 'millrace%' and backend_xid is not null and ${waiting}`,
  )
  return rows.length > 0
}
