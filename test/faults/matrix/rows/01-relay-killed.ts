import type { Failpoint } from '../../../../src/pipeline/failpoint.ts'
import { defineRow, over } from '../row.ts'

/** these pass about once a second */
const SLOW: readonly Failpoint[] = ['state-written', 'confirmed']
const FAILPOINTS: readonly Failpoint[] = ['read', 'planned', 'sent', 'acked', 'state-written', 'confirmed']

export const relayKilledAtFailpoints = defineRow({
  row: '1',
  fault: 'kill -9 of the relay',
  when: 'at each of its failpoints, on its first and on later passes',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    trial.applier()
    const rounds = ctx.times(1, 6)
    for (let round = 0; round < rounds; round++)
      for (const name of round === 0 ? (['topic-recorded', ...FAILPOINTS] as const) : FAILPOINTS) {
        const later = ctx.pick(SLOW.includes(name) ? 3 : 6)
        const killed = trial.relay({ failpoint: { name, pass: 1 + (round === 0 ? 0 : later) } })
        const end = await killed.ended
        if (end.signal !== 'SIGKILL')
          throw new Error(`${name}: the relay ended otherwise: ${JSON.stringify(end)}\n${killed.output()}`)
        ctx.injected()
      }
    await trial.judge()
  },
})
