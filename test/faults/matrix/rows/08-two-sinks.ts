import { setTimeout as wait } from 'node:timers/promises'
import { defineRow, over } from '../row.ts'

export const twoSinks = defineRow({
  row: '8',
  fault: 'two sinks of one name over one store, each given every partition: they take the checkpoints from each other',
  when: 'steady, a moment after each loss',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ rate: 300 })
    trial.relay()
    const rivals = [trial.applier({ hasty: true }), trial.applier({ hasty: true, rival: `${trial.pipeline.name}_rival` })]
    // each claim raises the owner epoch: all but the first of a partition took it from the other
    const taken = async (): Promise<number> => {
      const { rows } = await trial.replica.query(
        'select coalesce(sum(epoch - 1), 0)::int as taken from (select max(owner_epoch) as epoch from millrace.checkpoint group by topic, partition) c',
      )
      return rows[0].taken
    }
    const deadline = performance.now() + ctx.times(10_000, 40_000)
    while (performance.now() < deadline) await wait(200)
    const takeovers = await taken()
    if (takeovers < ctx.times(6, 30)) throw new Error(`the rivals took partitions from each other only ${takeovers} times`)
    ctx.injected(takeovers)
    for (const rival of rivals) if (!rival.alive) throw new Error(`a rival ended:\n${rival.output()}`)
    await rivals[1]?.kill('SIGTERM')
    await trial.judge()
    ctx.checked('who lost a partition wrote nothing more to it (owner epoch), and both processes lived')
  },
})
