import { defineRow, over } from '../row.ts'

export const applierKilled = defineRow({
  row: '9',
  fault: 'kill -9 of the applier',
  when: 'before, during and after its commit',
  // a group of Kafka learns of a killed member after its session time-out only: fewer there
  runs: over([15, 18], ['local', 'kafka']),
  async run(ctx) {
    const trial = await ctx.trial()
    trial.relay()
    const passes = ctx.queue === 'kafka' ? [3] : ctx.times(1, 2) === 1 ? [2] : [1, 2, 4, 7, 9]
    for (const pass of passes)
      for (const when of ['before', 'during', 'after'] as const) {
        const killed = trial.applier({ kill: { when, pass } })
        const end = await killed.ended
        if (end.signal !== 'SIGKILL') throw new Error(`${when}: the applier ended otherwise: ${JSON.stringify(end)}`)
        ctx.injected()
      }
    await trial.judge()
  },
})
