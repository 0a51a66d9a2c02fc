/**
 * A relay of its own process, to be killed: with `failpoint` it kills itself (SIGKILL) when it passes that point for the
 * given time. Tells `running` on stdout when its session has begun.
 */

import type { Failpoint } from '../../src/pipeline/failpoint.ts'
import { startRelay } from '../../src/pipeline/relay.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { FINGERPRINT, haltText, openQueue, openSource, type Pipeline, stderrLog, topicOfOrders, topicTemplate } from './parts.ts'

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
  clock: systemClock,
  random: Math.random,
  async failpoint(name) {
    if (name !== failpoint?.name || ++passes < failpoint.pass) return
    // a request that was handed over gets the time to reach the broker
    if (name === 'sent') await new Promise((resolve) => setTimeout(resolve, Math.random() * 4))
    process.kill(process.pid, 'SIGKILL')
    await new Promise(() => {})
  },
})
let told = ''
const telling = setInterval(() => {
  const { phase } = relay.status()
  if ((phase === 'running' || phase === 'standby') && phase !== told) process.stdout.write(`${phase}\n`)
  told = phase
}, 10)
process.once('SIGTERM', () => void relay.stop().then(() => process.exit(0)))
relay.done.catch((error: Error) => {
  clearInterval(telling)
  process.stdout.write(`halted ${haltText(error)}\n`)
  process.exit(4)
})
