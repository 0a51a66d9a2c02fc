import { openQueue, topicOfOrders } from '../../parts.ts'
import { defineRow, over } from '../row.ts'
import { storm } from '../storm.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

export const company = defineRow({
  row: '26',
  fault: 'a second source publishes into the same topic, and a foreign producer’s records stand between',
  when: 'steady load, while both relays are killed',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const one = await ctx.trial({ topics: 'own', rate: 100 })
    const other = await ctx.trial({ topics: one, rate: 100 })
    const relays = [one, other].map((trial) => ({ trial, relay: trial.relay() }))
    one.applier()
    other.applier()
    await Promise.all(relays.map(({ relay }) => relay.heard(/^running$/)))
    const queue = await openQueue(one.pipeline)
    const foreign = await queue.publisher()
    ctx.defer(() => queue.close())
    const topic = topicOfOrders(one.pipeline)
    await storm(ctx, ctx.times(4, 20), [
      {
        every: 100,
        async strike() {
          const records = [
            { key: bytes(`foreign-${ctx.pick(100)}`), value: bytes('{"not":"ours"}'), headers: [] },
            // an order's own key, and headers of another producer's
            {
              key: bytes(`w${ctx.pick(8)}-${ctx.pick(12)}`),
              value: null,
              headers: [
                ['id', 'x'],
                ['type', 'Other'],
              ] as const,
            },
          ]
          await foreign.publish([{ topic, partition: ctx.pick(3), records }])
          ctx.injected(records.length)
        },
      },
      ...relays.map((at) => ({
        every: 3_000,
        async strike() {
          await at.relay.kill()
          ctx.injected()
          at.relay = at.trial.relay()
        },
      })),
    ])
    await Promise.all([one.judge(), other.judge()])
    ctx.checked('each source’s chain holds, and foreign records are passed over')
  },
})
