import { setTimeout as wait } from 'node:timers/promises'
import type { Process } from '../../processes.ts'
import { explains } from '../halt.ts'
import { addPartitions } from '../kafka-admin.ts'
import { defineRow, over } from '../row.ts'

export const rebalanceStorm = defineRow({
  row: '11',
  fault: 'appliers join, leave and die: up to three at once',
  when: 'steady load, a change every half second',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    trial.relay()
    const members: Process[] = [trial.applier()]
    for (let left = ctx.times(6, 40); left > 0; left--) {
      await wait(200 + ctx.pick(600))
      const leaving = members.length === 3 || (members.length > 0 && ctx.random() < 0.4)
      if (leaving) {
        const [member] = members.splice(ctx.pick(members.length), 1)
        // a dead member holds the group up until its session has ended: most leave in good order
        void member?.kill(ctx.random() < 0.3 ? 'SIGKILL' : 'SIGTERM')
      } else members.push(trial.applier())
      ctx.injected()
    }
    await trial.judge()
  },
})

export const partitionsAdded = defineRow({
  row: '11',
  fault: 'partitions are added to a topic of the stream',
  when: 'running, and before the next session',
  runs: over([15, 18], ['kafka']),
  async run(ctx) {
    const trial = await ctx.trial()
    const relay = trial.relay()
    trial.applier()
    await relay.heard(/^running$/)
    await trial.transactions(100)
    await addPartitions(trial, 5)
    ctx.injected()
    await trial.applied()
    await relay.kill()
    const halt = await trial.relay().halted()
    explains(halt, {
      code: 'MILLRACE_PARTITIONS_CHANGED',
      happened: /has 5 partitions, the stream began with 3/,
      safe: /lost|lose/,
      command: /millrace drain/,
    })
    ctx.checked('the next session halts before anything moves to another partition, and says so')
  },
})
