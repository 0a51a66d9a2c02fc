import { CREATE_DEBEZIUM_OUTBOX, DEBEZIUM_OUTBOX, MILLRACE_OUTBOX, writeBacklog } from './backlog.ts'
import { drainLine, ratio, rssVerdict } from './drain-report.ts'
import { millrace } from './millrace.ts'
import type { BenchOptions } from './options.ts'
import type { Section } from './report.ts'
import { debezium } from './rivals/debezium.ts'
import { debeziumJars } from './rivals/debezium-jars.ts'
import { Findings } from './round.ts'
import { execute, openStage } from './stage.ts'

const OURS = 'Millrace, its outbox (json)'
const OURS_SAME = "Millrace, Debezium's outbox (jsonb)"
const THEIRS = 'Debezium, its outbox (jsonb)'

/** (b) slot to Kafka, durable: a backlog of events in the WAL, drained by each through a slot of its own. */
export async function benchRelay(options: BenchOptions): Promise<Section> {
  const { rounds, profile, say } = options
  const rows = options.rows ?? 1_000_000
  const jars = options.rivals ? await debeziumJars() : null
  const stage = await openStage(options)
  try {
    const findings = new Findings(stage, say)
    const ours = await stage.sourceDatabase('ours')
    const shared = await stage.sourceDatabase('shared')
    await execute(shared, CREATE_DEBEZIUM_OUTBOX)
    const each = Array.from({ length: rounds }, (_, round) => round + 1)
    const shape = { rows, rowsPerTransaction: 10 }

    const json = each.map((round) =>
      millrace(stage, { name: `json${round}`, source: ours }, { outbox: MILLRACE_OUTBOX, profile }),
    )
    for (const contender of json) await contender.prepare()
    await writeBacklog(ours, MILLRACE_OUTBOX, shape)
    const jsonb = each.map((round) =>
      millrace(stage, { name: `jsonb${round}`, source: shared }, { outbox: DEBEZIUM_OUTBOX, profile }),
    )
    const rivals =
      jars === null ? [] : each.map((round) => debezium(jars, stage, { name: `rival${round}`, source: shared }, { poll: 50 }))
    for (const contender of [...jsonb, ...rivals]) await contender.prepare()
    await writeBacklog(shared, DEBEZIUM_OUTBOX, shape)
    say(`(b) twice ${rows} events are written`)

    for (const round of each) {
      const turns = [
        [THEIRS, rivals[round - 1]],
        [OURS, json[round - 1]],
        [OURS_SAME, jsonb[round - 1]],
      ] as const
      for (const [who, contender] of round % 2 === 1 ? turns : turns.toReversed())
        if (contender) await findings.run(who, contender, rows)
    }
    const { drains } = findings
    const theirs = drains.get(THEIRS)
    return {
      key: 'b',
      title: `slot to Kafka, durable: ${rows.toLocaleString('en-US')} events of 300 bytes in transactions of 10`,
      method:
        'A backlog waits in the WAL; each reads it through a slot of its own into a topic of three partitions, acks=all. Timed from the first record in the topic to the last, so that no start-up counts.',
      lines: [...drains].map(([who, found]) => drainLine(who, found)),
      verdicts: [
        ...(theirs === undefined
          ? []
          : [
              ratio('ours over Debezium, each with its own outbox', drains.get(OURS), theirs, { atLeast: 2 }),
              ratio('ours over Debezium, both reading the same jsonb table', drains.get(OURS_SAME), theirs, { atLeast: 2 }),
            ].flat()),
        rssVerdict(
          'relay',
          [OURS, OURS_SAME].flatMap((who) => drains.get(who) ?? []),
          320,
        ),
      ],
      notes: [
        ...(theirs === undefined ? ['the ratio needs Debezium measured in the same run: --rivals'] : []),
        ...findings.profiles,
      ],
    }
  } finally {
    await stage.close()
  }
}
