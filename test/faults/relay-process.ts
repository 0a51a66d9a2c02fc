/**
 * A relay of its own process, to be killed: with `failpoint` it kills itself (SIGKILL) when it passes that point for the
 * given time. Tells `running` on stdout when its session has begun.
 */

import type { Failpoint } from '../../src/pipeline/failpoint.ts'
import { startRelay } from '../../src/pipeline/relay.ts'
import { FINGERPRINT, openQueue, openSource, type Pipeline, stderrLog, topicOfOrders, topicTemplate } from './parts.ts'

const { pipeline, failpoint } = JSON.parse(process.argv[2] as string) as {
  readonly pipeline: Pipeline
  readonly failpoint?: { readonly name: Failpoint; readonly pass: number }
}
let passes = 0
const relay = startRelay({
  source: await openSource(pipeline, stderrLog),
  queue: await openQueue(pipeline, stderrLog),
  topicTemplate: topicTemplate(pipeline),
  fingerprint: FINGERPRINT,
  sinkTopics: [topicOfOrders(pipeline)],
  log: stderrLog,
  now: Date.now,
  random: Math.random,
  async failpoint(name) {
    if (name !== failpoint?.name || ++passes < failpoint.pass) return
    // a request that was handed over gets the time to reach the broker
    if (name === 'sent') await new Promise((resolve) => setTimeout(resolve, Math.random() * 4))
    process.kill(process.pid, 'SIGKILL')
    await new Promise(() => {})
  },
})
const said = setInterval(() => {
  if (relay.status().phase !== 'running') return
  clearInterval(said)
  process.stdout.write('running\n')
}, 10)
process.once('SIGTERM', () => void relay.stop().then(() => process.exit(0)))
relay.done.catch((error: { code?: string; message: string }) => {
  process.stdout.write(`halted ${error.code} ${error.message}\n`)
  process.exit(4)
})
