import type { Lsn } from '../../src/core/position.ts'
import type { Queue } from '../../src/core/queue.ts'
import { isAtRest, latestState, type RelayState, stateKey, statePrefix } from '../../src/core/relay-state.ts'
import type { Sink } from '../../src/core/sink.ts'
import type { Source } from '../../src/core/source.ts'
import { encodeState } from '../../src/core/state-text.ts'
import type { Relay } from '../../src/pipeline/relay.ts'
import type { Process } from './process.ts'

/** how long a person waits for it (virtual ms) */
const PATIENCE = 60_000
const POLL = 200

/**
 * What `millrace drain` does (src/runtime/drain.ts), while no other relay runs: relays what was committed before it began,
 * waits for every sink, and records on both sides that the stream stands still.
 * @returns false: it took too long, or something halted; nothing is marked
 */
export async function drain(options: {
  readonly process: Process
  readonly source: Source
  readonly queue: Queue
  readonly sinks: readonly Sink[]
  /** that all that was committed so far lies below */
  readonly target: () => Lsn
  readonly startRelay: () => Relay
}): Promise<boolean> {
  const { process, source, queue, sinks } = options
  const until = process.clock.elapsed() + PATIENCE
  const eventually = async (holds: () => Promise<boolean> | boolean): Promise<boolean> => {
    for (;;) {
      if (await holds()) return true
      if (process.clock.elapsed() > until) return false
      await process.clock.wait(POLL)
    }
  }

  const recorded = async (): Promise<RelayState | null> => latestState(await queue.state.read(statePrefix(source.name)))
  const state = await relayAll()
  if (state === null) return false

  const ends = new Map<string, bigint>()
  for (const topic of state.topics.keys())
    for (const [partition, { start, end }] of (await queue.ranges(topic)).entries())
      ends.set(`${topic}/${partition}`, start === end ? 0n : end)
  for (const sink of sinks) {
    const applied = await eventually(async () => {
      const offsets = new Map((await sink.checkpoints()).map((one) => [`${one.topic}/${one.partition}`, one.offset]))
      // a partition that was added must have been begun: what a sink with `start: latest` has not seen is not missing to it
      return [...ends].every(([place, end]) => (offsets.get(place) ?? -1n) >= end)
    })
    if (!applied) return false
  }

  const records = await queue.state.read(statePrefix(source.name))
  if (latestState(records)?.session !== state.session) return false
  const marked = { ...state, session: state.session + 1, drained: { lsn: state.intent, at: process.clock.now() } }
  await queue.state.write(stateKey(source.name, marked.session, 'drain'), encodeState(marked))
  for (const former of records.keys()) await queue.state.remove(former)
  await source.stateCopy.write(encodeState(marked))
  return true

  async function relayAll(): Promise<RelayState | null> {
    for (;;) {
      const target = options.target()
      const before = await recorded()
      const relay = options.startRelay()
      const relayed = await eventually(() => {
        const { phase, confirmed } = relay.status()
        return phase === 'halted' || (confirmed !== null && confirmed >= target)
      })
      await relay.stop()
      const state = await recorded()
      if (isAtRest(state, { before, target, endedWell: relay.status().error === null })) return state
      if (!relayed || process.clock.elapsed() > until) return null
    }
  }
}
