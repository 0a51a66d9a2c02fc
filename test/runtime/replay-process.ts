/** `millrace replay` that kills itself (SIGKILL) when it comes to a failpoint for the given time; with `resume` it goes on first. */

import { createPipeline, type MillraceConfig } from '../../src/index.ts'

export interface ReplayFaults {
  readonly config: MillraceConfig
  readonly from: string
  readonly to?: string
  readonly rate?: number
  readonly resume?: boolean
  readonly kill?: { readonly at: string; readonly time: number }
}

const { config, from, to, rate, resume, kill } = JSON.parse(process.argv[2] as string) as ReplayFaults
let times = 0
const pipeline = createPipeline(config, {
  logLevel: 'silent',
  async failpoint(name) {
    if (name !== kill?.at || ++times < kill.time) return
    process.kill(process.pid, 'SIGKILL')
    await new Promise(() => {})
  },
})
const [sink] = Object.keys(config.sinks ?? {}) as [string]
const report = await pipeline.replay(
  sink,
  resume ? { resume: true } : { from, ...(to !== undefined && { to }), ...(rate !== undefined && { rate }) },
)
process.stdout.write(`${JSON.stringify(report)}\n`)
process.exit(0)
