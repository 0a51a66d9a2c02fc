import type { Failpoint } from '../../../../src/pipeline/failpoint.ts'
import type { Process } from '../../processes.ts'
import { recover } from '../recover.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

const FAILPOINTS: readonly Failpoint[] = ['read', 'planned', 'sent', 'acked', 'state-written', 'confirmed']
const MOMENTS = ['before', 'during', 'after'] as const

/** What may happen at a step; each leaves a pipeline that can heal. */
type Act = (ctx: RowContext, trial: Trial, alive: Alive) => Promise<void>
interface Alive {
  relays: Process[]
  appliers: Process[]
}

const one = <T>(ctx: RowContext, of: readonly T[]): T => of[ctx.pick(of.length)] as T

const ACTS: Readonly<Record<string, Act>> = {
  async 'kill a relay'(ctx, trial, alive) {
    await alive.relays.shift()?.kill(ctx.random() < 0.8 ? 'SIGKILL' : 'SIGTERM')
    if (alive.relays.length === 0) alive.relays.push(trial.relay())
  },
  async 'kill an applier'(ctx, trial, alive) {
    await alive.appliers.shift()?.kill(ctx.random() < 0.5 ? 'SIGKILL' : 'SIGTERM')
    if (alive.appliers.length === 0) alive.appliers.push(trial.applier())
  },
  async 'a relay that dies at a failpoint'(ctx, trial, alive) {
    alive.relays.unshift(trial.relay({ failpoint: { name: one(ctx, FAILPOINTS), pass: 1 + ctx.pick(5) } }))
    await alive.relays.pop()?.kill()
  },
  async 'an applier that dies at its commit'(ctx, trial, alive) {
    alive.appliers.unshift(trial.applier({ kill: { when: one(ctx, MOMENTS), pass: 1 + ctx.pick(5) } }))
  },
  async 'a second relay'(_ctx, trial, alive) {
    if (alive.relays.length < 2) alive.relays.push(trial.relay())
  },
  async 'a second applier'(_ctx, trial, alive) {
    if (alive.appliers.length < 3) alive.appliers.push(trial.applier())
  },
  async 'suspend or wake a relay'(ctx, _trial, alive) {
    const relay = alive.relays[0]
    relay?.signal('SIGCONT')
    if (ctx.random() < 0.6) relay?.signal('SIGSTOP')
  },
  async 'suspend or wake an applier'(ctx, _trial, alive) {
    const applier = alive.appliers[0]
    applier?.signal('SIGCONT')
    if (ctx.random() < 0.6) applier?.signal('SIGSTOP')
  },
  'cut the source': async (ctx, { source }) => (ctx.random() < 0.5 ? source.proxy.cut() : void source.proxy.cutOne(ctx.random())),
  'cut the replica': async (ctx, { replica }) =>
    ctx.random() < 0.5 ? replica.proxy.cut() : void replica.proxy.cutOne(ctx.random()),
  async 'cut the queue'(ctx, { kafka }) {
    for (const front of kafka?.fronts ?? []) front.cutOne(ctx.random())
  },
  'refuse the replica': async (_ctx, { replica }) => replica.proxy.refuse(),
  'refuse the source': async (_ctx, { source }) => source.proxy.refuse(),
  async 'swallow what the queue says'(_ctx, { kafka }) {
    for (const front of kafka?.fronts ?? []) front.hold('to-client')
  },
  'strand the replica': async (_ctx, { replica }) => void replica.proxy.strand(),
  async 'kill -9 Postgres'(_ctx, { source }) {
    if (source.server === null) return
    await source.server.stop('kill')
    await recover(source.server)
  },
  async 'kill -9 the broker'(_ctx, { kafka }) {
    if (kafka === null) return
    await kafka.cluster.kill()
    await kafka.cluster.start()
  },
  async 'mend the connections'(_ctx, { source, replica, kafka }) {
    for (const proxy of [source.proxy, replica.proxy, ...(kafka?.fronts ?? [])]) proxy.restore()
  },
}

export const randomSchedule = defineRow({
  row: '27',
  fault: 'a random schedule of the other rows’ faults',
  when: 'one after the other, overlapping, for as long as it lasts',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ ownSource: { wal_sender_timeout: '3s' }, ownKafka: {} })
    const alive: Alive = { relays: [trial.relay()], appliers: [trial.applier()] }
    const schedule: string[] = []
    const names = Object.keys(ACTS)
    try {
      await alive.relays[0]?.heard(/^running$/)
      for (let left = ctx.times(10, 40); left > 0; left--) {
        const name = one(ctx, names)
        schedule.push(name)
        await (ACTS[name] as Act)(ctx, trial, alive)
        ctx.injected()
        await trial.transactions(ctx.pick(30))
        // nothing stays broken for long, or all that follows would meet a standstill
        if (ctx.random() < 0.5) await ACTS['mend the connections']?.(ctx, trial, alive)
      }
      await trial.judge()
    } catch (error) {
      throw new Error(`after ${schedule.join(', ')}:\n${(error as Error).message}`, { cause: error })
    }
  },
})
