import { readFile } from 'node:fs/promises'
import { setTimeout as wait } from 'node:timers/promises'
import { openQueue, topicOfOrders } from '../../parts.ts'
import { judgeReplica, judgeTopic, STREAM_INVARIANTS } from '../../verdict.ts'
import type { Committed } from '../../workload.ts'
import { defineRow, over } from '../row.ts'
import type { Trial } from '../trial.ts'

const STALL = 20_000
/** a delay of each piece of at most 64 KiB, so about 1 MB/s (ms) */
const SLOW = 50
/** what docs/benchmarks.md promises for each (bytes) */
const RELAY_BUDGET = 320_000_000
const APPLIER_BUDGET = 256_000_000

export const stalled = defineRow({
  row: '10',
  fault: 'the sink does not answer for 20 s, and the way to the broker is slow',
  when: 'during a transaction of 100,000 events, with wal_sender_timeout = 5s',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ quiet: true, ownSource: { wal_sender_timeout: '5s' } })
    const relay = trial.relay()
    const applier = trial.applier()
    await relay.heard(/^running/)
    await applier.heard(/^running/)
    const walSender = await walSenderOf(trial)
    await emit(trial, ctx.times(20_000, 100_000))

    trial.replica.proxy.hold()
    for (const front of trial.kafka?.fronts ?? []) front.delay(SLOW)
    ctx.injected()
    await wait(STALL)
    const left = await walSenderOf(trial)
    trial.replica.proxy.restore()
    for (const front of trial.kafka?.fronts ?? []) front.restore()
    if (left !== walSender) throw new Error(`the walsender was ${walSender}, and is ${left}`)
    ctx.checked('the walsender was not ended')

    const committed = await committedIn(trial)
    const queue = await openQueue(trial.pipeline)
    ctx.defer(() => queue.close())
    await trial.caughtUp()
    const verdict = await judgeTopic(queue, topicOfOrders(trial.pipeline), committed)
    const { missing, violations } = verdict
    if (missing > 0 || violations.length > 0) throw new Error(`${missing} missing; ${violations.slice(0, 5).join('\n')}`)
    if ((await walSenderOf(trial)) !== walSender) throw new Error('the walsender was ended')
    await trial.settled()
    const differences = await judgeReplica(trial.replica.directUrl, committed)
    if (differences.length > 0) throw new Error(differences.slice(0, 5).join('; '))
    ctx.judged({ ...verdict, events: committed.ids.size, unknownOutcomes: 0, invariants: STREAM_INVARIANTS })
    const peaks = { relay: await peakMemory(relay.pid), applier: await peakMemory(applier.pid) }
    ctx.say(`peak memory: relay ${peaks.relay >> 20} MiB, applier ${peaks.applier >> 20} MiB`)
    if (peaks.relay > RELAY_BUDGET) throw new Error(`I9: the relay took ${peaks.relay} bytes`)
    if (peaks.applier > APPLIER_BUDGET) throw new Error(`I9: the applier took ${peaks.applier} bytes`)
    ctx.checked('I9: at most 320 MB for the relay and 256 MB for the applier')
  },
})

async function walSenderOf(trial: Trial): Promise<number | null> {
  const { rows } = await trial.source.query('select active_pid from pg_replication_slots where slot_name = $1', [
    `millrace_${trial.pipeline.name}`,
  ])
  return rows[0]?.active_pid ?? null
}

async function emit(trial: Trial, events: number): Promise<void> {
  await trial.source.query(
    `select count(millrace.emit(aggregate_type => 'order', aggregate_id => 'o' || g % 997, type => 'OrderChanged',
       payload => format('{"id":"o%s","version":%s,"body":"%s","amount":1.50}', g % 997, g, repeat('b', 200))::json))
     from generate_series(1, $1::int) g`,
    [events],
  )
}

/** The outbox in the order it was written: one transaction, so the order of its rows. */
async function committedIn(trial: Trial): Promise<Committed> {
  const { rows } = await trial.source.query(
    "select id::text, aggregate_id as key, payload->>'version' as version, payload->>'body' as body, payload->>'amount' as amount from millrace.outbox order by ctid",
  )
  const idsByKey = new Map<string, string[]>()
  for (const { id, key } of rows) {
    const own = idsByKey.get(key)
    if (own === undefined) idsByKey.set(key, [id])
    else own.push(id)
  }
  return {
    idsByKey,
    ids: new Set(rows.map(({ id }) => id)),
    rolledBack: new Set(),
    rows: new Map(rows.map(({ key, version, body, amount }) => [key, { version, body, amount }])),
    unknownOutcomes: 0,
  }
}

/** the most that was ever resident (bytes) */
async function peakMemory(pid: number): Promise<number> {
  const kilobytes = /^VmHWM:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kilobytes) * 1024
}
