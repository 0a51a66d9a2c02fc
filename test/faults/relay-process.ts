/**
 * A relay of its own process, to be killed: with `failpoint` it kills itself (SIGKILL) when it passes that point for the
 * given time. Tells `running` on stdout when its session has begun.
 */

import { boundHeap } from '../../src/cli/heap.ts'
import type { Failpoint } from '../../src/pipeline/failpoint.ts'
import { startRelay } from '../../src/pipeline/relay.ts'
import { believeNames } from '../support/changing-names.ts'
import { letWallClockJump } from '../support/jumping-clock.ts'
import {
  ANSWER_WITHIN,
  clockOf,
  FINGERPRINT,
  haltText,
  openQueue,
  openSource,
  type Pipeline,
  stderrLog,
  topicOfOrders,
  topicTemplate,
} from './parts.ts'

export interface RelayFaults {
  /** SIGSTOP: it stops there, says `stopped`, and goes on from there when it is continued */
  readonly failpoint?: { readonly name: Failpoint; readonly pass: number; readonly signal?: 'SIGKILL' | 'SIGSTOP' }
  /** of a mapping that is another */
  readonly fingerprint?: string
  /** waits for failures no longer than a moment, so that many can be had in a short time */
  readonly hasty?: boolean
  /** instead of the trial's own */
  readonly pipeline?: Pipeline
  /** ms by which its wall clock jumps at each SIGUSR2 */
  readonly jump?: number
}

const {
  pipeline,
  failpoint,
  fingerprint = pipeline.fingerprint ?? FINGERPRINT,
  hasty,
  jump,
} = JSON.parse(process.argv[2] as string) as RelayFaults & {
  readonly pipeline: Pipeline
}
boundHeap()
if (pipeline.access?.names !== undefined) believeNames(pipeline.access.names)
if (jump !== undefined) letWallClockJump(jump)
let passes = 0
const relay = startRelay({
  source: await openSource(pipeline, stderrLog),
  queue: await openQueue(pipeline, stderrLog, ANSWER_WITHIN),
  topicTemplate: topicTemplate(pipeline),
  fingerprint,
  sinkTopics: [topicOfOrders(pipeline)],
  log: stderrLog,
  clock: clockOf(hasty),
  random: Math.random,
  async failpoint(name) {
    if (name !== failpoint?.name || ++passes !== failpoint.pass) return
    if (failpoint.signal === 'SIGSTOP') {
      process.stdout.write('stopped\n')
      process.kill(process.pid, 'SIGSTOP')
      return
    }
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
const stop = (): void => void relay.stop().then(() => process.exit(0))
process.once('SIGTERM', () => {
  process.once('SIGTERM', () => process.exit(130))
  stop()
})
relay.done.catch((error: Error) => {
  clearInterval(telling)
  process.stdout.write(`halted ${haltText(error)}\n`)
  process.exit(4)
})
