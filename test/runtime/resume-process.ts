/** `millrace resume --refill | --accept-gap` that kills itself (SIGKILL) at a step: after it was durable, before the next. */

import { createPipeline, type MillraceConfig } from '../../src/index.ts'

const { config, way, step } = JSON.parse(process.argv[2] as string) as {
  readonly config: MillraceConfig
  readonly way: 'accept-gap' | 'refill'
  readonly step: string
}
const pipeline = createPipeline(config, {
  logLevel: 'silent',
  async failpoint(name) {
    if (name !== step) return
    process.kill(process.pid, 'SIGKILL')
    await new Promise(() => {})
  },
})
await pipeline.resume({ way })
