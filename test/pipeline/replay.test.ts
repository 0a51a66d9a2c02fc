import { expect, test } from 'vitest'
import type { RowTraits } from '../../src/core/copy.ts'
import { codeOf } from '../../src/core/errors.ts'
import type { Position } from '../../src/core/position.ts'
import { BEGUN, encodeJob, openDesk, Stopped } from '../../src/pipeline/job.ts'
import { beginReplay, type Replayed, type ReplayState, replay } from '../../src/pipeline/replay.ts'
import { LOWEST } from '../../src/pipeline/replay-log.ts'
import type { ReplayRange } from '../../src/pipeline/replay-range.ts'
import { silent } from '../connectors/postgres-fixture.ts'
import { type MemoryStream, memoryStream, steppingClock, TOPIC } from './memory-stream.ts'

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f', 'g']

/** the machine that the model rolls: mulberry32 */
function dice(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4_294_967_296) * below)
  }
}

class Died extends Error {}

/**
 * One story: writes, late duplicates, damage; then a replay that is killed, paused and crashed under live traffic, with markers
 * that are forgotten meanwhile. What was never damaged must never show anything but what was applied last; what was
 * damaged and is meant must show that in the end.
 */
async function story(seed: number): Promise<void> {
  const roll = dice(seed)
  const traits: RowTraits = { parts: roll(3) === 0, shared: false }
  const stream = memoryStream({ partitions: 1 + roll(3), traits })
  const { store } = stream
  const key = (): string => KEYS[roll(KEYS.length)] as string
  let written = 0
  const write = (): void => {
    const type = roll(4) === 0 ? 'Gone' : traits.parts && roll(2) === 0 ? 'Part' : 'Put'
    const columns = { [`c${roll(2)}`]: String(++written) }
    stream.write(key(), type, type === 'Put' ? { c0: 'x', c1: 'x', ...columns } : columns)
  }
  for (let n = 5 + roll(20); n > 0; n--) write()
  const meantFrom = written
  await stream.apply(5 + roll(20))
  for (let n = roll(12); n > 0; n--) write()
  if (roll(2) === 0) stream.again(0, roll(3), 3 + roll(3))
  await stream.apply()

  const positions = [...store.live.rows.values()].flatMap(({ position }) => (position === null ? [] : [position]))
  const some = (): Position => positions[roll(positions.length)] ?? LOWEST
  const from = roll(3) === 0 ? LOWEST : some()
  const to = roll(3) === 0 ? some() : null
  const range: ReplayRange = {
    from: { kind: 'position', text: from, position: from, time: null },
    to: to === null ? null : { kind: 'position', text: to, position: to, time: null },
    unproven: [],
    partitions: store.checkpoints().map(({ topic, partition, offset }) => ({
      topic,
      partition,
      start: 0n,
      end: offset as bigint,
      from: new Map([['shop', from]]),
      to: to === null ? new Map() : new Map([['shop', to]]),
    })),
  }
  const meant = await meantKeys(stream, from, to)

  const damaged = new Set<string>()
  for (let n = roll(4); n > 0; n--) {
    const one = key()
    damaged.add(one)
    const position = [null, 'ffffffff-ffffffffffffffff-ffffffff' as Position, LOWEST, some()][roll(4)] as Position | null
    if (roll(3) === 0) store.live.rows.delete(one)
    else store.live.rows.set(one, { columns: { c0: 'damaged' }, position })
  }

  const holds = (when: string): void => {
    for (const one of KEYS)
      if (!damaged.has(one))
        expect(store.live.rows.get(one)?.columns, `seed ${seed}, ${one}, ${when}`).toEqual(stream.truth().get(one))
  }
  let steps = 0
  const live = async (): Promise<void> => {
    if (++steps > 60) return
    holds('under way')
    if (roll(2) === 0) write()
    if (roll(2) === 0) await stream.apply(1 + roll(5))
    if (roll(8) === 0) store.forgetMarkers()
    if (roll(12) === 0) {
      store.crash()
      throw new Died()
    }
    if (roll(12) === 0) {
      store.die()
      throw new Died()
    }
  }

  let turns: Promise<unknown> = Promise.resolve()
  const clock = steppingClock()
  const aggregate = roll(4) === 0 ? { topic: TOPIC, id: key() } : null
  const state = beginReplay(traits, range, { aggregate, rate: null })
  let copy = await store.copies.create(encodeJob({ kind: 'replay', asked: {}, state, progress: BEGUN }), 'rows')
  let report: Replayed | null = null
  for (let attempt = 0; report === null; attempt++) {
    expect(attempt, `seed ${seed} ends`).toBeLessThan(80)
    const stopping = new AbortController()
    try {
      const desk = openDesk<ReplayState>({ held: copy, clock, signal: stopping.signal, progressed: () => {} })
      const { queue, sink } = stream
      report = await replay({
        sink,
        copy,
        queue,
        desk,
        sources: null,
        log: silent,
        clock,
        signal: stopping.signal,
        failpoint() {
          if (roll(20) === 0) stopping.abort()
          // partitions are folded side by side
          const turn = turns.then(live)
          turns = turn.catch(() => {})
          return turn
        },
      })
    } catch (error) {
      // another partition may have met the death first
      const lost = codeOf(error) === 'MILLRACE_SINK_FENCED'
      if (!(lost || error instanceof Died || error instanceof Stopped)) throw error
      if (error instanceof Stopped) await copy.close()
      await turns
      copy = await store.copies.take()
    }
  }
  await copy.drop()
  await stream.apply()
  const isMeant = (one: string): boolean => meant.has(one) && (aggregate === null || aggregate.id === one)
  for (const one of damaged)
    if (!isMeant(one)) continue
    else
      expect(store.live.rows.get(one)?.columns, `seed ${seed}, ${one}, from ${from} to ${to}, ${meantFrom}`).toEqual(
        stream.truth().get(one),
      )
  holds('in the end')
}

/** the keys of the applied events in the range */
async function meantKeys(stream: MemoryStream, from: Position, to: Position | null): Promise<ReadonlySet<string>> {
  const keys = new Set<string>()
  const decoder = new TextDecoder()
  for (const { topic, partition, offset } of stream.store.checkpoints())
    for await (const batch of stream.queue.read({ topic, partition }, { start: 0n, end: offset as bigint }))
      for (const { key, headers } of batch) {
        const at = decoder.decode(headers.find(([name]) => name === 'millrace-position')?.[1])
        if (at >= from && (to === null || at < to)) keys.add(decoder.decode(key as Uint8Array))
      }
  return keys
}

test('random stories of damage, live traffic and crashes end with what was applied last', async () => {
  for (let seed = 1; seed <= 200; seed++) await story(seed)
}, 120_000)
