import { execFile } from 'node:child_process'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { ReplayReport } from '../../src/index.ts'
import { assertReplica, CREATE_ORDERS, MILLRACE_OUTBOX, shownUpTo, writeBacklog } from './backlog.ts'
import { endChild, spawnChild } from './child.ts'
import { type Drain, timeDrain } from './drain.ts'
import { drainLine } from './drain-report.ts'
import { GUARD_COLUMN, millraceConfig } from './millrace.ts'
import type { BenchOptions } from './options.ts'
import type { Section } from './report.ts'
import { execute, openStage, type Stage, withClient } from './stage.ts'
import { spreadOf } from './statistics.ts'
import { until } from './until.ts'

const run = promisify(execFile)

interface Round {
  readonly live: Drain
  /** events a second, all of the command counted but its start */
  readonly equal: number
  readonly damaged: number
}

/** (f) replay beside live apply: the same events from Kafka, applied by the running sink, then replayed into rows that are equal, then into rows that are all damaged. */
export async function benchReplay(options: BenchOptions): Promise<Section> {
  const rows = options.rows ?? 300_000
  const stage = await openStage(options)
  try {
    const source = await stage.sourceDatabase('replayed')
    const rounds: Round[] = []
    for (let round = 1; round <= options.rounds; round++) {
      const found = await measure(stage, source, `replayed${round}`, rows)
      const { live, equal, damaged } = found
      options.say(
        `  live apply ${Math.round(live.perSecond)} events/s, replay ${Math.round(equal)} into equal rows, ${Math.round(damaged)} into damaged ones`,
      )
      rounds.push(found)
    }
    const replayed = (who: string, of: (round: Round) => number) => ({
      who,
      figures: [{ what: 'events/s', unit: '', value: spreadOf(rounds.map(of)) }],
    })
    const over = (of: (round: Round) => number) => spreadOf(rounds.map((round) => of(round) / round.live.perSecond))
    return {
      key: 'f',
      title: `replay beside live apply: ${rows.toLocaleString('en-US')} upserts over 100,000 keys`,
      method:
        'A topic that is full is applied by a sink that begins; then all of it is replayed while that sink runs on, once into rows that are equal and once into rows that were all changed behind it. Replay is timed from its first look at the queue to its end: fold, comparison and mending.',
      lines: [
        drainLine(
          'live apply',
          rounds.map(({ live }) => live),
        ),
        replayed('replay, rows equal', ({ equal }) => equal),
        replayed('replay, every row mended', ({ damaged }) => damaged),
      ],
      verdicts: [
        { what: 'replay over live apply', value: over(({ equal }) => equal), unit: 'x', target: { atLeast: 1 } },
        { what: 'the same, every row mended', value: over(({ damaged }) => damaged), unit: 'x', target: null },
      ],
      notes: [],
    }
  } finally {
    await stage.close()
  }
}

async function measure(stage: Stage, source: string, name: string, rows: number): Promise<Round> {
  const replica = await stage.replicaDatabase(name)
  const home = await mkdtemp(join(stage.home, `${name}-`))
  const config = join(home, 'millrace.yaml')
  await writeFile(config, JSON.stringify(millraceConfig({ name, source, replica }, stage.brokers, MILLRACE_OUTBOX)))
  await execute(replica, CREATE_ORDERS, GUARD_COLUMN)
  const command = (...args: string[]) => run(process.execPath, [stage.main, ...args, '-c', config], { maxBuffer: 1 << 26 })
  await command('init')
  await writeBacklog(source, MILLRACE_OUTBOX, { rows, rowsPerTransaction: 10 })
  const topic = `${name}.order`
  await stage.topics.create(topic)
  const relay = spawnChild('relay', process.execPath, [stage.main, 'run', '--relay', '-c', config])
  await until('the topic is full', async () => (await stage.topics.length(topic)) >= rows)
  await endChild(relay)

  const applier = spawnChild('applier', process.execPath, [stage.main, 'run', '--sink', 'replica', '-c', config])
  try {
    return await withClient(replica, async (client) => {
      const live = await timeDrain({
        tested: [{ role: 'applier', pid: applier.pid }],
        begun: async () => (await client.query('select from public.orders limit 1')).rowCount ?? 0,
        through: () => shownUpTo(client, rows),
        total: rows,
        assertAlive: async () => applier.assertAlive(),
      })
      const replay = async (): Promise<number> => {
        const { stdout } = await command('replay', 'replica', '--from', '2026-01-01T00:00Z', '--yes', '--json')
        const { outcome, took } = JSON.parse(stdout) as ReplayReport
        if (outcome !== 'done') throw new Error(`the replay ended as ${outcome}`)
        await assertReplica(client, rows)
        return (rows * 1_000) / took
      }
      const equal = await replay()
      await client.query("update public.orders set customer = 'changed'")
      const damaged = await replay()
      return { live, equal, damaged }
    })
  } finally {
    await endChild(applier)
    await stage.topics.remove([topic])
  }
}
