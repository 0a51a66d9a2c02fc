import { setTimeout as wait } from 'node:timers/promises'
import { CREATE_DEBEZIUM_OUTBOX, DEBEZIUM_OUTBOX, insertEvent, MILLRACE_OUTBOX, type OutboxTable } from './backlog.ts'
import type { Contender, Course } from './contender.ts'
import { MEGABYTE } from './drain-report.ts'
import { millrace } from './millrace.ts'
import type { BenchOptions } from './options.ts'
import { processUsage } from './process-usage.ts'
import { topOfProfile } from './profile.ts'
import { watchReplica } from './replica-watch.ts'
import type { Figure, Line, Section } from './report.ts'
import { debezium } from './rivals/debezium.ts'
import { debeziumJars } from './rivals/debezium-jars.ts'
import { execute, openStage, type Stage } from './stage.ts'
import { quantile, spreadOf } from './statistics.ts'
import { writeSteadily } from './steady-writer.ts'

const PER_SECOND = 500
const WARM_UP_SECONDS = 10
/** few enough for most events to be updates, and each 2 s apart from the one before of its key */
const KEYS = 1_000
const CATCH_UP_MS = 60_000

interface Latency {
  readonly reached: number
  /** ms, in ascending order */
  readonly values: readonly number[]
  /** by role */
  readonly used: ReadonlyMap<string, { readonly cpuShare: number; readonly peakRssBytes: number }>
  readonly profiles: ReadonlyMap<string, string>
}

/** (d) From the commit's return at the writer to the row in the replica, at 500 transactions a second. */
export async function benchLatency(options: BenchOptions): Promise<Section> {
  const { rounds, profile, say } = options
  const jars = options.rivals ? await debeziumJars() : null
  const measured = new Map<string, Latency[]>()
  const profiles: string[] = []
  for (let round = 1; round <= rounds; round++) {
    // a new stage each: at its end a latency run leaves slots behind that would keep the servers at work
    const stage = await openStage(options)
    try {
      const turns: [string, OutboxTable, (course: Course) => Contender][] = [
        ['Millrace', MILLRACE_OUTBOX, (course) => millrace(stage, course, { outbox: MILLRACE_OUTBOX, profile })],
      ]
      if (jars !== null)
        turns.push(['Debezium and its JDBC sink', DEBEZIUM_OUTBOX, (course) => debezium(jars, stage, course, { poll: 1 })])
      for (const [who, outbox, enter] of round % 2 === 1 ? turns : turns.toReversed()) {
        const latency = await measure(stage, outbox, enter, options.seconds)
        measured.set(who, [...(measured.get(who) ?? []), latency])
        say(`  ${who}: p50 ${quantile(latency.values, 0.5).toFixed(1)} ms, p99 ${quantile(latency.values, 0.99).toFixed(1)} ms`)
        if (profiles.length === 0)
          for (const [role, file] of latency.profiles)
            profiles.push(`where the ${role}'s time went:`, ...(await topOfProfile(file)))
      }
    } finally {
      await stage.close()
    }
  }
  const ours = measured.get('Millrace') ?? []
  const of = (share: number) => spreadOf(ours.map(({ values }) => quantile(values, share)))
  return {
    key: 'd',
    title: `commit to visible in the replica, at ${PER_SECOND} transactions a second, through Kafka`,
    method: `An open-loop writer commits one event a transaction; the clock of an event starts when its commit has returned and stops when a logical slot on the replica sends its row (which is 0.1 to 0.3 ms late). ${WARM_UP_SECONDS} s go before, ${options.seconds} s are measured.`,
    lines: [...measured].map(([who, latencies]) => line(who, latencies)),
    verdicts: [
      { what: 'p50', value: of(0.5), unit: ' ms', target: { atMost: 10 } },
      { what: 'p99', value: of(0.99), unit: ' ms', target: { atMost: 50 } },
    ],
    notes: profiles,
  }
}

async function measure(
  stage: Stage,
  outbox: OutboxTable,
  enter: (course: Course) => Contender,
  seconds: number,
): Promise<Latency> {
  const name = outbox === MILLRACE_OUTBOX ? 'ours' : 'theirs'
  const source = await stage.sourceDatabase(name)
  const replica = await stage.replicaDatabase(name)
  if (outbox === DEBEZIUM_OUTBOX) await execute(source, CREATE_DEBEZIUM_OUTBOX)
  const contender = enter({ name, source, replica })
  await contender.prepare()

  const clock = new EventClock((WARM_UP_SECONDS + seconds) * PER_SECOND)
  const watch = await watchReplica(replica, (seq, at) => clock.shown(seq, at))
  const running = await contender.start()
  let latency: Omit<Latency, 'profiles'>
  let profiles: Latency['profiles']
  try {
    const usedBefore = running.tested.map(({ pid }) => processUsage(pid))
    const began = performance.now()
    const reached = await writeSteadily({
      url: source,
      statement: insertEvent(outbox),
      keys: KEYS,
      perSecond: PER_SECOND,
      count: clock.count,
      committed: (seq, at) => clock.committed(seq, at),
    })
    for (const deadline = performance.now() + CATCH_UP_MS; clock.missing > 0; await wait(100)) {
      await running.assertAlive()
      if (performance.now() > deadline) throw new Error(`${clock.missing} of ${clock.count} events did not show in the replica`)
    }
    const elapsed = (performance.now() - began) / 1_000
    const used = running.tested.map(({ role, pid }, index) => {
      const after = processUsage(pid)
      const cpuShare = (after.cpuSeconds - (usedBefore[index]?.cpuSeconds ?? 0)) / elapsed
      return [role, { cpuShare, peakRssBytes: after.peakRssBytes }] as const
    })
    latency = { reached, values: clock.latencies(WARM_UP_SECONDS * PER_SECOND), used: new Map(used) }
  } finally {
    await watch.stop()
    profiles = await running.stop()
  }
  return { ...latency, profiles }
}

/** When each event was committed and shown, ms by `performance.now()`; events count from 1. */
class EventClock {
  readonly count: number
  missing: number
  readonly #committed: Float64Array
  readonly #shown: Float64Array

  constructor(count: number) {
    this.count = count
    this.missing = count
    this.#committed = new Float64Array(count + 1)
    this.#shown = new Float64Array(count + 1)
  }

  committed(seq: number, at: number): void {
    this.#committed[seq] = at
  }

  /** Who fell behind may write the last event of a key alone: those before it show with it. */
  shown(last: number, at: number): void {
    for (let seq = last; seq > 0 && this.#shown[seq] === 0; seq -= KEYS) {
      this.#shown[seq] = at
      this.missing--
    }
  }

  /** of the events after the first `skip`, ms in ascending order */
  latencies(skip: number): readonly number[] {
    return Array.from(this.#shown.subarray(skip + 1), (at, index) => at - (this.#committed[skip + 1 + index] ?? 0)).sort(
      (a, b) => a - b,
    )
  }
}

function line(who: string, latencies: readonly Latency[]): Line {
  const of = (what: string, unit: string, figure: (latency: Latency) => number): Figure => ({
    what,
    unit,
    value: spreadOf(latencies.map(figure)),
  })
  const roles = [...(latencies[0]?.used.keys() ?? [])]
  return {
    who,
    figures: [
      of('p50', ' ms', ({ values }) => quantile(values, 0.5)),
      of('p99', ' ms', ({ values }) => quantile(values, 0.99)),
      of('max', ' ms', ({ values }) => quantile(values, 1)),
      of('reached', ' tx/s', ({ reached }) => reached),
      ...roles.flatMap((role) => [
        of(`CPU (${role})`, ' cores', ({ used }) => used.get(role)?.cpuShare ?? Number.NaN),
        of(`peak RSS (${role})`, ' MB', ({ used }) => (used.get(role)?.peakRssBytes ?? Number.NaN) / MEGABYTE),
      ]),
    ],
  }
}
