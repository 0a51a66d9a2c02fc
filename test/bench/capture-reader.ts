import { nextEpoch } from '../../src/core/epoch.ts'
import { openPostgresSource } from '../../src/postgres/source.ts'

/**
 * The process under test of `capture.ts`: reads a slot through a session until `rows` changes and an end behind them
 * have come, then prints what that cost as one JSON line. Arguments: url, slot, publication, rows.
 */
export interface ReaderReport {
  readonly rows: number
  readonly payloadBytes: number
  readonly seconds: number
  readonly cpuSeconds: number
  readonly peakRssBytes: number
}

const [url = '', slot = '', publication = '', wanted = '0'] = process.argv.slice(2)
const silent = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent }
const source = openPostgresSource(
  { name: 'bench', url, slot, publication, acceptUnlimitedWal: true },
  { log: silent, now: Date.now },
)
const cpuBefore = process.cpuUsage()
const began = performance.now()
const session = await source.open({ signal: new AbortController().signal })
session.begin([nextEpoch([], session.identity)])
let rows = 0
let payloadBytes = 0
for (;;) {
  const batch = await session.next({ maxChanges: 2_000, maxBytes: 1 << 20 })
  if (batch === null) break
  rows += batch.changes.length
  for (const change of batch.changes) payloadBytes += change.payload?.length ?? 0
  if (batch.end === null) continue
  session.confirm(batch.end)
  if (rows >= Number(wanted)) break
}
const seconds = (performance.now() - began) / 1_000
const cpu = process.cpuUsage(cpuBefore)
await session.close()
await source.close()
const report: ReaderReport = {
  rows,
  payloadBytes,
  seconds,
  cpuSeconds: (cpu.user + cpu.system) / 1_000_000,
  peakRssBytes: process.resourceUsage().maxRSS * 1_024,
}
process.stdout.write(`${JSON.stringify(report)}\n`)
