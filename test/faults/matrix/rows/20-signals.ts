import { setTimeout as wait } from 'node:timers/promises'
import pg from 'pg'
import type { Program } from '../../../cli/millrace.ts'
import { eventually } from '../../../support/eventually.ts'
import type { Tap, TcpProxy } from '../../../support/tcp-proxy.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Side, Trial } from '../trial.ts'
import { configOf } from '../trial-config.ts'

/** s of `--drain`; a machine under load takes its time to end a process */
const DRAIN = 2
const GRACE = 8_000
const DRAINED = 0
const TIMED_OUT = 5

/** What the process of `millrace run` is in when the signal comes. */
interface State {
  readonly name: string
  readonly queue?: 'kafka'
  /** brings it about: once the process runs, or before it starts where it is one of its start */
  enter?(trial: Trial): Promise<Entered>
  /** of its start: the session has not begun, or no partition is claimed, when the signal comes */
  readonly starting?: true
}

interface Entered {
  undo(): unknown
  /** resolves when a process that starts is in it */
  reached?(trial: Trial, program: Program): Promise<unknown>
}

interface Broken {
  /** breaks what there is between the processes and a service, and what will be, until it is restored */
  readonly how: 'refuse' | 'hold'
  readonly proxy: TcpProxy
  tap(open: (() => Tap) | null): void
  /** whether what a client sends is the process's, and not of somebody else who looks on */
  isOurs(bytes: Buffer): boolean
}

/** of the processes that the signals are for, over Kafka */
const CLIENT_ID = 'to-be-signalled'

/** In the order in which they matter: the short form has the first of them. */
const STATES: readonly State[] = [
  { name: 'running' },
  { name: 'starting, at any moment', starting: true },
  { name: 'starting, the source refuses', starting: true, enter: broken((trial) => at(trial.source, 'refuse')) },
  { name: 'starting, the source is silent', starting: true, enter: broken((trial) => at(trial.source, 'hold')) },
  {
    name: 'starting, the session waits for its state in the source',
    starting: true,
    enter: locked(({ source }) => source, 'millrace.relay_state in access exclusive mode'),
  },
  { name: 'starting, the replica refuses', starting: true, enter: broken((trial) => at(trial.replica, 'refuse')) },
  { name: 'starting, the replica is silent', starting: true, enter: broken((trial) => at(trial.replica, 'hold')) },
  {
    name: 'starting, claiming partitions',
    starting: true,
    enter: locked(({ replica }) => replica, 'millrace.checkpoint in exclusive mode'),
  },
  {
    name: 'starting, the queue refuses',
    queue: 'kafka',
    starting: true,
    enter: broken((trial) => atQueue(trial, 'refuse')),
  },
  {
    name: 'starting, the queue is silent',
    queue: 'kafka',
    starting: true,
    enter: broken((trial) => atQueue(trial, 'hold')),
  },
  { name: 'the source refuses', enter: broken((trial) => at(trial.source, 'refuse')) },
  { name: 'the source is silent', enter: broken((trial) => at(trial.source, 'hold')) },
  { name: 'the replica refuses', enter: broken((trial) => at(trial.replica, 'refuse')) },
  { name: 'the replica is silent', enter: broken((trial) => at(trial.replica, 'hold')) },
  { name: 'the queue refuses', queue: 'kafka', enter: broken((trial) => atQueue(trial, 'refuse')) },
  { name: 'the queue is silent', queue: 'kafka', enter: broken((trial) => atQueue(trial, 'hold')) },
  {
    name: 'standing by',
    async enter(trial) {
      const first = trial.relay()
      await first.heard(/^(running|standby)$/)
      return { undo: () => first.kill('SIGTERM') }
    },
  },
]

const at = ({ proxy, tap }: Side, how: Broken['how']): Broken => ({ how, proxy, tap, isOurs: () => true })

function atQueue({ kafka }: Trial, how: Broken['how']): Broken {
  const [proxy] = kafka?.fronts ?? []
  if (kafka === null || proxy === undefined) throw new Error('not Kafka')
  return { how, proxy, tap: (open) => kafka.tap(open), isOurs: (bytes) => bytes.includes(CLIENT_ID) }
}

function broken(of: (trial: Trial) => Broken): NonNullable<State['enter']> {
  return async (trial) => {
    const { how, proxy, tap, isOurs } = of(trial)
    const dialled = Promise.withResolvers<void>()
    tap(() => (direction, bytes) => {
      if (direction === 'to-server' && isOurs(bytes)) dialled.resolve()
      return 'pass'
    })
    proxy[how]()
    return {
      undo() {
        tap(null)
        proxy.restore()
      },
      // one that is refused says so and tries again; one that hears nothing waits for an answer
      reached: (_, program) => (how === 'refuse' ? program.said(/trying again/) : dialled.promise),
    }
  }
}

function locked(of: (trial: Trial) => Side, what: string): NonNullable<State['enter']> {
  return async (trial) => {
    const side = of(trial)
    const holder = new pg.Client({ connectionString: side.directUrl })
    holder.on('error', () => {})
    await holder.connect()
    await holder.query(`begin; lock table ${what}`)
    return {
      undo: () => holder.end(),
      reached: () =>
        eventually(
          async () => {
            const { rows } = await side.query(
              "select 1 from pg_locks join pg_stat_activity using (pid) where not granted and application_name like 'millrace%' and datname = current_database()",
            )
            return rows.length > 0
          },
          { within: 60_000, what: `a process waits for ${what}` },
        ),
    }
  }
}

export const signals = defineRow({
  row: '20',
  fault: 'SIGTERM, and SIGTERM twice, to `millrace run`',
  when: 'starting, waiting at its start for each of its services and for locks in them, running, standing by; the source, the queue, the replica refusing or silent',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial()
    const rounds: Rounds = { ctx, trial, startMs: 0 }
    const states = STATES.filter(({ queue }) => queue === undefined || queue === ctx.queue)
    for (const state of states.slice(0, ctx.times(2, states.length))) {
      // without a service that holds it up a start is over soon: the moments are drawn
      const draws = state.starting && state.enter === undefined ? ctx.times(1, 4) : 1
      for (let left = draws; left > 0; left--) for (const twice of [false, true]) await endedInTime(rounds, state, twice)
    }
    ctx.checked(`one SIGTERM ends it within its deadline of ${DRAIN} s, with 0 or ${TIMED_OUT}; a second one ends it at once`)
    await trial.judge()
  },
})

/** What the states of a run share. */
interface Rounds {
  readonly ctx: RowContext
  readonly trial: Trial
  /** how long a start took that nothing held up */
  startMs: number
}

async function endedInTime(rounds: Rounds, state: State, twice: boolean): Promise<void> {
  const { ctx, trial } = rounds
  const { name, starting = false } = state
  const before = starting ? await state.enter?.(trial) : undefined
  const { queue } = configOf(trial.pipeline) as { readonly queue: object }
  const named = ctx.queue === 'kafka' ? { queue: { ...queue, clientId: CLIENT_ID } } : {}
  const program = await trial.millrace(['run', '--drain', `${DRAIN}s`], named)
  const started = performance.now()
  if (before?.reached !== undefined) await before.reached(trial, program)
  else if (starting) await wait(ctx.pick(rounds.startMs))
  else {
    await program.said(/relay session began|standing by/)
    rounds.startMs ||= performance.now() - started
  }
  const entered = before ?? (await state.enter?.(trial))
  // into what it does about it
  if (entered !== undefined) await wait(ctx.pick(500))
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
  const took = Math.round(performance.now() - began)
  await entered?.undo()
  if (ended === null) {
    program.signal('SIGKILL')
    const { stderr } = await program.finished
    throw new Error(
      `${name}: it had not ended ${took} ms after ${twice ? 'the second' : 'its'} SIGTERM:\n${stderr.slice(-4_000)}`,
    )
  }
  // before its handlers stand, and again when it has drained, a signal ends the process as it ends any
  const handlers =
    starting && before === undefined ? 'may stand' : twice && /draining/.test(ended.stderr) ? 'may be gone' : 'stand'
  const allowed = handlers === 'stand' ? [DRAINED, TIMED_OUT] : [DRAINED, TIMED_OUT, null]
  if (!allowed.includes(ended.code)) throw new Error(`${name}: it ended with ${ended.code}:\n${ended.stderr.slice(-4_000)}`)
  ctx.say(`${name}, ${twice ? 'twice' : 'once'}: ended with ${ended.code} after ${took} ms`)
}
