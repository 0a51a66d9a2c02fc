/**
 * An applier of its own process, to be killed around its commit: `kill.when` says where in the apply of the given pass.
 * `during` kills at a random moment after the transaction was begun.
 */

import { boundHeap } from '../../src/cli/heap.ts'
import type { Lane, Sink } from '../../src/core/sink.ts'
import { startApplier } from '../../src/pipeline/applier.ts'
import { believeNames } from '../support/changing-names.ts'
import { letWallClockJump } from '../support/jumping-clock.ts'
import {
  ANSWER_WITHIN,
  clockOf,
  haltText,
  openQueue,
  openSink,
  type Pipeline,
  sinkOptions,
  stderrLog,
  topicOfOrders,
} from './parts.ts'

export interface ApplierFaults {
  readonly kill?: { readonly when: 'before' | 'during' | 'after'; readonly pass: number }
  /** waits for failures no longer than a moment, so that many can be had in a short time */
  readonly hasty?: boolean
  /** instead of the trial's own */
  readonly pipeline?: Pipeline
  /** ms by which its wall clock jumps at each SIGUSR2 */
  readonly jump?: number
  /** another mapping than the sink was begun with: what it does with a deleted order */
  readonly erased?: 'ignore'
  /** the name of a group of its own, in which it is given every partition */
  readonly rival?: string
}

const { pipeline, kill, hasty, jump, erased, rival } = JSON.parse(process.argv[2] as string) as ApplierFaults & {
  readonly pipeline: Pipeline
}
boundHeap()
if (pipeline.access?.names !== undefined) believeNames(pipeline.access.names)
if (jump !== undefined) letWallClockJump(jump)
let passes = 0
const die = (): void => {
  process.kill(process.pid, 'SIGKILL')
}

function mortal(lane: Lane): Lane {
  return {
    ...lane,
    checkpoint: lane.checkpoint,
    reread: () => lane.reread(),
    release: () => lane.release(),
    async apply(batch) {
      const fatal = batch.events.length > 0 && ++passes === kill?.pass
      if (fatal && kill?.when === 'before') die()
      if (fatal && kill?.when === 'during') setTimeout(die, Math.random() * 5)
      await lane.apply(batch)
      if (fatal && kill?.when === 'after') die()
    },
  }
}

const sink = await openSink(pipeline, stderrLog, sinkOptions(pipeline, erased))
const wrapped: Sink = {
  ...sink,
  claim: async (partition) => mortal(await sink.claim(partition)),
}
const applier = startApplier({
  name: 'replica',
  pipeline: rival ?? pipeline.name,
  sink: wrapped,
  queue: await openQueue(pipeline, stderrLog, ANSWER_WITHIN),
  topics: [topicOfOrders(pipeline)],
  start: 'earliest',
  sources: pipeline.beside === undefined ? null : [pipeline.name],
  log: stderrLog,
  clock: clockOf(hasty),
  random: Math.random,
})
let told = ''
const telling = setInterval(() => {
  const { partitions } = applier.status()
  const halt = partitions.find(({ phase }) => phase === 'halted')?.error
  const following = partitions.length > 0 && partitions.every(({ phase }) => phase === 'following')
  tell(halt ? `halted ${haltText(halt)}` : following ? 'running' : told)
}, 20)
function tell(line: string): void {
  if (line !== told) process.stdout.write(`${line}\n`)
  told = line
}
process.once('SIGTERM', () => void applier.stop().then(() => process.exit(0)))
applier.done.catch((error: Error) => {
  clearInterval(telling)
  tell(`halted ${haltText(error)}`)
  process.exit(4)
})
