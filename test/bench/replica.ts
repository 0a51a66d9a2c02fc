import { CREATE_DEBEZIUM_OUTBOX, DEBEZIUM_OUTBOX, MILLRACE_OUTBOX, writeBacklog } from './backlog.ts'
import { drainLine, ratio, rssVerdict } from './drain-report.ts'
import { millrace } from './millrace.ts'
import type { BenchOptions } from './options.ts'
import type { Section } from './report.ts'
import { debezium } from './rivals/debezium.ts'
import { debeziumJars } from './rivals/debezium-jars.ts'
import { Findings } from './round.ts'
import { execute, openStage } from './stage.ts'

const OURS = 'Millrace'
const THEIRS = 'Debezium and its JDBC sink'

/** (c) outbox to Kafka to a Postgres replica, as upserts: a backlog in the WAL, drained through the whole pipeline. */
export async function benchReplica(options: BenchOptions): Promise<Section> {
  const { rounds, profile, say } = options
  const rows = options.rows ?? 300_000
  const jars = options.rivals ? await debeziumJars() : null
  const stage = await openStage(options)
  try {
    const findings = new Findings(stage, say)
    const ours = await stage.sourceDatabase('ours')
    const theirs = await stage.sourceDatabase('theirs')
    await execute(theirs, CREATE_DEBEZIUM_OUTBOX)
    const each = Array.from({ length: rounds }, (_, round) => round + 1)
    const shape = { rows, rowsPerTransaction: 10 }

    const own = await Promise.all(
      each.map(async (round) => {
        const replica = await stage.replicaDatabase(`ours${round}`)
        return {
          replica,
          contender: millrace(stage, { name: `ours${round}`, source: ours, replica }, { outbox: MILLRACE_OUTBOX, profile }),
        }
      }),
    )
    for (const { contender } of own) await contender.prepare()
    await writeBacklog(ours, MILLRACE_OUTBOX, shape)
    const rivals =
      jars === null
        ? []
        : await Promise.all(
            each.map(async (round) => {
              const replica = await stage.replicaDatabase(`theirs${round}`)
              return {
                replica,
                contender: debezium(jars, stage, { name: `theirs${round}`, source: theirs, replica }, { poll: 50 }),
              }
            }),
          )
    for (const { contender } of rivals) await contender.prepare()
    if (rivals.length > 0) await writeBacklog(theirs, DEBEZIUM_OUTBOX, shape)
    say(`(c) ${rows} events are written`)

    for (const round of each) {
      const turns = [
        [THEIRS, rivals[round - 1]],
        [OURS, own[round - 1]],
      ] as const
      for (const [who, turn] of round % 2 === 1 ? turns : turns.toReversed())
        if (turn) await findings.run(who, turn.contender, rows, turn.replica)
    }
    const drains = findings.drains.get(OURS) ?? []
    const rivalDrains = findings.drains.get(THEIRS)
    return {
      key: 'c',
      title: `outbox to Kafka to a Postgres replica: ${rows.toLocaleString('en-US')} upserts over 100,000 keys`,
      method:
        'A backlog of transactions of 10 waits in the WAL; source and sink run at once, the sink follows before the source begins. Timed from the first record in the topic to the last event in the replica, which is then compared with the events, row by row.',
      lines: [...findings.drains].map(([who, found]) => drainLine(who, found)),
      verdicts: [
        ...(rivalDrains === undefined ? [] : ratio('ours over Debezium', drains, rivalDrains, { atLeast: 4 })),
        rssVerdict('relay', drains, 320),
        rssVerdict('applier', drains, 256),
      ],
      notes: [
        ...(rivalDrains === undefined ? ['the ratio needs Debezium measured in the same run: --rivals'] : []),
        ...findings.profiles,
      ],
    }
  } finally {
    await stage.close()
  }
}
