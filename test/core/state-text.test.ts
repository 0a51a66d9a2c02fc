import fc from 'fast-check'
import { expect, test } from 'vitest'
import { position } from '../../src/core/position.ts'
import type { RelayState } from '../../src/core/relay-state.ts'
import { decodeState, encodeState } from '../../src/core/state-text.ts'
import { epoch, state } from './stream.ts'

const lsn = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn })
const tail = fc.record({
  position: fc.option(
    fc.tuple(fc.nat(9), lsn, fc.nat(9)).map((at) => position(...at)),
    { nil: null },
  ),
  offset: fc.bigInt({ min: -1n, max: (1n << 62n) - 1n }),
})
const topic = fc.oneof(fc.constantFrom('__proto__', 'constructor', '1', '0', 'toString'), fc.string())
const refill = fc.oneof(
  fc.constantFrom(null, 'pending' as const),
  fc.record({ published: fc.nat(), ambiguous: fc.nat() }, { noNullPrototype: true }),
)
const states: fc.Arbitrary<RelayState> = fc.record(
  {
    streamId: fc.string(),
    session: fc.nat(),
    source: fc.string(),
    slot: fc.string(),
    publication: fc.string(),
    epochs: fc
      .array(fc.tuple(fc.string(), fc.nat(), lsn, lsn), { minLength: 1, maxLength: 4 })
      .map((all) => all.map(([systemId, timeline, began, from], i) => epoch(i + 1, { systemId, timeline, began, from }))),
    intent: lsn,
    fingerprint: fc.string(),
    topics: fc
      .uniqueArray(fc.tuple(topic, fc.array(tail, { maxLength: 3 })), { selector: ([name]) => name })
      .map((all) => new Map(all)),
    copied: fc.record({ epoch: fc.nat(), session: fc.nat(), intent: lsn }, { noNullPrototype: true }),
    gaps: fc.array(fc.record({ at: fc.nat(), epoch: fc.nat(), from: lsn, to: lsn, refill }, { noNullPrototype: true }), {
      maxLength: 3,
    }),
    drained: fc.option(fc.record({ lsn, at: fc.nat() }, { noNullPrototype: true }), { nil: null }),
    floor: fc.option(
      lsn.map((at) => position(1, at, 0)),
      { nil: null },
    ),
  },
  { noNullPrototype: true },
)

test('every state survives its text, whatever its topics are called', () => {
  fc.assert(
    fc.property(states, (one) => {
      expect(decodeState(encodeState(one))).toEqual(one)
    }),
  )
  const proto = { ...state, topics: new Map([['__proto__', [{ position: null, offset: 7n }]]]) }
  expect(decodeState(encodeState(proto)).topics.get('__proto__')).toEqual([{ position: null, offset: 7n }])
  expect(({} as { offset?: unknown }).offset).toBeUndefined()
})

test('a text that was damaged anywhere is refused, never read as another state', () => {
  fc.assert(
    fc.property(states, fc.nat(), fc.string({ minLength: 1, maxLength: 3 }), fc.nat(3), (one, at, put, taken) => {
      const text = encodeState(one)
      const start = at % text.length
      const damaged = text.slice(0, start) + put + text.slice(start + taken)
      fc.pre(damaged !== text)
      expect(() => decodeState(damaged)).toThrow(expect.objectContaining({ code: 'MILLRACE_STATE_CONFLICT' }))
    }),
    { numRuns: 500 },
  )
})

test.each(['', '{}', 'null', '00000000 {}', encodeState(state).slice(9), encodeState(state).slice(0, -1)])(
  'what is no state is refused, not guessed at: %s',
  (text) => expect(() => decodeState(text)).toThrow(expect.objectContaining({ code: 'MILLRACE_STATE_CONFLICT' })),
)

test.each<[string, (one: RelayState) => unknown]>([
  ['no epoch', (one) => ({ ...one, epochs: [] })],
  ['epochs that are not a row', (one) => ({ ...one, epochs: [epoch(1), epoch(3)] })],
  ['a session that is no count', (one) => ({ ...one, session: -1 })],
  ['an LSN beyond 64 bits', (one) => ({ ...one, intent: 1n << 64n })],
  ['an offset before the log', (one) => ({ ...one, topics: new Map([['t', [{ position: null, offset: -2n }]]]) })],
  ['a position that is none', (one) => ({ ...one, topics: new Map([['t', [{ position: 'x', offset: 1n }]]]) })],
])('a state with %s is refused, although its check fits', (_, damage) => {
  expect(() => decodeState(encodeState(damage(state) as RelayState))).toThrow(
    expect.objectContaining({ code: 'MILLRACE_STATE_CONFLICT' }),
  )
})
