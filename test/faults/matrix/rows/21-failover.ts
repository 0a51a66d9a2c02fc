import { formatLsn, parseLsn } from '../../../../src/core/position.ts'
import { latestState, type RelayState, statePrefix } from '../../../../src/core/relay-state.ts'
import { type PostgresPair, startPostgresPair } from '../../../support/postgres-pair.ts'
import { openQueue, query, topicOfOrders } from '../../parts.ts'
import type { Process } from '../../processes.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Trial } from '../trial.ts'

/** what becomes of the primary that is replaced */
const FATES = ['killed', 'stopped at once', 'left running'] as const

export const promotedInSync = defineRow({
  row: '21',
  fault: 'failover to a standby that has everything',
  when: 'under load; the old primary killed, stopped at once, or left running',
  runs: over([18], ['kafka', 'local']),
  async run(ctx) {
    const first = ctx.pick(FATES.length)
    for (let round = 0; round < ctx.times(1, FATES.length); round++) {
      const { pair, trial } = await begin(ctx, true)
      await pair.followed(slotOf(trial))
      await trial.transactions(50 + ctx.pick(150))
      const fate = FATES[(first + round) % FATES.length] as (typeof FATES)[number]
      if (fate !== 'left running') await pair.primary.stop(fate === 'killed' ? 'kill' : 'immediate')
      await pair.promote()
      pair.move()
      ctx.injected()
      ctx.say(`promoted, the old primary ${fate}`)
      await trial.transactions(150)
      await trial.judge()
      const { epochs } = await stateOf(trial)
      const left = await switchPoint(pair)
      if (epochs.map(({ epoch, timeline, from }) => `${epoch}/${timeline}/${formatLsn(from)}`).join() !== `1/1/0/0,2/2/${left}`)
        throw new Error(
          `the epochs are not those of the timelines: ${JSON.stringify(epochs.map(({ from, began, ...rest }) => rest))}`,
        )
      ctx.checked('a promoted standby that has everything continues the stream in a new epoch, from the switch point on')
      await pair.remove()
    }
  },
})

export const promotedLagging = defineRow({
  row: '21',
  fault: 'failover to a standby that lags behind what was relayed',
  when: 'under load, the last transactions held back from it',
  runs: over([18], ['kafka', 'local']),
  async run(ctx) {
    for (let round = 0; round < ctx.times(1, 3); round++) {
      const { pair, trial, relay } = await begin(ctx, false)
      await pair.followed(slotOf(trial))
      await pair.inSync()
      pair.wal.hold()
      await trial.transactions(30 + ctx.pick(100))
      await trial.applied()
      await pair.primary.stop('kill')
      await pair.promote()
      pair.move()
      ctx.injected()
      const left = await switchPoint(pair)
      await halts(relay, 'MILLRACE_SOURCE_CHANGED', `left timeline 1 at ${left}`, 'millrace resume --accept-gap')
      const ends = await endsOf(trial)
      await halts(
        trial.relay({ hasty: true }),
        'MILLRACE_SOURCE_CHANGED',
        `left timeline 1 at ${left}`,
        'millrace resume --accept-gap',
      )
      if ((await endsOf(trial)) !== ends) throw new Error('a halted relay went on publishing')
      ctx.checked('a promoted standby that lags halts the relay, which names the events that the new primary never had')
      await trial.workload.abandon()
      await pair.remove()
    }
  },
})

export const promotedWithoutSlot = defineRow({
  row: '21',
  fault: 'failover to a standby without the slot',
  when: 'under load; Postgres 15 has no slots that follow',
  runs: over([15], ['kafka', 'local']),
  async run(ctx) {
    for (let round = 0; round < ctx.times(1, 2); round++) {
      const { pair, trial, relay } = await begin(ctx, true)
      await trial.transactions(50 + ctx.pick(100))
      await pair.primary.stop('kill')
      await pair.promote()
      pair.move()
      ctx.injected()
      await halts(relay, 'MILLRACE_SLOT_MISSING', 'may be missing in the queue', 'millrace resume --refill')
      ctx.checked('a promoted standby without the slot halts the relay, which names the gap')
      await trial.workload.abandon()
      await pair.remove()
    }
  },
})

async function begin(
  ctx: RowContext,
  synchronous: boolean,
): Promise<{ readonly pair: PostgresPair; readonly trial: Trial; readonly relay: Process }> {
  const pair = await startPostgresPair({ version: ctx.postgres, synchronous })
  ctx.defer(() => pair.remove())
  const trial = await ctx.trial({ sourceUrl: pair.url() })
  trial.applier()
  const relay = trial.relay({ hasty: true })
  await trial.transactions(50)
  await trial.applied()
  return { pair, trial, relay }
}

async function halts(relay: Process, code: string, says: string, remedy: string): Promise<void> {
  await relay.ended
  const halt = await relay.halted()
  if (halt.code !== code || !halt.message.includes(says) || !halt.remedy?.includes(remedy))
    throw new Error(`the relay was to halt with ${code}, "${says}", "${remedy}": ${JSON.stringify(halt)}\n${relay.output()}`)
}

const slotOf = (trial: Trial): string => `millrace_${trial.pipeline.name}`

async function switchPoint(pair: PostgresPair): Promise<string> {
  const { rows } = await query(pair.standby.url(), (client) =>
    client.query("select pg_read_file('pg_wal/00000002.history') as history"),
  )
  return formatLsn(parseLsn(rows[0].history.split('\t')[1]))
}

async function stateOf(trial: Trial): Promise<RelayState> {
  const queue = await openQueue(trial.pipeline)
  try {
    const state = latestState(await queue.state.read(statePrefix(trial.pipeline.name)))
    if (state === null) throw new Error('there is no state')
    return state
  } finally {
    await queue.close()
  }
}

async function endsOf(trial: Trial): Promise<string> {
  const queue = await openQueue(trial.pipeline)
  try {
    return (await queue.ranges(topicOfOrders(trial.pipeline))).map(({ end }) => end).join()
  } finally {
    await queue.close()
  }
}
