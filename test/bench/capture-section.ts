import { benchCapture as runCapture } from './capture.ts'
import { MEGABYTE } from './drain-report.ts'
import type { BenchOptions } from './options.ts'
import type { Section } from './report.ts'
import { spreadOf } from './statistics.ts'

/** (a) slot to decoded events, beside pg_recvlogical; see `capture.ts`. */
export async function benchCapture({ rows: wanted, rounds, say }: BenchOptions): Promise<Section> {
  const rows = wanted ?? 1_000_000
  const { server, ratio, rowsPerSecond, baselineRowsPerSecond, cpuSecondsPerMillion, peakRssBytes } = await runCapture({
    rows,
    rounds,
    print: (line) => say(`  ${line}`),
  })
  const one = (value: number) => spreadOf([value])
  return {
    key: 'a',
    title: `slot to decoded events: ${rows.toLocaleString('en-US')} rows of 300 bytes in transactions of 10`,
    method: `Capture alone against \`pg_recvlogical -f /dev/null\`, both over TCP from Postgres ${server} through copies of one slot. Medians of ${rounds} rounds.`,
    lines: [
      {
        who: 'Millrace',
        figures: [
          { what: 'rows/s', unit: '', value: one(rowsPerSecond) },
          { what: 'CPU-s per million', unit: '', value: one(cpuSecondsPerMillion) },
          { what: 'peak RSS', unit: ' MB', value: one(peakRssBytes / MEGABYTE) },
        ],
      },
      ...(baselineRowsPerSecond === null
        ? []
        : [{ who: 'pg_recvlogical', figures: [{ what: 'rows/s', unit: '', value: one(baselineRowsPerSecond) }] }]),
    ],
    verdicts:
      ratio === null ? [] : [{ what: 'ours over pg_recvlogical', value: one(ratio), unit: 'x', target: { atLeast: 1.4 } }],
    notes: ratio === null ? ['no pg_recvlogical on this machine to measure beside us'] : [],
  }
}
