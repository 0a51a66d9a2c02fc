/** `millrace verify` or `rebuild` that kills itself (SIGKILL) the n-th time that it gets to a point. */

import { createPipeline, type MillraceConfig } from '../../src/index.ts'

const { config, command, point, times } = JSON.parse(process.argv[2] as string) as {
  readonly config: MillraceConfig
  readonly command: 'verify' | 'repair' | 'rebuild' | 'beside'
  readonly point: string
  readonly times: number
}
let left = times
const pipeline = createPipeline(config, {
  logLevel: 'silent',
  async failpoint(name) {
    if (name !== point || --left > 0) return
    process.kill(process.pid, 'SIGKILL')
    await new Promise(() => {})
  },
})
if (command === 'rebuild' || command === 'beside') await pipeline.rebuild('warehouse', { beside: command === 'beside' })
else await pipeline.verify('warehouse', { repair: command === 'repair' })
