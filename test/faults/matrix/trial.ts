import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type pg from 'pg'
import type { PostgresServer } from '../../../src/cli/demo/postgres-server.ts'
import { eventually } from '../../support/eventually.ts'
import type { KafkaOptions } from '../../support/kafka/cluster.ts'
import { startTcpProxy, type Tap, type TcpProxy } from '../../support/tcp-proxy.ts'
import { openQueue, type Pipeline, prepare, topicOfOrders } from '../parts.ts'
import { type Process, startProcess } from '../processes.ts'
import { judgeReplica, judgeTopic } from '../verdict.ts'
import { type Committed, startWorkload, type Workload } from '../workload.ts'
import type { Evidence, Run } from './row.ts'
import { type FrontedKafka, once, type Stage } from './stage.ts'
import { type FirstEvent, firstEvent, startWatch, type Watch } from './watch.ts'

export interface TrialOptions {
  /** a source server of the trial's own, with these settings: to kill and restart, or to set up otherwise. Default: shared */
  readonly ownSource?: true | Readonly<Record<string, string>>
  readonly ownReplica?: true | Readonly<Record<string, string>>
  /** a Kafka of the trial's own; without effect over the embedded queue. Default: shared, one broker */
  readonly ownKafka?: KafkaOptions
  /** transactions a second, and events of the occasional large transaction */
  readonly rate?: number
  readonly largeTransaction?: number
  readonly writers?: number
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
  applier(options?: ApplierFaults): Process
  /** resolves after so many more transactions of the writers */
  transactions(count: number, within?: number): Promise<void>
  /** resolves when the sink has applied something that was committed after the call */
  applied(within?: number): Promise<void>
  /** what all processes said, for a message */
  output(): string
  /**
   * Heals all (proxies restored, servers started, one relay and one applier running), stops the writers and holds topic and
   * replica against what they know, I1 to I8; adds it to the evidence. Once, at the end.
   */
  judge(options?: { readonly within?: number }): Promise<void>
}

export interface RelayFaults {
  readonly failpoint?: { readonly name: string; readonly pass: number }
}
export interface ApplierFaults {
  readonly kill?: { readonly when: 'before' | 'during' | 'after'; readonly pass: number }
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
  add(evidence: Pick<Evidence, 'events' | 'partitions' | 'duplicates' | 'unknownOutcomes' | 'invariants'>): void
}

export async function openTrial(deps: TrialDeps, options: TrialOptions = {}): Promise<Trial> {
  const { stage, defer } = deps
  const source = await openSide(deps, options.ownSource)
  const replica = await openSide(deps, options.ownReplica)
  const folder = await mkdtemp(join(tmpdir(), 'millrace-matrix-'))
  defer(() => rm(folder, { recursive: true, force: true }))
  let kafka: FrontedKafka | null = null
  if (deps.queue === 'kafka') {
    kafka = options.ownKafka === undefined ? await stage.kafka() : await stage.ownKafka(options.ownKafka)
    const opened = kafka
    defer(async () => {
      opened.tap(null)
      for (const front of opened.fronts) front.restore()
      if (options.ownKafka !== undefined) await opened.remove()
    })
  }
  const pipeline: Pipeline = {
    name: `x${process.pid}_${++count}`,
    sourceUrl: source.url,
    replicaUrl: replica.url,
    queue: kafka === null ? { kind: 'local', path: join(folder, 'queue.db') } : { kind: 'kafka', brokers: kafka.brokers },
  }
  const direct: Pipeline = { ...pipeline, sourceUrl: source.directUrl, replicaUrl: replica.directUrl }
  await prepare(direct)

  const processes: { readonly kind: 'relay' | 'applier'; readonly process: Process }[] = []
  const start = (kind: 'relay' | 'applier', argument: object): Process => {
    const process = startProcess(`${kind}-process.ts`, { pipeline, ...argument })
    processes.push({ kind, process })
    return process
  }
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
    await Promise.all(processes.map(({ process }) => process.kill()))
    await workload?.abandon()
    await watch.stop()
  })

  const heal = async (): Promise<void> => {
    for (const side of [source, replica]) {
      side.tap(null)
      side.proxy.restore()
      if (side.server !== null && side.server.pid === 0) await side.server.start()
    }
    kafka?.tap(null)
    for (const [index, front] of (kafka?.fronts ?? []).entries()) {
      front.restore()
      if (kafka?.cluster.pid(index + 1) === 0) await kafka.cluster.start(index + 1)
    }
    for (const { process } of processes) process.signal('SIGCONT')
    for (const kind of ['relay', 'applier'] as const)
      if (!processes.some((one) => one.kind === kind && one.process.alive)) start(kind, {})
  }

  return {
    pipeline,
    source,
    replica,
    kafka,
    get workload() {
      if (workload === null) throw new Error('a quiet trial has no writers')
      return workload
    },
    relay: (faults = {}) => start('relay', faults),
    applier: (faults = {}) => start('applier', faults),
    output,
    async transactions(more, within = 60_000) {
      const wanted = this.workload.transactions + more
      await eventually(async () => this.workload.transactions >= wanted, { within, what: `${more} more transactions` })
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
    async judge({ within = HEAL_WITHIN } = {}) {
      await heal()
      const committed = await this.workload.stop()
      const { rows } = await source.query('select pg_current_wal_flush_lsn()::text as lsn')
      try {
        await judge({ direct, committed, end: rows[0].lsn, watch, within, deps })
      } catch (error) {
        throw new Error(`${(error as Error).message}\n${output().slice(-16_000)}`, { cause: error })
      }
      await Promise.all(processes.map(({ process }) => process.kill('SIGTERM')))
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
  readonly deps: TrialDeps
}): Promise<void> {
  const { direct, committed, end, watch, within, deps } = options
  const topic = topicOfOrders(direct)
  const queue = await openQueue(direct)
  try {
    await eventuallySlow(() => confirmedTo(direct, end), within, 'the slot to be confirmed up to what the writers wrote (I10)')
    const events = new Map<number, FirstEvent[]>()
    const verdict = await judgeTopic(queue, topic, committed, (event, partition) => {
      const own = events.get(partition)
      if (own) own.push(firstEvent(event))
      else events.set(partition, [firstEvent(event)])
    })
    const violations = [...verdict.violations]
    if (verdict.missing > 0) violations.push(`I2: ${verdict.missing} of ${committed.ids.size} committed events are not in the topic`)
    let differences: readonly string[] = []
    await eventuallySlow(
      async () => {
        differences = await judgeReplica(direct.replicaUrl, committed)
        return differences.length === 0
      },
      violations.length === 0 ? within : 1_000,
      () => `the replica to be equal (I7, I8): ${differences.slice(0, 10).join('; ')}`,
    ).catch((error: Error) => violations.push(error.message))
    violations.push(...(await watch.stop()), ...watch.judgeRows(events))
    if (watch.looks.rows === 0) violations.push('I6 was never looked at')
    if (violations.length > 0)
      throw new Error(`${violations.slice(0, 12).join('\n')}\n${violations.length} violations; topic ${JSON.stringify({ ...verdict, violations: [] })}`)
    deps.add({
      events: committed.ids.size,
      partitions: verdict.partitions,
      duplicates: verdict.duplicates,
      unknownOutcomes: committed.unknownOutcomes,
      invariants: INVARIANTS,
    })
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

async function openSide({ stage, postgres, defer }: TrialDeps, own: TrialOptions['ownSource']): Promise<Side> {
  let server: PostgresServer | null = null
  let directUrl: string
  if (own === undefined) {
    const database = await stage.database(postgres)
    defer(() => database.drop())
    directUrl = database.url
  } else {
    const started = await stage.ownPostgres(postgres, own === true ? {} : own)
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
