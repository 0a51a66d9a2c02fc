/**
 * An applier of its own process, to be killed around its commit: `kill.when` says where in the apply of the given pass.
 * `during` kills at a random moment after the transaction was begun.
 */

import type { Lane, Sink } from '../../src/core/sink.ts'
import { startApplier } from '../../src/pipeline/applier.ts'
import { openQueue, openSink, type Pipeline, stderrLog, topicOfOrders } from './parts.ts'

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
  now: Date.now,
  random: Math.random,
})
const said = setInterval(() => {
  const { partitions } = applier.status()
  const halted = partitions.find((partition) => partition.phase === 'halted')
  if (halted !== undefined) process.stdout.write(`halted ${halted.error?.message}\n`)
  if (halted === undefined && !(partitions.length > 0 && partitions.every((partition) => partition.phase === 'following'))) return
  clearInterval(said)
  process.stdout.write('running\n')
}, 20)
process.once('SIGTERM', () => void applier.stop().then(() => process.exit(0)))
applier.done.catch((error: { code?: string; message: string }) => {
  process.stdout.write(`halted ${error.code} ${error.message}\n`)
  process.exit(4)
})
