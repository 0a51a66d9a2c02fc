import { MILLRACE_OUTBOX, writeBacklog } from './backlog.ts'
import { drainLine, rssVerdict } from './drain-report.ts'
import { millrace } from './millrace.ts'
import type { BenchOptions } from './options.ts'
import type { Section } from './report.ts'
import { Findings } from './round.ts'
import { openStage } from './stage.ts'

/** (e) One transaction of a million rows, through the whole pipeline: memory stays bounded. */
export async function benchOneTransaction(options: BenchOptions): Promise<Section> {
  const rows = options.rows ?? 1_000_000
  const stage = await openStage(options)
  try {
    const findings = new Findings(stage, options.say)
    const source = await stage.sourceDatabase('ours')
    const replica = await stage.replicaDatabase('ours')
    const contender = millrace(stage, { name: 'ours', source, replica }, { outbox: MILLRACE_OUTBOX, profile: options.profile })
    await contender.prepare()
    await writeBacklog(source, MILLRACE_OUTBOX, { rows, rowsPerTransaction: rows })
    await findings.run('Millrace', contender, rows, replica)
    const drains = findings.drains.get('Millrace') ?? []
    return {
      key: 'e',
      title: `one transaction of ${rows.toLocaleString('en-US')} events, to a Postgres replica`,
      method: 'The backlog is a single transaction. Timed and compared as (c); one round, because it is about memory.',
      lines: [drainLine('Millrace', drains)],
      verdicts: [rssVerdict('relay', drains, 320), rssVerdict('applier', drains, 256)],
      notes: findings.profiles,
    }
  } finally {
    await stage.close()
  }
}
