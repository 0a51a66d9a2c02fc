/**
 * An applier of its own process, to be killed around its commit: `kill.when` says where in the apply of the given pass.
 * `during` kills at a random moment after the transaction was begun.
 */

import type { Lane, Sink } from '../../src/core/sink.ts'
import { startApplier } from '../../src/pipeline/applier.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { haltText, openQueue, openSink, type Pipeline, stderrLog, topicOfOrders } from './parts.ts'

const { pipeline, kill } = JSON.parse(process.argv[2] as string) as {
  readonly pipeline: Pipeline
  readonly kill?: { readonly when: 'before' | 'during' | 'after'; readonly pass: number }
}
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

const sink = await openSink(pipeline, stderrLog)
const wrapped: Sink = {
  traits: sink.traits,
  parking: sink.parking,
  check: () => sink.check(),
  init: () => sink.init(),
  claim: async (partition) => mortal(await sink.claim(partition)),
  checkpoints: () => sink.checkpoints(),
  close: () => sink.close(),
}
const applier = startApplier({
  name: 'replica',
  pipeline: pipeline.name,
  sink: wrapped,
  queue: await openQueue(pipeline, stderrLog),
  topics: [topicOfOrders(pipeline)],
  start: 'earliest',
  sources: null,
  log: stderrLog,
  clock: systemClock,
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
