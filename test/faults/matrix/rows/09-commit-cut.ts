import type { Tap } from '../../../support/tcp-proxy.ts'
import { defineRow, over } from '../row.ts'

/** The name of a prepared statement, which only an apply has: what holds one is a transaction with its commit. */
const APPLY = /millrace_[0-9a-f]{32}\0/

export const commitCut = defineRow({
  row: '9',
  fault: "the sink's connection is cut: the request with its commit is lost, or the reply to it",
  when: 'every few batches',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ rate: 300 })
    trial.relay()
    trial.applier()
    await trial.applied()
    const cuts = { requests: 0, replies: 0 }
    let left = ctx.times(20, 240)
    const { promise: enough, resolve } = Promise.withResolvers<void>()
    const cut = (what: keyof typeof cuts): 'cut' => {
      cuts[what]++
      ctx.injected()
      if (--left === 0) {
        trial.replica.tap(null)
        resolve()
      }
      return 'cut'
    }
    trial.replica.tap((): Tap => {
      let batches = 1 + ctx.pick(3)
      let replyIsLost = false
      return (direction, bytes) => {
        if (left <= 0) return 'pass'
        if (direction === 'to-client') return replyIsLost ? cut('replies') : 'pass'
        if (!APPLY.test(bytes.toString('latin1')) || --batches > 0) return 'pass'
        if (ctx.pick(2) === 0) return cut('requests')
        replyIsLost = true
        return 'pass'
      }
    })
    // the connections that are there have no tap yet
    trial.replica.proxy.cut()
    await within(90_000, enough, () => `only ${cuts.requests + cuts.replies} cuts were made`)
    if (Math.min(cuts.requests, cuts.replies) === 0) throw new Error(`only one kind of cut was made: ${JSON.stringify(cuts)}`)
    await trial.judge()
    ctx.checked('commits whose reply was lost were found by reading the checkpoint again')
  },
})

export const requestTorn = defineRow({
  row: '9',
  fault: "the sink's connections are cut after some bytes: in the middle of a request, or of a reply",
  when: 'at a random byte',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ rate: 300 })
    trial.relay()
    trial.applier()
    await trial.applied()
    for (let left = ctx.times(10, 120); left > 0; left--) {
      const [bytes, direction] =
        ctx.pick(2) === 0 ? [ctx.pick(60_000), 'to-server' as const] : [ctx.pick(9_000), 'to-client' as const]
      const { proxy } = trial.replica
      await within(20_000, proxy.holdAfter(bytes, direction), () => 'nothing passed the proxy')
      proxy.cut()
      proxy.restore()
      ctx.injected()
    }
    await trial.judge()
  },
})

async function within(ms: number, promise: Promise<void>, what: () => string): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what()} within ${ms} ms`)), ms)
  })
  await Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
