import { setTimeout as wait } from 'node:timers/promises'
import { eventually } from '../../../support/eventually.ts'
import { openQueue, topicOfOrders } from '../../parts.ts'
import type { Process } from '../../processes.ts'
import { ended } from '../ended.ts'
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
  when: 'running; used after `millrace drain`',
  runs: over([15, 18], ['kafka']),
  async run(ctx) {
    const trial = await ctx.trial()
    const queue = await openQueue(trial.pipeline)
    ctx.defer(() => queue.close())
    const usedOf = async (): Promise<readonly boolean[]> =>
      (await queue.ranges(topicOfOrders(trial.pipeline))).map(({ end }) => end > 0n)
    let relay = trial.relay()
    trial.applier()
    await relay.heard(/^running$/)
    await trial.transactions(100)
    await addPartitions(trial, 5)
    ctx.injected()
    await trial.transactions(100)
    await trial.applied()
    await relay.kill()
    relay = trial.relay()
    await trial.transactions(100)
    await trial.applied()
    const before = await usedOf()
    if (before.length !== 5 || before[3] || before[4]) throw new Error(`used without a drain: ${before}`)
    ctx.checked('no key moves to an added partition, running or restarted')

    trial.workload.rest()
    await trial.caughtUp()
    await relay.kill('SIGTERM')
    await ended('drain', await trial.millrace(['drain']))
    trial.workload.resume()
    trial.relay()
    await eventually(async () => (await usedOf()).every((used) => used), { within: 60_000, what: 'all partitions to be used' })
    ctx.checked('after a drain the added partitions are used, and each key keeps its order')
    await trial.judge()
  },
})
