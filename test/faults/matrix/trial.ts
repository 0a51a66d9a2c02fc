import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type pg from 'pg'
import type { PostgresServer } from '../../../src/cli/demo/postgres-server.ts'
import { millrace, type Program } from '../../cli/millrace.ts'
import { eventually } from '../../support/eventually.ts'
import type { KafkaOptions } from '../../support/kafka/cluster.ts'
import { startTcpProxy, type Tap, type TcpProxy } from '../../support/tcp-proxy.ts'
import type { ApplierFaults } from '../applier-process.ts'
import { openQueue, type Pipeline, prepare, topicOfOrders } from '../parts.ts'
import { type Process, startProcess } from '../processes.ts'
import type { RelayFaults } from '../relay-process.ts'
import { judgeReplica, judgeTopic, type TopicVerdict } from '../verdict.ts'
import { type Committed, startWorkload, type Workload } from '../workload.ts'
import { recover } from './recover.ts'
import type { Judged, Run } from './row.ts'
import { type FrontedKafka, once, type Stage } from './stage.ts'
import { configFingerprint, configOf } from './trial-config.ts'
import { type FirstEvent, firstEvent, startWatch, type Watch } from './watch.ts'

export interface TrialOptions {
  /** a source server of the trial's own, with these settings: to kill and restart, or to set up otherwise. Default: shared */
  readonly ownSource?: true | Readonly<Record<string, string>>
  /** a source server of the row's, at this url */
  readonly sourceUrl?: string
  readonly ownReplica?: true | Readonly<Record<string, string>>
  /** where such a server keeps its data, and the embedded queue its file: a small disk. Default: the system's temporary folder */
  readonly sourceFolder?: string
  readonly replicaFolder?: string
  readonly queueFolder?: string
  /** a Kafka of the trial's own; without effect over the embedded queue. Default: shared, one broker */
  readonly ownKafka?: KafkaOptions
  /** transactions a second, and events of the occasional large transaction */
  readonly rate?: number
  readonly largeTransaction?: number
  readonly writers?: number
  /** its topics are another's too: `own`, for the first of them, or those of that trial, in its queue */
  readonly topics?: 'own' | Trial
  /** no writers: the row writes, and must not `judge` */
  readonly quiet?: true
}

/** One pipeline under faults: its services behind proxies, its writers, its processes, and the judge at the end. */
export interface Trial {
  /** as the processes are told it: every connection through a proxy */
  readonly pipeline: Pipeline
  readonly source: Side
  readonly replica: Side
  /** null over the embedded queue */
  readonly kafka: FrontedKafka | null
  /** @throws in a quiet trial */
  readonly workload: Workload
  relay(options?: RelayFaults): Process
  /** the command line, over a config that says what the processes are told; ends with the trial */
  millrace(args: readonly string[], changed?: object): Promise<Program>
  applier(options?: ApplierFaults): Process
  /** resolves after so many more transactions of the writers */
  transactions(count: number, within?: number): Promise<void>
  /** resolves when the sink has applied something that was committed after the call */
  applied(within?: number): Promise<void>
  /** resolves when what is committed by now is confirmed to the source: the topic holds it */
  caughtUp(within?: number): Promise<void>
  /** resolves when the sink stands at the end of the topic */
  settled(within?: number): Promise<void>
  /** what all processes said, for a message */
  output(): string
  /**
   * Heals all (proxies restored, servers started, one relay and one applier running), stops the writers and holds topic and
   * replica against what they know, I1 to I8; adds it to the evidence. Once, at the end.
   */
  judge(options?: JudgeOptions): Promise<TopicVerdict>
}

export interface JudgeOptions {
  readonly within?: number
  /** retention took records: the topic cannot be judged as a whole, I2 and I6 only by what the replica shows in the end */
  readonly trimmed?: boolean
}

/** A database of the trial: `url` goes through the proxy, `query` does not. */
export interface Side {
  readonly url: string
  readonly directUrl: string
  readonly proxy: TcpProxy
  /** null where it is a database of the shared server */
  readonly server: PostgresServer | null
  query(text: string, values?: readonly unknown[]): Promise<pg.QueryResult>
  /** looks at what passes the proxy until it is set to null; each new connection gets a tap of its own */
  tap(open: (() => Tap) | null): void
}

const INVARIANTS = ['I1', 'I2', 'I3', 'I4', 'I5', 'I6', 'I7', 'I8', 'I10']
const HEAL_WITHIN = 90_000
let count = 0

export interface TrialDeps extends Run {
  readonly stage: Stage
  readonly seed: number
  defer(end: () => Promise<unknown>): void
  add(evidence: Judged): void
}

export async function openTrial(deps: TrialDeps, options: TrialOptions = {}): Promise<Trial> {
  const { stage, defer } = deps
  const source = await openSide(deps, options.ownSource, { at: options.sourceUrl, folder: options.sourceFolder })
  const replica = await openSide(deps, options.ownReplica, { folder: options.replicaFolder })
  const folder = await mkdtemp(join(tmpdir(), 'millrace-matrix-'))
  defer(() => rm(folder, { recursive: true, force: true }))
  const others = typeof options.topics === 'object' ? options.topics : null
  let kafka: FrontedKafka | null = others?.kafka ?? null
  if (deps.queue === 'kafka' && others === null) {
    const opened = options.ownKafka === undefined ? await stage.kafka() : await stage.ownKafka(options.ownKafka)
    kafka = opened
    defer(async () => {
      opened.tap(null)
      for (const front of opened.fronts) front.restore()
      if (options.ownKafka !== undefined) await opened.remove()
    })
  }
  const name = `x${process.pid}_${++count}`
  const ownQueue: Pipeline['queue'] =
    kafka === null
      ? { kind: 'local', path: join(options.queueFolder ?? folder, 'queue.db') }
      : { kind: 'kafka', brokers: kafka.brokers }
  const pipeline: Pipeline = {
    name,
    sourceUrl: source.url,
    replicaUrl: replica.url,
    queue: others?.pipeline.queue ?? ownQueue,
    ...(options.topics !== undefined && { beside: others?.pipeline.name ?? name }),
  }
  const mapped: Pipeline = { ...pipeline, fingerprint: configFingerprint(pipeline) }
  const direct: Pipeline = { ...mapped, sourceUrl: source.directUrl, replicaUrl: replica.directUrl }
  await prepare(direct)

  const processes: { readonly kind: 'relay' | 'applier'; readonly process: Process; readonly lasting: boolean }[] = []
  const start = (kind: 'relay' | 'applier', argument: RelayFaults & ApplierFaults): Process => {
    const process = startProcess(`${kind}-process.ts`, { pipeline: mapped, ...argument })
    // one that is to kill itself may be about to
    processes.push({ kind, process, lasting: argument.failpoint === undefined && argument.kill === undefined })
    return process
  }
  const programs: Program[] = []
  const output = (): string => processes.map(({ process }) => process.output()).join('\n')
  let workload: Workload | null = null
  if (options.quiet === undefined) {
    const { rate, largeTransaction, writers } = options
    workload = startWorkload({
      url: direct.sourceUrl,
      seed: deps.seed,
      ...(rate !== undefined && { rate }),
      ...(largeTransaction !== undefined && { largeTransaction }),
      ...(writers !== undefined && { writers }),
    })
  }
  const watch = startWatch(direct)
  defer(async () => {
    for (const program of programs) program.signal('SIGKILL')
    await Promise.all([...processes.map(({ process }) => process.kill()), ...programs.map(({ finished }) => finished)])
    await workload?.abandon()
    await watch.stop()
  })

  const writing = (): Workload => {
    if (workload === null) throw new Error('a quiet trial has no writers')
    return workload
  }
  const heal = async (): Promise<void> => {
    for (const side of [source, replica]) {
      side.tap(null)
      side.proxy.restore()
      if (side.server !== null && side.server.pid === 0) await recover(side.server)
    }
    kafka?.tap(null)
    for (const [index, front] of (kafka?.fronts ?? []).entries()) {
      front.restore()
      if (kafka?.cluster.pid(index + 1) === 0) await kafka.cluster.start(index + 1)
    }
    for (const { process } of processes) process.signal('SIGCONT')
    for (const kind of ['relay', 'applier'] as const)
      if (!processes.some((one) => one.kind === kind && one.lasting && one.process.alive)) start(kind, {})
  }

  return {
    pipeline: mapped,
    source,
    replica,
    kafka,
    get workload() {
      return writing()
    },
    relay: (faults = {}) => start('relay', faults),
    applier: (faults = {}) => start('applier', faults),
    async millrace(args, changed = {}) {
      const config = `millrace-${randomUUID()}.json`
      await writeFile(join(folder, config), JSON.stringify({ ...configOf(mapped), ...changed }))
      const program = millrace([...args, '--config', config], { cwd: folder })
      programs.push(program)
      return program
    },
    output,
    async transactions(more, within = 60_000) {
      const wanted = writing().transactions + more
      await eventually(async () => writing().transactions >= wanted, { within, what: `${more} more transactions` })
    },
    async applied(within = 60_000) {
      const { rows } = await source.query("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as at")
      const wanted = BigInt(rows[0].at).toString(16).padStart(16, '0')
      await eventually(
        async () => {
          const found = await replica.query('select max(position) as position from millrace.checkpoint')
          return String(found.rows[0].position).slice(9, 25) > wanted
        },
        { within, what: 'the sink to go on' },
      )
    },
    async caughtUp(within = 60_000) {
      const { rows } = await source.query('select pg_current_wal_flush_lsn()::text as lsn')
      await eventually(() => confirmedTo(direct, rows[0].lsn), { within, what: 'the relay to catch up' })
    },
    async settled(within = 60_000) {
      const queue = await openQueue(direct)
      try {
        await eventuallySlow(
          async () => {
            const ends = (await queue.ranges(topicOfOrders(direct))).map(({ end }) => String(end)).join()
            const { rows } = await replica.query('select "offset" from millrace.checkpoint order by partition')
            return rows.map(({ offset }) => String(offset ?? 0)).join() === ends
          },
          within,
          'the sink to stand at the end of the topic',
        )
      } finally {
        await queue.close()
      }
    },
    async judge({ within = HEAL_WITHIN, trimmed = false } = {}) {
      await heal()
      const committed = await writing().stop()
      const { rows } = await source.query('select pg_current_wal_flush_lsn()::text as lsn')
      const verdict = await judge({ direct, committed, end: rows[0].lsn, watch, within, trimmed, deps })
      await Promise.all(processes.map(({ process }) => process.kill('SIGTERM')))
      return verdict
    },
  }
}

async function judge(options: {
  readonly direct: Pipeline
  readonly committed: Committed
  /** of the log, when the writers had stopped */
  readonly end: string
  readonly watch: Watch
  readonly within: number
  readonly trimmed: boolean
  readonly deps: TrialDeps
}): Promise<TopicVerdict> {
  const { direct, committed, end, watch, within, trimmed, deps } = options
  const topic = topicOfOrders(direct)
  const queue = await openQueue(direct)
  try {
    await eventuallySlow(() => confirmedTo(direct, end), within, 'the slot to be confirmed up to what the writers wrote (I10)')
    const events = new Map<number, FirstEvent[]>()
    const verdict = await judgeTopic(queue, topic, committed, {
      source: direct.beside === undefined ? undefined : direct.name,
      first(event, partition) {
        const own = events.get(partition)
        if (own) own.push(firstEvent(event))
        else events.set(partition, [firstEvent(event)])
      },
    })
    // the first record that is left follows one that is not; so a trimmed log is broken at most once a partition
    const violations = trimmed
      ? verdict.violations.filter((said) => !said.includes('but null stands before it'))
      : [...verdict.violations]
    if (verdict.missing > 0 && !trimmed)
      violations.push(`I2: ${verdict.missing} of ${committed.ids.size} committed events are not in the topic`)
    let differences: readonly string[] = []
    await eventuallySlow(
      async () => {
        differences = await judgeReplica(direct.replicaUrl, committed)
        return differences.length === 0
      },
      violations.length === 0 ? within : 1_000,
      () => `the replica to be equal (I7, I8): ${differences.slice(0, 10).join('; ')}`,
    ).catch((error: Error) => violations.push(error.message))
    violations.push(...(await watch.stop()), ...(trimmed ? [] : watch.judgeRows(events)))
    if (watch.looks.rows === 0) violations.push('I6 was never looked at')
    if (violations.length > 0)
      throw new Error(
        `${violations.slice(0, 12).join('\n')}\n${violations.length} violations; topic ${JSON.stringify({ ...verdict, violations: [] })}`,
      )
    deps.add({
      events: committed.ids.size,
      partitions: verdict.partitions,
      duplicates: verdict.duplicates,
      unknownOutcomes: committed.unknownOutcomes,
      invariants: trimmed ? INVARIANTS.filter((name) => name !== 'I2' && name !== 'I6') : INVARIANTS,
    })
    return verdict
  } finally {
    await queue.close()
  }
}

/** As `eventually`, for checks that cost something. */
async function eventuallySlow(check: () => Promise<boolean>, within: number, what: string | (() => string)): Promise<void> {
  let last = Number.NEGATIVE_INFINITY
  try {
    await eventually(
      async () => {
        if (performance.now() - last < 200) return false
        last = performance.now()
        return check()
      },
      { within, what: '' },
    )
  } catch (error) {
    const said = typeof what === 'string' ? what : what()
    throw new Error(`it was expected within ${within} ms that ${said}`, { cause: (error as Error).cause })
  }
}

async function confirmedTo(pipeline: Pipeline, end: string): Promise<boolean> {
  const { rows } = await once(
    pipeline.sourceUrl,
    'select confirmed_flush_lsn >= $2::pg_lsn as done from pg_replication_slots where slot_name = $1',
    [`millrace_${pipeline.name}`, end],
  )
  return rows[0]?.done === true
}

async function openSide(
  { stage, postgres, defer }: TrialDeps,
  own: TrialOptions['ownSource'],
  { at, folder }: { readonly at?: string | undefined; readonly folder?: string | undefined },
): Promise<Side> {
  let server: PostgresServer | null = null
  let directUrl: string
  if (at !== undefined) directUrl = at
  else if (own === undefined) {
    const database = await stage.database(postgres)
    defer(() => database.drop())
    directUrl = database.url
  } else {
    const started = await stage.ownPostgres(postgres, own === true ? {} : own, folder)
    defer(() => started.remove())
    server = started
    directUrl = started.url()
  }
  const url = new URL(directUrl)
  let open: (() => Tap) | null = null
  const proxy = await startTcpProxy({ port: Number(url.port) }, { tap: () => open?.() ?? null })
  defer(() => proxy.remove())
  url.port = String(proxy.port)
  return {
    url: url.href,
    directUrl,
    proxy,
    server,
    query: (text, values) => once(directUrl, text, values),
    tap(next) {
      open = next
    },
  }
}
