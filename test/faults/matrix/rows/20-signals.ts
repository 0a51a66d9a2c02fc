import { setTimeout as wait } from 'node:timers/promises'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

/** s of `--drain`; a machine under load takes its time to end a process */
const DRAIN = 4
const GRACE = 8_000
const DRAINED = 0
const TIMED_OUT = 5

/** What the processes of `millrace run` are in when the signal comes. */
interface State {
  readonly name: string
  readonly queue?: 'kafka'
  /** brings it about, once the process runs; what it returns undoes it */
  enter?(trial: Trial): Promise<() => unknown>
  /** the signal comes at a moment of the start, before the process says that it runs */
  readonly starting?: true
}

const STATES: readonly State[] = [
  { name: 'starting', starting: true },
  { name: 'running' },
  { name: 'the source refuses', enter: broken(({ source }) => [source.proxy.refuse, source.proxy.restore]) },
  { name: 'the source is silent', enter: broken(({ source }) => [source.proxy.hold, source.proxy.restore]) },
  { name: 'the replica refuses', enter: broken(({ replica }) => [replica.proxy.refuse, replica.proxy.restore]) },
  { name: 'the replica is silent', enter: broken(({ replica }) => [replica.proxy.hold, replica.proxy.restore]) },
  {
    name: 'the queue refuses',
    queue: 'kafka',
    enter: broken(({ kafka }) => [() => kafka?.fronts[0]?.refuse(), () => kafka?.fronts[0]?.restore()]),
  },
  {
    name: 'the queue is silent',
    queue: 'kafka',
    enter: broken(({ kafka }) => [() => kafka?.fronts[0]?.hold(), () => kafka?.fronts[0]?.restore()]),
  },
  {
    name: 'standing by',
    async enter(trial) {
      const first = trial.relay()
      await first.heard(/^(running|standby)$/)
      return () => first.kill('SIGTERM')
    },
  },
]

function broken(of: (trial: Trial) => readonly [() => void, () => void]): NonNullable<State['enter']> {
  return async (trial) => {
    const [breaks, mends] = of(trial)
    breaks()
    // into the retries
    await wait(500)
    return mends
  }
}

export const signals = defineRow({
  row: '20',
  fault: 'SIGTERM, and SIGTERM twice, to `millrace run`',
  when: 'starting, running, standing by; the source, the queue, the replica refusing or silent',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    const states = STATES.filter(({ queue }) => queue === undefined || queue === ctx.queue)
    for (const state of states.slice(0, ctx.times(2, states.length)))
      for (const twice of [false, true]) await endedInTime(ctx, trial, state, twice)
    ctx.checked(`one SIGTERM ends it within its deadline of ${DRAIN} s, with 0 or ${TIMED_OUT}; a second one ends it at once`)
    await trial.judge()
  },
})

async function endedInTime(ctx: RowContext, trial: Trial, state: State, twice: boolean): Promise<void> {
  const program = await trial.millrace(['run', '--drain', `${DRAIN}s`])
  if (state.starting) await wait(600 + ctx.pick(1_500))
  else await program.said(state.name === 'standing by' ? /relay session began|standing by/ : /relay session began/)
  const mend = (await state.enter?.(trial)) ?? (() => {})
  const began = performance.now()
  program.signal('SIGTERM')
  ctx.injected()
  if (twice) {
    await Promise.race([wait(50 + ctx.pick(300)), program.finished])
    program.signal('SIGTERM')
    ctx.injected()
  }
  const deadline = (twice ? 0 : DRAIN * 1_000) + GRACE
  const ended = await Promise.race([program.finished, wait(deadline, null, { ref: false })])
  await mend()
  const took = Math.round(performance.now() - began)
  if (ended === null) throw new Error(`${state.name}: it had not ended ${took} ms after ${twice ? 'the second' : 'its'} SIGTERM`)
  // before its handlers stand, a signal ends the process as it ends any
  const allowed = state.starting ? [DRAINED, TIMED_OUT, null] : [DRAINED, TIMED_OUT]
  if (!allowed.includes(ended.code)) throw new Error(`${state.name}: it ended with ${ended.code}:\n${ended.stderr.slice(-4_000)}`)
  ctx.say(`${state.name}, ${twice ? 'twice' : 'once'}: ended with ${ended.code} after ${took} ms`)
}
