import { describe, expect, test } from 'vitest'
import { position } from '../../src/core/position.ts'
import { decodeState, encodeState, latestState, type RelayState, resumeState, stateKey } from '../../src/core/relay-state.ts'

const state: RelayState = {
  streamId: 's-1',
  session: 4,
  source: 'shop',
  systemId: '7301',
  timeline: 1,
  slot: 'millrace_shop',
  publication: '16/17',
  epoch: 1,
  intent: 0x1_0000_00a0n,
  fingerprint: 'f',
  topics: new Map([
    [
      'outbox.event.order',
      [
        { position: position(1, 9n, 2), offset: 41n },
        { position: null, offset: -1n },
      ],
    ],
  ]),
}
const identity = { systemId: '7301', timeline: 1, slot: 'millrace_shop', publication: '16/17', confirmed: 0x1_0000_00a0n }
const found = { source: 'shop', queue: state, copy: state, identity, fingerprint: 'f' }
const code = (work: () => unknown): unknown => {
  try {
    return work()
  } catch (error) {
    return (error as { code: string }).code
  }
}

test('a state survives its text', () => {
  expect(decodeState(encodeState(state))).toEqual(state)
})

test('of several sessions the latest counts, whatever came last', () => {
  const records = new Map([
    [stateKey('shop', 10), encodeState({ ...state, session: 10 })],
    [stateKey('shop', 9), encodeState({ ...state, session: 9 })],
  ])
  expect(latestState(records)?.session).toBe(10)
  expect(latestState(new Map())).toBeNull()
})

test('a text that is no state is refused, not guessed at', () => {
  for (const text of ['', '{}', '{"format":2}', encodeState(state).replace('"1/A0"', '"x"')])
    expect(code(() => decodeState(text))).toBe('MILLRACE_STATE_CONFLICT')
})

describe('a session begins only where both sides agree', () => {
  test('the copy may be behind: it follows in its own time', () => {
    expect(resumeState({ ...found, copy: { ...state, session: 3, intent: 5n } })).toBe(state)
    expect(resumeState({ ...found, copy: { ...state, intent: 5n } })).toBe(state)
  })

  test('the slot may be behind the intent: what comes again is recognised', () => {
    expect(resumeState({ ...found, identity: { ...identity, confirmed: 5n } })).toBe(state)
  })

  test.each([
    ['neither side knows the stream', { queue: null, copy: null }, 'MILLRACE_STATE_MISSING'],
    ['the queue lost the state', { queue: null }, 'MILLRACE_STATE_MISSING'],
    ['the database does not know the stream', { copy: null }, 'MILLRACE_STATE_MISSING'],
    ['the two hold different streams', { copy: { ...state, streamId: 's-2' } }, 'MILLRACE_STATE_CONFLICT'],
    ['the copy is of a later session', { copy: { ...state, session: 5 } }, 'MILLRACE_QUEUE_LOST_END'],
    ['the copy has a later intent', { copy: { ...state, intent: state.intent + 1n } }, 'MILLRACE_QUEUE_LOST_END'],
    ['another system answers', { identity: { ...identity, systemId: '1' } }, 'MILLRACE_SOURCE_CHANGED'],
    ['another timeline', { identity: { ...identity, timeline: 2 } }, 'MILLRACE_SOURCE_CHANGED'],
    ['another slot', { identity: { ...identity, slot: 'other' } }, 'MILLRACE_SLOT_MOVED'],
    ['the publication was made again', { identity: { ...identity, publication: '16/18' } }, 'MILLRACE_PUBLICATION_MISSING'],
    ['the slot is beyond the intent', { identity: { ...identity, confirmed: state.intent + 1n } }, 'MILLRACE_SLOT_MOVED'],
    ['the mapping changed', { fingerprint: 'g' }, 'MILLRACE_FINGERPRINT_CHANGED'],
  ])('halts when %s', (_, change, expected) => {
    expect(code(() => resumeState({ ...found, ...change }))).toBe(expected)
  })
})
