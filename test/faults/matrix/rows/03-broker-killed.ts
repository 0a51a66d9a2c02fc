import { allInSync } from '../kafka-admin.ts'
import { defineRow, over } from '../row.ts'

export const brokerKilled = defineRow({
  row: '3',
  fault: 'kill -9 of the only broker, and restart',
  when: 'while records are being produced and consumed',
  runs: over([15, 18], ['kafka']),
  async run(ctx) {
    const trial = await ctx.trial({ ownKafka: {} })
    const cluster = trial.kafka?.cluster
    const relay = trial.relay()
    trial.applier()
    await relay.heard(/^running$/)
    for (let left = ctx.times(1, 5); left > 0; left--) {
      await trial.transactions(20 + ctx.pick(100))
      await cluster?.kill()
      ctx.injected()
      await cluster?.start()
    }
    await trial.judge()
  },
})

export const leaderKilled = defineRow({
  row: '3',
  fault: 'kill -9 of the broker that leads partitions, of three; its restart',
  when: 'while records are being produced and consumed; the others take over, then the next one dies',
  runs: over([15, 18], ['kafka']),
  async run(ctx) {
    const trial = await ctx.trial({ ownKafka: { brokers: 3 } })
    const cluster = trial.kafka?.cluster
    const relay = trial.relay()
    trial.applier()
    await relay.heard(/^running$/)
    // three partitions over three brokers: whichever dies leads one of them
    for (let left = ctx.times(1, 4); left > 0; left--) {
      const node = 1 + ctx.pick(3)
      await trial.transactions(20 + ctx.pick(100))
      // or it may be the last one that has what was acknowledged, and nothing can go on without it
      await allInSync(trial)
      await cluster?.kill(node)
      ctx.injected()
      await trial.applied()
      await cluster?.start(node)
    }
    ctx.checked('events go on while a broker of three is down')
    await trial.judge()
  },
})
