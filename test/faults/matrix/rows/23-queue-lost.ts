import { cp, rm } from 'node:fs/promises'
import { explains } from '../halt.ts'
import { createTopic, deleteTopic, emptyTopic } from '../kafka-admin.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

const WENT_BACK = {
  code: 'MILLRACE_SLOT_MOVED',
  happened: /or the queue went back to an earlier state/,
  safe: /is safe/,
  command: /millrace resume --refill/,
}
const LOST_END = {
  code: 'MILLRACE_QUEUE_LOST_END',
  happened: /lost events of|is gone|the queue lost|follows .* but .* was read before it/,
  safe: /nothing was bridged.*the sinks keep/,
  command: /millrace teardown .*millrace init/,
}

/** What somebody does to the queue: `lose` is called when events have been acknowledged and applied that `keep` knew not of. */
interface Loss {
  readonly fault: string
  readonly queue: 'kafka' | 'local'
  /** the broker itself is at stake */
  readonly own?: true
  keep(trial: Trial): Promise<void>
  lose(trial: Trial): Promise<void>
}

const fileOf = (trial: Trial): string => (trial.pipeline.queue.kind === 'local' ? trial.pipeline.queue.path : '')
const FILES = ['', '-wal', '-shm']
const dataOf = (trial: Trial): string => trial.kafka?.cluster.data[0] as string

const LOSSES: readonly Loss[] = [
  {
    fault: 'the queue loses its acknowledged end: the broker comes back on an older copy of its log',
    queue: 'kafka',
    own: true,
    async keep(trial) {
      await trial.kafka?.cluster.stop()
      await cp(dataOf(trial), `${dataOf(trial)}.old`, { recursive: true })
      await trial.kafka?.cluster.start()
    },
    async lose(trial) {
      await trial.kafka?.cluster.kill()
      await rm(dataOf(trial), { recursive: true })
      await cp(`${dataOf(trial)}.old`, dataOf(trial), { recursive: true })
      await trial.kafka?.cluster.start()
    },
  },
  { fault: 'the topic is deleted', queue: 'kafka', keep: async () => {}, lose: async (trial) => void (await deleteTopic(trial)) },
  {
    fault: 'the topic is deleted and made again',
    queue: 'kafka',
    keep: async () => {},
    async lose(trial) {
      await deleteTopic(trial)
      await createTopic(trial)
    },
  },
  {
    fault: 'the queue loses its acknowledged end: its file is restored from an older copy',
    queue: 'local',
    async keep(trial) {
      for (const suffix of FILES) await cp(`${fileOf(trial)}${suffix}`, `${fileOf(trial)}.old${suffix}`).catch(() => {})
    },
    async lose(trial) {
      for (const suffix of FILES) await rm(`${fileOf(trial)}${suffix}`, { force: true })
      for (const suffix of FILES) await cp(`${fileOf(trial)}.old${suffix}`, `${fileOf(trial)}${suffix}`).catch(() => {})
    },
  },
]

export const endLost = LOSSES.flatMap(({ fault, queue, own, keep, lose }) =>
  (['stopped', 'running'] as const)
    // nobody replaces the file of a running process, which would go on with the one it has open
    .filter((when) => queue === 'kafka' || when === 'stopped')
    .map((when) =>
      defineRow({
        row: '23',
        fault,
        when: when === 'stopped' ? 'relay and applier stopped' : 'relay and applier running',
        runs: over([15, 18], [queue]),
        async run(ctx) {
          const trial = await ctx.trial(own ? { ownKafka: {} } : {})
          let relay = trial.relay()
          let applier = trial.applier()
          await applier.heard(/^running$/)
          const stop = (): Promise<unknown> => Promise.all([relay.kill('SIGTERM'), applier.kill('SIGTERM')])
          await trial.transactions(100)
          await trial.applied()
          await stop()
          await keep(trial)
          relay = trial.relay()
          applier = trial.applier()
          await trial.transactions(300)
          await trial.applied()
          if (when === 'stopped') await stop()
          await lose(trial)
          ctx.injected()
          if (when === 'stopped') {
            relay = trial.relay()
            applier = trial.applier()
          }
          const halt = await relay.halted(60_000)
          // all of the queue, the relay's state with it, may be older than the slot and no older than the source's copy
          explains(halt, halt.code === 'MILLRACE_SLOT_MOVED' ? WENT_BACK : LOST_END)
          ctx.checked('the relay halts before it would bridge the gap, and says so')
          await bridgedNothing(ctx, trial)
        },
      }),
    ),
)

/** What was confirmed before stays the last that was: the slot keeps everything after it for whoever mends the queue. */
async function bridgedNothing(ctx: RowContext, trial: Trial): Promise<void> {
  const { rows } = await trial.source.query(
    'select confirmed_flush_lsn < pg_current_wal_flush_lsn() as held from pg_replication_slots where slot_name = $1',
    [`millrace_${trial.pipeline.name}`],
  )
  if (rows[0]?.held !== true) throw new Error('the slot was confirmed to the end although the relay halted')
  ctx.checked('the slot keeps what was not relayed')
}

export const emptied = defineRow({
  row: '23',
  fault: 'retention empties quiet partitions',
  when: 'relay and applier stopped, running',
  runs: over([15, 18], ['kafka']),
  async run(ctx) {
    const trial = await ctx.trial()
    let relay = trial.relay()
    trial.applier()
    await relay.heard(/^running$/)
    for (let left = ctx.times(2, 6); left > 0; left--) {
      await trial.transactions(60)
      trial.workload.rest()
      await trial.caughtUp()
      await trial.settled()
      if (left % 2 === 0) await relay.kill()
      await emptyTopic(trial)
      ctx.injected()
      if (left % 2 === 0) relay = trial.relay()
      trial.workload.resume()
      await trial.applied()
    }
    ctx.checked('the chain goes on over the emptied log')
    await trial.judge({ trimmed: true })
  },
})

export const zombieLast = defineRow({
  row: '23',
  fault: 'a zombie relay’s late run is the last that stands in the log',
  when: 'a new relay finds its tails',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ ownSource: { wal_sender_timeout: '1500ms' } })
    trial.applier()
    let late = 0
    for (let left = ctx.times(1, 5); left > 0; left--) {
      const zombie = trial.relay({ failpoint: { name: 'planned', pass: 2 + ctx.pick(4), signal: 'SIGSTOP' } })
      await zombie.heard(/^stopped$/)
      const second = trial.relay()
      await second.heard(/^running$/)
      trial.workload.rest()
      await trial.caughtUp()
      await second.kill()
      const back = zombie.next(/^(standby|running)$/)
      zombie.signal('SIGCONT')
      await back
      await zombie.kill()
      late++
      ctx.injected()
      trial.workload.resume()
    }
    const { duplicates } = await trial.judge()
    if (duplicates < late) throw new Error(`${late} zombies wrote late, and only ${duplicates} duplicates stand in the topic`)
    ctx.checked('the tail is found by reading forward from the recorded one')
  },
})
