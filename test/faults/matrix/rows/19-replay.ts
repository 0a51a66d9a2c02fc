import { setTimeout as wait } from 'node:timers/promises'
import { eventually } from '../../../support/eventually.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

const EVERYTHING = ['--from', '2026-01-01T00:00Z'] as const

interface Ended {
  readonly outcome: string
  readonly rows: { readonly mended: number; readonly left: readonly unknown[] } | null
}

/** `millrace replay` to its end. @throws what it said, when it did not end well */
async function replayed(trial: Trial, ...args: readonly string[]): Promise<Ended> {
  const program = await trial.millrace(['replay', 'replica', ...args, '--json'])
  const { code, stdout, stderr } = await program.finished
  // what is damaged again behind it is left
  if (code !== 0 && code !== 3) throw new Error(`millrace replay ${args.join(' ')} ended with ${code}: ${stderr.slice(-2_000)}`)
  return JSON.parse(stdout) as Ended
}

/** Rows whose values are changed and whose guard is not: the watch, which looks at versions and positions, goes on. */
async function damage(ctx: RowContext, { replica }: Trial): Promise<number> {
  const { rowCount } = await replica.query("update orders set body = 'damaged' where abs(hashtext(id)) % 5 = $1", [ctx.pick(5)])
  ctx.injected(rowCount ?? 0)
  return rowCount ?? 0
}

/** who has the sink's partitions, and who reads the slot */
async function holders({ source, replica, pipeline }: Trial): Promise<string> {
  const owners = await replica.query('select topic, partition, owner_epoch from millrace.checkpoint order by topic, partition')
  const slot = await source.query('select active_pid from pg_replication_slots where slot_name = $1', [
    `millrace_${pipeline.name}`,
  ])
  return JSON.stringify([owners.rows, slot.rows])
}

export const replayFromTheStart = defineRow({
  row: '19',
  fault: 'rows are changed behind the sink, and everything is replayed from its very start',
  when: 'steady load; the replay is killed again and again, and goes on',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ rate: 100 })
    const relay = trial.relay()
    trial.applier()
    await relay.heard(/^running$/)
    await trial.transactions(ctx.times(100, 400))
    await trial.applied()
    const before = await holders(trial)

    let mended = 0
    let damaging = true
    const damages = (async () => {
      while (damaging) {
        await damage(ctx, trial)
        await wait(100)
      }
    })()
    ctx.defer(async () => {
      damaging = false
      await damages.catch(() => {})
    })
    for (let round = ctx.times(1, 3); round > 0; round--) {
      const first = await trial.millrace(['replay', 'replica', ...EVERYTHING, '--yes', '--json'])
      let program = first
      for (let kill = ctx.times(1, 3); kill > 0; kill--) {
        await wait(500 + 2_500 * ctx.random())
        program.signal('SIGKILL')
        const { code } = await program.finished
        // it was done before the kill came
        if (code === 0) break
        ctx.injected()
        await eventually(async () => !(await jobIsHeld(trial)), { within: 60_000, what: 'the store has seen the death' })
        if (!(await jobStands(trial))) break
        program = await trial.millrace(['replay', 'replica', '--resume', '--json'])
      }
      await program.finished
      if (round === 1) {
        damaging = false
        await damages
      }
      const last = (await jobStands(trial)) ? await replayed(trial, '--resume') : await replayed(trial, ...EVERYTHING, '--yes')
      if (last.outcome !== 'done' || last.rows === null) throw new Error(`the replay did not end: ${JSON.stringify(last)}`)
      mended += last.rows.mended
    }
    // with the writers at rest nobody else mends what is damaged
    trial.workload.rest()
    await trial.settled()
    const last = await damage(ctx, trial)
    const all = await replayed(trial, ...EVERYTHING, '--yes')
    mended += all.rows?.mended ?? 0
    if (all.rows === null || (last > 0 && all.rows.mended === 0) || all.rows.left.length > 0)
      throw new Error(`the replay left something: ${JSON.stringify(all)}`)
    const { rows } = await trial.replica.query("select count(*)::int as count from orders where body = 'damaged'")
    if (rows[0].count > 0) throw new Error(`${rows[0].count} damaged rows were not mended`)
    trial.workload.resume()
    const after = await holders(trial)
    if (after !== before) throw new Error(`the replay moved an owner: ${before} and then ${after}`)
    ctx.checked('the replay ends with no damaged row, whenever it is killed')
    ctx.checked('no owner of a partition and no reader of the slot changes')
    ctx.say(`${mended} rows mended`)
    await trial.judge()
  },
})

async function jobStands({ replica }: Trial): Promise<boolean> {
  return (await replica.query("select 1 from millrace.copy where sink = 'replica'")).rows.length > 0
}

/** a session of the killed process may stand for a moment */
async function jobIsHeld({ replica }: Trial): Promise<boolean> {
  const { rows } = await replica.query(
    "select 1 from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())",
  )
  return rows.length > 0
}
