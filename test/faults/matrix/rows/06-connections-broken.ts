import { defineRow, over } from '../row.ts'
import { storm } from '../storm.ts'

export const connectionsCut = defineRow({
  row: '6',
  fault: 'connections to the source, the queue and the replica are reset, refused for a while, slowed',
  when: 'under load, each side at its own moments',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    const relay = trial.relay({ hasty: true })
    const applier = trial.applier({ hasty: true })
    await Promise.all([relay.heard(/^running$/), applier.heard(/^running$/)])
    const sides = [
      { every: 90, proxy: trial.source.proxy },
      { every: 60, proxy: trial.replica.proxy },
      // a member of a group that loses its coordinator holds the others up until its session has ended
      ...(trial.kafka?.fronts ?? []).map((proxy) => ({ every: 250, proxy })),
    ]
    await storm(
      ctx,
      ctx.times(5, 30),
      sides.map(({ every, proxy }) => ({
        every,
        strike() {
          // a reset that meets nobody is none
          if (proxy.connections() === 0) return
          const choice = ctx.random()
          proxy.restore()
          if (choice < 0.04) {
            proxy.refuse()
            setTimeout(() => proxy.restore(), 50 + ctx.pick(300))
          } else if (choice < 0.08) proxy.delay(1 + ctx.pick(20))
          else if (choice < 0.3) proxy.cut()
          else proxy.cutOne(ctx.random())
          ctx.injected()
        },
      })),
    )
    await trial.judge()
  },
})

/** ms: the server's own time-out frees the slot; the source's silence is noticed after 30 s, the sink's after its statement time-out */
const RECOVERY = 60_000

export const halfOpen = defineRow({
  row: '6',
  fault: 'half-open: every connection to the source, the queue and the replica falls silent for ever; new ones get through',
  when: 'busy, and idle',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ ownSource: { wal_sender_timeout: '5s' } })
    const relay = trial.relay()
    const applier = trial.applier()
    await Promise.all([relay.heard(/^running$/), applier.heard(/^running$/)])
    const proxies = [trial.source.proxy, trial.replica.proxy, ...(trial.kafka?.fronts ?? [])]
    for (const when of ctx.times(1, 2) === 1 ? ['busy'] : ['busy', 'idle']) {
      if (when === 'idle') {
        trial.workload.rest()
        await trial.caughtUp()
      } else await trial.transactions(50)
      const began = performance.now()
      for (const proxy of proxies) ctx.injected(proxy.strand())
      if (when === 'idle') trial.workload.resume()
      await trial.applied(RECOVERY)
      ctx.say(`${when}: recovered after ${Math.round((performance.now() - began) / 1_000)} s`)
    }
    ctx.checked(`events flow again within ${RECOVERY / 1_000} s`)
    await trial.judge()
  },
})
