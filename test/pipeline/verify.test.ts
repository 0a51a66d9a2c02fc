import { describe, expect, test } from 'vitest'
import { encodeBeginning } from '../../src/core/chain.ts'
import type { Comparison, Copy, Difference, DifferenceKind, Mended, RowTraits } from '../../src/core/copy.ts'
import { codeOf, MillraceError } from '../../src/core/errors.ts'
import type { Position } from '../../src/core/position.ts'
import { type Comparing, compareAll, firstPlace, type KeyVerdict } from '../../src/pipeline/compare.ts'
import { BEGUN, encodeJob, openDesk, Stopped } from '../../src/pipeline/job.ts'
import { paceOf } from '../../src/pipeline/pace.ts'
import { BEGIN_VERIFY, type Verified, type VerifyState, verify } from '../../src/pipeline/verify.ts'
import { silent } from '../connectors/postgres-fixture.ts'
import { seededRandom } from '../faults/workload.ts'
import { type MemoryStream, memoryStream, steppingClock, TOPIC } from './memory-stream.ts'

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f', 'g']
const WRONG: readonly string[] = ['missing', 'extra', 'different']

class Died extends Error {}

/** Whether the replica shows what was applied. */
function shows(stream: MemoryStream, key: string): boolean {
  return JSON.stringify(sorted(stream.store.live.rows.get(key)?.columns)) === JSON.stringify(sorted(stream.truth().get(key)))
}

const sorted = (columns: Readonly<Record<string, string>> | undefined): unknown =>
  columns === undefined ? null : Object.entries(columns).sort()

/**
 * One story: writes, late duplicates, damage; then a verification, or a repair, that is killed, paused and crashed under live
 * traffic. Nobody is accused who was not damaged, and nobody who is damaged in the end is passed over.
 */
async function story(seed: number): Promise<void> {
  const random = seededRandom(seed)
  const roll = (below: number): number => Math.floor(random() * below)
  const traits: RowTraits = { parts: roll(3) === 0, shared: false }
  const partitions = 1 + roll(3)
  const stream = memoryStream({ partitions, traits })
  const { store, queue, sink } = stream
  for (let partition = 0; partition < partitions; partition++)
    await store.claim({ topic: TOPIC, partition }).apply({
      moves: [],
      offset: 0n,
      events: [],
      parked: [],
      beginning: encodeBeginning({ until: 0n, founding: new Set() }),
    })
  const key = (): string => KEYS[roll(KEYS.length)] as string
  let written = 0
  const write = (): void => {
    const type = roll(4) === 0 ? 'Gone' : traits.parts && roll(2) === 0 ? 'Part' : 'Put'
    const columns = { [`c${roll(2)}`]: String(++written) }
    stream.write(key(), type, type === 'Put' ? { c0: 'x', c1: 'x', ...columns } : columns)
  }
  for (let n = 5 + roll(25); n > 0; n--) write()
  await stream.apply(5 + roll(20))
  if (roll(2) === 0) stream.again(0, roll(3), 3 + roll(3))
  await stream.apply()

  const damaged = new Set<string>()
  const positions = [...store.live.rows.values()].flatMap(({ position }) => (position === null ? [] : [position]))
  for (let n = roll(4); n > 0; n--) {
    const one = roll(6) === 0 ? 'added' : key()
    damaged.add(one)
    const some = positions[roll(positions.length)] ?? null
    const position = [null, 'ffffffff-ffffffffffffffff-ffffffff' as Position, some][roll(3)] as Position | null
    if (roll(3) === 0) store.live.rows.delete(one)
    else store.live.rows.set(one, { columns: { c0: 'damaged' }, position })
  }
  const all = [...KEYS, 'added']
  const mends = roll(2) === 0

  let steps = 0
  const live = async (): Promise<void> => {
    if (++steps > 60) return
    for (const one of all) if (!damaged.has(one)) expect(shows(stream, one), `seed ${seed}, ${one}, under way`).toBe(true)
    if (roll(2) === 0) write()
    if (roll(2) === 0) await stream.apply(1 + roll(5))
    if (roll(10) === 0) store.forgetMarkers()
    if (roll(15) === 0) {
      store[roll(2) === 0 ? 'crash' : 'die']()
      throw new Died()
    }
  }

  let turns: Promise<unknown> = Promise.resolve()
  const clock = steppingClock()
  const told = new Map<string, KeyVerdict>()
  let copy = await store.copies.create(encodeJob({ kind: 'verify', asked: {}, state: BEGIN_VERIFY, progress: BEGUN }), 'rows')
  let report: Verified | null = null
  for (let attempt = 0; report === null; attempt++) {
    expect(attempt, `seed ${seed} ends`).toBeLessThan(80)
    const stopping = new AbortController()
    try {
      report = await verify({
        sink,
        copy,
        queue,
        desk: openDesk<VerifyState>({ held: copy, clock, signal: stopping.signal, progressed: () => {} }),
        sources: null,
        follows: () => true,
        sample: null,
        rate: null,
        mend: mends ? { extras: true } : null,
        told(verdicts) {
          for (const one of verdicts) told.set(one.key, one)
        },
        log: silent,
        clock,
        signal: stopping.signal,
        failpoint() {
          if (roll(20) === 0) stopping.abort()
          const turn = turns.then(live)
          turns = turn.catch(() => {})
          return turn
        },
      })
    } catch (error) {
      if (!(codeOf(error) === 'MILLRACE_SINK_FENCED' || error instanceof Died || error instanceof Stopped)) throw error
      if (error instanceof Stopped) await copy.close()
      await turns
      copy = await store.copies.take()
    }
  }
  await copy.drop()
  const differ = new Set(all.filter((one) => !shows(stream, one)))
  for (const { key: one, kind } of told.values())
    if (WRONG.includes(kind)) expect(damaged.has(one), `seed ${seed}: ${one} is called ${kind}`).toBe(true)
  for (const one of differ) {
    const verdict = told.get(one)
    expect(verdict, `seed ${seed}: ${one} is passed over`).toBeDefined()
    if (mends) expect(verdict?.mended, `seed ${seed}: ${one} was called mended`).toBe(false)
    if (mends) expect(verdict?.kind, `seed ${seed}: ${one} was not mended`).toBe('hot')
  }
  await stream.apply()
}

test('whatever comes between, only what is damaged is accused, and all of it is; a repair leaves nothing', async () => {
  for (let seed = 1; seed <= 250; seed++) await story(seed)
})

describe('one comparison under live traffic', () => {
  const one = (kind: DifferenceKind, key = 'a'): Difference => ({ target: 't', key, kind, folded: null, shown: null })
  const mended: Mended = { written: 1, removed: 0, left: 0, refused: [] }

  /** `rechecks`: what each look after the first one finds */
  function comparing(found: readonly Difference[], rechecks: readonly (readonly Difference[])[], more: Partial<Comparing> = {}) {
    const calls: string[] = []
    const told: KeyVerdict[] = []
    const answers = [...rechecks]
    const clock = steppingClock()
    const options: Comparing = {
      copy: {
        targets: ['t'],
        compare: async (): Promise<Comparison> => ({ next: null, keys: 10, differences: found }),
        async recheck() {
          calls.push('recheck')
          return answers.shift() ?? []
        },
        async mend() {
          calls.push('mend')
          return mended
        },
      } satisfies Pick<Copy, 'targets' | 'compare' | 'recheck' | 'mend'>,
      async foldOn() {
        calls.push('fold')
      },
      reach: null,
      mend: null,
      pace: paceOf(null, clock),
      clock,
      signal: new AbortController().signal,
      told: (verdicts) => told.push(...verdicts),
      keep: async () => {},
      ...more,
    }
    return { calls, told, run: () => compareAll(options, firstPlace(['t'])), options }
  }

  test('a difference that is gone when the fold has gone on is none', async () => {
    const { run, calls, told } = comparing([one('newer'), one('missing', 'b')], [[]])
    expect(await run()).toMatchObject([{ keys: 10, kinds: { missing: 0, hot: 0 } }])
    expect(calls).toEqual(['fold', 'recheck'])
    expect(told).toEqual([])
  })

  test('a key that goes on each time is hot, after so many looks and not before', async () => {
    const newer = [one('newer')]
    const { run, calls, told } = comparing(newer, [newer, newer, newer], { rechecks: 3 })
    expect(await run()).toMatchObject([{ kinds: { hot: 1 } }])
    expect(calls).toEqual(['fold', 'recheck', 'fold', 'recheck', 'fold', 'recheck'])
    expect(told).toMatchObject([{ kind: 'hot', mended: false }])
  })

  test('a row that went on before it was mended is mended again, and not called mended while it is wrong', async () => {
    const different = [one('different')]
    const { run, calls, told } = comparing(different, [different, different, []], { mend: { extras: false } })
    expect(await run()).toMatchObject([{ kinds: { different: 1 }, mended: 1 }])
    expect(calls.filter((call) => call === 'mend')).toHaveLength(2)
    expect(told).toMatchObject([{ kind: 'different', mended: true }])
    const never = comparing(different, Array(20).fill(different), { mend: { extras: false } })
    expect(await never.run()).toMatchObject([{ kinds: { different: 1 }, mended: 0 }])
  })

  test('a fold that is not far enough to write goes on first', async () => {
    const missing = [one('missing')]
    const { run, calls, options } = comparing(missing, [missing, []], { mend: { extras: false } })
    let behind = 2
    const { mend } = options.copy
    Object.assign(options.copy, {
      mend: (...args: Parameters<typeof mend>) => {
        if (behind-- > 0) throw new MillraceError('MILLRACE_COPY_BEHIND', 'fold on')
        return mend(...args)
      },
    })
    await run()
    expect(calls).toEqual(['fold', 'recheck', 'fold', 'fold', 'mend', 'fold', 'recheck'])
  })

  test('what the store does not take is told with its reason; the rows that wait are not written', async () => {
    const different = [one('different'), one('parked', 'b')]
    const { run, told, options } = comparing(different, Array(20).fill([one('different')]), { mend: { extras: true } })
    const reason = { code: 'MILLRACE_EVENT_REJECTED', message: 'a check refuses it' }
    const asked: string[] = []
    Object.assign(options.copy, {
      mend: async (keys: readonly Difference[]): Promise<Mended> => {
        asked.push(...keys.map(({ key }) => key))
        return { ...mended, written: 0, refused: [{ key: one('different'), reason }] }
      },
    })
    await run()
    expect(new Set(asked)).toEqual(new Set(['a']))
    expect(told.find(({ key }) => key === 'a')).toMatchObject({ kind: 'different', mended: false, refused: reason })
  })

  test.each([
    [{ extras: false }, null, 0],
    [{ extras: true }, null, 1],
    // the stream has deleted it: it stays deleted, whoever asks
    [{ extras: false }, '00000001-0000000000000010-00000001' as Position, 1],
  ])(
    'extra rows are removed when that is asked for, or when the stream has deleted them: %j, %s',
    async (mend, folded, times) => {
      const extra = [{ ...one('extra'), folded }]
      const { run, calls } = comparing(extra, [extra, []], { mend })
      await run()
      expect(calls.filter((call) => call === 'mend')).toHaveLength(times)
    },
  )
})
