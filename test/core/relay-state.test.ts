import { describe, expect, test } from 'vitest'
import type { MillraceError } from '../../src/core/errors.ts'
import { position } from '../../src/core/position.ts'
import { isAtRest, latestState, type RelayState, resumeState, stateKey } from '../../src/core/relay-state.ts'
import { encodeState } from '../../src/core/state-text.ts'
import { epoch, identity, state } from './stream.ts'

const found = { source: 'shop', queue: state, copy: state, identity, fingerprint: 'f' }

function refusal(change: Partial<Parameters<typeof resumeState>[0]>): MillraceError {
  try {
    resumeState({ ...found, ...change })
  } catch (error) {
    return error as MillraceError
  }
  throw new Error('a session would begin')
}

test('of several sessions the latest counts, whatever came last', () => {
  const records = new Map([
    [stateKey('shop', 10), encodeState({ ...state, session: 10 })],
    [stateKey('shop', 9), encodeState({ ...state, session: 9 })],
  ])
  expect(latestState(records)?.session).toBe(10)
  expect(latestState(new Map())).toBeNull()
})

test('of two sessions of one number on two servers the one on the promoted server counts, however far the other got', () => {
  const old: RelayState = { ...state, intent: state.intent + 1_000n }
  const promoted: RelayState = { ...state, epochs: [epoch(1), epoch(2, { timeline: 2, began: 0x900n, from: 0x900n })] }
  for (const order of [
    [old, promoted],
    [promoted, old],
  ]) {
    const records = new Map(order.map((one, index) => [stateKey('shop', 4, `w${index}`), encodeState(one)]))
    expect(latestState(records)).toEqual(promoted)
  }
})

test('of two promoted servers the one on the later timeline counts, whatever epochs led there', () => {
  const behind: RelayState = { ...state, epochs: [epoch(1), epoch(2, { timeline: 2 }), epoch(3, { timeline: 3 })] }
  const ahead: RelayState = { ...state, epochs: [epoch(1), epoch(2, { timeline: 4 })], intent: state.intent + 1_000n }
  for (const order of [
    [behind, ahead],
    [ahead, behind],
  ]) {
    const records = new Map(order.map((one, index) => [stateKey('shop', 4, `w${index}`), encodeState(one)]))
    expect(latestState(records)).toEqual(ahead)
  }
})

test('of two counts of a new topic the one of the later session counts: nothing was published by what an earlier one recorded late', () => {
  const [known] = [...state.topics]
  const taken = (session: number, count: number): string => {
    const tails = Array.from({ length: count }, () => ({ position: null, offset: -1n }))
    return encodeState({ ...state, session, topics: new Map([known as never, ['outbox.event.new', tails]]) })
  }
  const records: [string, string][] = [
    [stateKey('shop', 7), encodeState({ ...state, session: 7 })],
    [stateKey('shop', 5), taken(5, 3)],
    [stateKey('shop', 6), taken(6, 2)],
  ]
  for (const order of [records, records.toReversed()])
    expect(latestState(new Map(order))?.topics.get('outbox.event.new')).toHaveLength(2)
})

describe('a session begins only where both sides agree', () => {
  test('the copy may be behind: it follows in its own time', () => {
    const { copied } = state
    expect(resumeState({ ...found, copy: { ...state, session: 3, intent: copied.intent } })).toBe(state)
    expect(resumeState({ ...found, copy: { ...state, intent: 5n } })).toBe(state)
  })

  test('but not behind a copy that the database had acknowledged: it was restored to an earlier time', () => {
    const { copied } = state
    const older = [
      { ...state, session: copied.session, intent: copied.intent - 1n },
      { ...state, session: copied.session - 1 },
    ]
    for (const copy of older) {
      const { code, message, remedy } = refusal({ copy })
      expect(code).toBe('MILLRACE_SOURCE_CHANGED')
      expect(message).toMatch(/went back in time.*is safe/s)
      expect(remedy).toContain('millrace resume')
    }
    // a promoted standby may lack the last copies, and the copy of another epoch's server says nothing of this one
    const promoted = { ...identity, timeline: 2, history: [{ timeline: 1, end: state.intent + 1n }] }
    expect(resumeState({ ...found, copy: older[0] as RelayState, identity: promoted })).toBe(state)
    const later = { ...state, epochs: [...state.epochs, epoch(2)] }
    expect(resumeState({ ...found, queue: later, copy: older[1] as RelayState })).toBe(later)
  })

  test('the slot may be behind the intent: what comes again is recognised', () => {
    expect(resumeState({ ...found, identity: { ...identity, confirmed: 5n } })).toBe(state)
  })

  test('a mapping may change once the stream is drained', () => {
    const drained = { ...state, drained: { lsn: 5n, at: 1 } }
    expect(resumeState({ ...found, queue: drained, fingerprint: 'g' })).toBe(drained)
  })

  test.each<[string, Partial<typeof found> | { queue: null } | { copy: null }, string]>([
    ['neither side knows the stream', { queue: null, copy: null } as never, 'MILLRACE_STATE_MISSING'],
    ['the queue lost the state', { queue: null }, 'MILLRACE_STATE_MISSING'],
    ['the database does not know the stream', { copy: null }, 'MILLRACE_STATE_MISSING'],
    ['the two hold different streams', { copy: { ...state, streamId: 's-2' } }, 'MILLRACE_STATE_CONFLICT'],
    ['the copy is of a later session', { copy: { ...state, session: 5 } }, 'MILLRACE_QUEUE_LOST_END'],
    ['the copy has a later intent', { copy: { ...state, intent: state.intent + 1n } }, 'MILLRACE_QUEUE_LOST_END'],
    [
      'a refill was begun and not finished',
      { queue: { ...state, gaps: [{ at: 1, epoch: 2, from: 1n, to: 2n, refill: 'pending' }] } },
      'MILLRACE_STATE_CONFLICT',
    ],
    ['another system answers', { identity: { ...identity, systemId: '1' } }, 'MILLRACE_SOURCE_CHANGED'],
    ['another timeline', { identity: { ...identity, timeline: 2 } }, 'MILLRACE_SOURCE_CHANGED'],
    ['another slot', { identity: { ...identity, slot: 'other' } }, 'MILLRACE_SLOT_MOVED'],
    ['the publication was made again', { identity: { ...identity, publication: '16/18' } }, 'MILLRACE_PUBLICATION_MISSING'],
    ['the mapping changed', { fingerprint: 'g' }, 'MILLRACE_FINGERPRINT_CHANGED'],
  ])('halts when %s, and says how to go on', (_, change, expected) => {
    const { code, remedy } = refusal(change)
    expect(code).toBe(expected)
    expect(remedy).toEqual(expect.any(String))
  })

  test('a publication that was made again: from where to where, what is safe, and the commands', () => {
    const { message, remedy } = refusal({ identity: { ...identity, publication: '16/18', walEnd: 0x2_0000_0000n } })
    expect(message).toMatch(/between 1\/A0 and 2\/0 may be missing in the queue/)
    expect(message).toMatch(/up to 1\/A0 \(the last event at 00000001-0000000000000009-00000002\) was relayed and is safe/)
    expect(remedy).toMatch(/millrace resume --refill .*millrace resume --accept-gap/)
  })
})

test('a relay leaves the stream at rest once one session reached the target, ended well, and covers all that was relayed', () => {
  const topics = (commit: bigint) => new Map([['t', [{ position: position(1, commit, 3), offset: 5n }]]])
  const after: RelayState = { ...state, session: 5, intent: 0x30n, topics: topics(0x2fn) }
  const run = { before: { ...state, session: 4 }, target: 0x20n, endedWell: true }
  expect(isAtRest(after, run)).toBe(true)
  expect(isAtRest({ ...after, topics: new Map() }, run)).toBe(true)
  expect(isAtRest(null, run)).toBe(false)
  expect(isAtRest(after, { ...run, target: 0x31n })).toBe(false)
  expect(isAtRest(after, { ...run, endedWell: false })).toBe(false)
  expect(isAtRest({ ...after, session: 6 }, run)).toBe(false)
  expect(isAtRest({ ...after, topics: topics(0x30n) }, run)).toBe(false)
  // of an epoch before, on the part of the WAL that both timelines share
  const promoted = { ...after, epochs: [epoch(1), epoch(2, { timeline: 2, began: 0x80n, from: 0x80n })] }
  expect(isAtRest({ ...promoted, topics: topics(0x30n) }, run)).toBe(false)
  expect(isAtRest(promoted, run)).toBe(true)
})
