import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { openQueue, type Pipeline, prepare, query, topicOfOrders } from './parts.ts'
import { type Process, startProcess } from './processes.ts'
import { judgeReplica, judgeTopic } from './verdict.ts'
import { type Committed, startWorkload, type Workload } from './workload.ts'

export interface Scenario {
  readonly pipeline: Pipeline
  readonly workload: Workload
  relay(failpoint?: { name: string; pass: number }): Process
  applier(kill?: { when: 'before' | 'during' | 'after'; pass: number }): Process
}

let count = 0

/**
 * Writers write while `faults` does its worst; then all is healed, the writers stop, and what the topic and the
 * replica hold is judged against what the writers know they committed (PROTOCOL 2.6, I1 to I8).
 */
export async function underFaults(
  options: {
    readonly sourceUrl: string
    readonly replicaUrl: string
    readonly queue: Pipeline['queue'] | 'local'
    readonly seed?: number
    readonly rate?: number
    readonly within?: number
  },
  faults: (scenario: Scenario) => Promise<void>,
): Promise<Committed> {
  const seed = options.seed ?? Math.floor(Math.random() * 1e6)
  const folder = await mkdtemp(join(tmpdir(), 'millrace-faults-'))
  const pipeline: Pipeline = {
    name: `f${process.pid}_${++count}`,
    sourceUrl: options.sourceUrl,
    replicaUrl: options.replicaUrl,
    queue: options.queue === 'local' ? { kind: 'local', path: join(folder, 'queue.db') } : options.queue,
  }
  await prepare(pipeline)
  const processes: Process[] = []
  const start: typeof startProcess = (script, argument) => {
    const started = startProcess(script, argument)
    processes.push(started)
    return started
  }
  const workload = startWorkload({ url: pipeline.sourceUrl, seed, ...(options.rate !== undefined && { rate: options.rate }) })
  const queue = await openQueue(pipeline)
  try {
    await faults({
      pipeline,
      workload,
      relay: (failpoint) => start('relay-process.ts', { pipeline, failpoint }),
      applier: (kill) => start('applier-process.ts', { pipeline, kill }),
    })
    const committed = await workload.stop()
    const end = await query(pipeline.sourceUrl, async (client) => {
      const { rows } = await client.query('select pg_current_wal_flush_lsn()::text as lsn')
      return rows[0].lsn as string
    })
    // healed: whatever still runs goes on, and one of each is there
    const relay = start('relay-process.ts', { pipeline })
    const applier = start('applier-process.ts', { pipeline })
    const within = options.within ?? 60_000
    const said = (): string => processes.map((process) => process.output()).join('\n')
    try {
      await eventually(async () => (await judgeTopic(queue, topicOfOrders(pipeline), committed)).missing === 0, {
        within,
        what: 'every committed event to be in the topic',
      })
      await eventually(async () => (await judgeReplica(pipeline.replicaUrl, committed)).length === 0, {
        within,
        what: 'the replica to be equal',
      })
      const topic = await judgeTopic(queue, topicOfOrders(pipeline), committed)
      expect(topic.violations).toEqual([])
      await eventually(() => confirmedUpTo(pipeline, end), { within: 30_000, what: 'the slot to be confirmed to the end' })
    } catch (error) {
      const topic = await judgeTopic(queue, topicOfOrders(pipeline), committed)
      const differences = await judgeReplica(pipeline.replicaUrl, committed)
      throw new Error(
        `seed ${seed}: ${(error as Error).message}\ntopic: ${JSON.stringify(topic)}\nreplica: ${differences.slice(0, 10).join('; ')}\n${said().slice(-16_000)}`,
        { cause: error },
      )
    }
    await relay.kill('SIGTERM')
    await applier.kill('SIGTERM')
    return committed
  } finally {
    await workload.stop()
    await Promise.all(processes.map((process) => process.kill()))
    await queue.close()
    await rm(folder, { recursive: true, force: true })
  }
}

/** Once all is relayed, the slot is confirmed up to what was written by now: nothing keeps the WAL for ever. */
function confirmedUpTo(pipeline: Pipeline, end: string): Promise<boolean> {
  return query(pipeline.sourceUrl, async (client) => {
    const { rows } = await client.query(
      'select confirmed_flush_lsn >= $2::pg_lsn as done from pg_replication_slots where slot_name = $1',
      [`millrace_${pipeline.name}`, end],
    )
    return rows[0]?.done === true
  })
}
