import { defineRow, over } from '../row.ts'

const HOUR = 3_600_000

export const clocksJump = defineRow({
  row: '17',
  fault: 'the wall clock of relay and applier jumps by an hour, forward and back, each at its own time',
  when: 'steady',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    const processes = [trial.applier({ jump: HOUR }), trial.relay({ jump: HOUR })]
    await trial.applied()
    for (let left = ctx.times(4, 40); left > 0; left--) {
      const jumping = processes[ctx.pick(2)]
      jumping?.signal('SIGUSR2')
      ctx.injected()
      await trial.transactions(10 + ctx.pick(40))
      // not in an hour
      if (left % 4 === 0) await trial.applied(15_000)
    }
    for (const process of processes) if (!process.alive) throw new Error(`a process ended:\n${process.output()}`)
    await trial.judge()
    ctx.checked('the sink went on within 15 s after each jump, in the order of the commits')
  },
})
