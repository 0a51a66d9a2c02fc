import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Epoch, epochAt, epochsUpon, lastEpoch, type ServerIdentity, sharedUpTo } from '../../src/core/epoch.ts'
import type { MillraceError } from '../../src/core/errors.ts'
import { followServer } from '../../src/core/failover.ts'
import { position } from '../../src/core/position.ts'
import type { RelayState, Tail } from '../../src/core/relay-state.ts'
import type { SourceIdentity } from '../../src/core/source.ts'
import { epoch, identity, state } from './stream.ts'

const topicsAt = (...positions: readonly (Tail['position'] | null)[]): ReadonlyMap<string, readonly Tail[]> =>
  new Map([['t', positions.map((at, offset) => ({ position: at, offset: BigInt(offset) }))]])

/** promoted at 0x1000 of timeline 1 */
const promoted: SourceIdentity = {
  ...identity,
  timeline: 2,
  history: [{ timeline: 1, end: 0x1000n }],
  walEnd: 0x1200n,
  confirmed: 0x900n,
}
const relayed: RelayState = { ...state, intent: 0xf00n }
const follow = (topics: ReadonlyMap<string, readonly Tail[]>, change: Partial<SourceIdentity> = {}, from = relayed): RelayState =>
  followServer({ state: from, topics, identity: { ...promoted, ...change } })
const refusal = (work: () => unknown): MillraceError => {
  try {
    work()
  } catch (error) {
    return error as MillraceError
  }
  throw new Error('a session would begin')
}

describe('a promoted standby', () => {
  test('that has all that was relayed continues the stream in a new epoch from the switch point on', () => {
    const topics = topicsAt(position(1, 0xfffn, 3), null)
    const followed = follow(topics)
    expect(followed.epochs).toEqual([epoch(1), epoch(2, { timeline: 2, began: 0x1000n, from: 0x1000n })])
    expect(followed).toMatchObject({ topics, intent: 0xf00n, drained: null })
    expect([0xfffn, 0x1000n, 0x1001n].map((lsn) => epochAt(followed.epochs, lsn))).toEqual([1, 2, 2])
    expect(follow(topics, {}, followed).epochs).toEqual(followed.epochs)
  })

  test('that lacks one event of one partition is refused: from where to where, what agrees, how to go on', () => {
    const { code, message, remedy } = refusal(() => follow(topicsAt(position(1, 0x10n, 1), position(1, 0x1000n, 2))))
    expect(code).toBe('MILLRACE_SOURCE_CHANGED')
    expect(message).toMatch(/left timeline 1 at 0\/1000, before events that were relayed/)
    expect(message).toMatch(
      /from 0\/1000 up to 00000001-0000000000001000-00000002 that this database never had; all events before/,
    )
    expect(remedy).toContain('millrace resume --accept-gap')
  })

  test('may lack what the old primary wrote beyond all events, as its keepalives told', () => {
    expect(follow(topicsAt(position(1, 0x10n, 1)), {}, { ...relayed, intent: 0x1800n }).intent).toBe(0x1000n)
  })

  test('is not taken to have relayed what it writes itself, though the stream was drained beyond its switch point', () => {
    const drained = { ...relayed, drained: { lsn: 0x1800n, at: 1 } }
    expect(follow(topicsAt(position(1, 0x10n, 1)), {}, drained).floor).toBe(position(1, 0x1000n, 0))
    expect(follow(topicsAt(position(1, 0x10n, 1)), {}, { ...relayed, floor: position(1, 0x800n, 0) }).floor).toBe(
      position(1, 0x800n, 0),
    )
  })

  test('whose slot was made anew sends too little, however far the old one had been confirmed', () => {
    const beyond = { confirmed: 0x1100n }
    for (const intent of [0xf00n, 0x1800n]) {
      const { code, message } = refusal(() => follow(topicsAt(position(1, 0x10n, 1)), beyond, { ...relayed, intent }))
      expect(code).toBe('MILLRACE_SLOT_MOVED')
      expect(message).toContain(`between 0/${intent < 0x1000n ? 'F00' : '1000'} and 0/1100 may be missing`)
    }
  })

  test('promoted twice while nobody looked has an epoch for each timeline', () => {
    const history = [...promoted.history, { timeline: 2, end: 0x1100n }]
    expect(follow(topicsAt(null), { timeline: 5, history }).epochs).toEqual([
      epoch(1),
      epoch(2, { timeline: 2, began: 0x1000n, from: 0x1000n }),
      epoch(3, { timeline: 5, began: 0x1100n, from: 0x1100n }),
    ])
  })

  test('apart from the one that was followed is refused, although both call their timeline 2', () => {
    const followed = follow(topicsAt(null))
    const apart = { history: [{ timeline: 1, end: 0x1008n }], walEnd: 0x2000n }
    const { code, message } = refusal(() => follow(topicsAt(null), apart, followed))
    expect(code).toBe('MILLRACE_SOURCE_CHANGED')
    expect(message).toMatch(/timeline 2 \(begun at 0\/1008\), which does not descend from timeline 2 \(begun at 0\/1000\)/)
    const later = { timeline: 3, history: [...apart.history, { timeline: 2, end: 0x1100n }] }
    expect(refusal(() => follow(topicsAt(null), later, followed)).code).toBe('MILLRACE_SOURCE_CHANGED')
  })

  test('does not count what an epoch before the last one relayed beyond the switch point: that was decided on', () => {
    const beyond = topicsAt(position(1, 0x1800n, 1))
    const gap = { at: 0, epoch: 2, from: 0x1000n, to: 0x1100n, refill: null }
    const accepted = { ...relayed, epochs: epochsUpon(relayed.epochs, promoted, beyond), gaps: [gap] }
    expect(follow(beyond, {}, accepted).epochs).toEqual(accepted.epochs)
  })

  test('counts what the replaced server’s last publish brought after the new epoch had begun: nobody decided on that', () => {
    const followed = follow(topicsAt(null))
    expect(followed.epochs).toHaveLength(2)
    expect(follow(topicsAt(position(1, 0xfffn, 1)), {}, followed).epochs).toEqual(followed.epochs)
    const { code, message } = refusal(() => follow(topicsAt(position(1, 0x1000n, 1)), {}, followed))
    expect(code).toBe('MILLRACE_SOURCE_CHANGED')
    expect(message).toContain('that this database never had')
  })
})

describe('a server', () => {
  test('of the same timeline goes on as it was', () => {
    const on = { ...promoted, timeline: 1, history: [] }
    expect(follow(topicsAt(position(1, 0x11ffn, 1)), on).epochs).toEqual([epoch(1)])
  })

  test('that lost WAL of which events were relayed is refused', () => {
    const { code, message } = refusal(() => follow(topicsAt(position(1, 0x1200n, 1)), { ...promoted, timeline: 1, history: [] }))
    expect(code).toBe('MILLRACE_SOURCE_CHANGED')
    expect(message).toMatch(/lost WAL: it ends at 0\/1200.*restored to an earlier state/)
  })

  test('that is another one is refused', () => {
    const { code, message, remedy } = refusal(() => follow(topicsAt(null), { systemId: '9' }))
    expect(code).toBe('MILLRACE_SOURCE_CHANGED')
    expect(message).toMatch(/system 9 on timeline 2, and the stream was read from system 7301 on timeline 1, up to 0\/F00/)
    expect(remedy).toContain('millrace resume')
  })
})

describe('epochs', () => {
  const server = (change: Partial<ServerIdentity>): ServerIdentity => ({ ...promoted, ...change })

  test.each<[string, ServerIdentity]>([
    ['another system', server({ systemId: '9' })],
    ['a branch that parted before', server({ timeline: 3, history: [{ timeline: 1, end: 0x800n }] })],
  ])('%s shares no past: all that it sends is of a new epoch', (_, one) => {
    const epochs = epochsUpon([epoch(1), epoch(2, { timeline: 2, began: 0x1000n, from: 0x1000n })], one, topicsAt(null))
    expect(epochs).toHaveLength(3)
    for (const lsn of [0n, 0x900n, 0x1000n, 1n << 40n]) expect(epochAt(epochs, lsn)).toBe(3)
    expect(sharedUpTo(lastEpoch(epochs), one)).toBe(one.walEnd)
  })

  test('a server that lost WAL shares no past either', () => {
    const restored = server({ timeline: 1, history: [] })
    const epochs = epochsUpon([epoch(1)], restored, topicsAt(position(1, 0x1200n, 1)))
    expect(epochAt(epochs, 1n)).toBe(2)
    expect(epochsUpon(epochs, restored, topicsAt(position(1, 0x1200n, 1)))).toBe(epochs)
  })

  test('over any row of promotions, the epoch of a commit is that of the timeline its record lies on, and never falls', () => {
    const histories = fc
      .array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.bigInt({ min: 1n, max: 0x1000n })), { maxLength: 6 })
      .map((steps) => {
        let timeline = 1
        let end = 0n
        return steps.map(([up, by]) => {
          const left = { timeline, end: (end += by) }
          timeline += up
          return left
        })
      })
    fc.assert(
      fc.property(histories, fc.array(fc.nat(6)), fc.array(fc.bigInt({ min: 0n, max: 0x8000n })), (history, looks, commits) => {
        const at = (length: number): ServerIdentity => ({
          systemId: '7301',
          // a timeline's number is told by the line that leaves it; the last one's is above all
          timeline: history[length]?.timeline ?? (history.at(-1)?.timeline ?? 0) + 1,
          history: history.slice(0, length),
          walEnd: history[length]?.end ?? 1n << 40n,
        })
        let epochs: readonly Epoch[] = [epoch(1)]
        for (const look of [...looks.map((n) => Math.min(n, history.length)).sort((a, b) => a - b), history.length])
          epochs = epochsUpon(epochs, at(look), topicsAt(null))
        expect(epochs.map(({ timeline }) => timeline)).toEqual([
          ...history.map(({ timeline }) => timeline),
          at(history.length).timeline,
        ])
        let before = 0
        for (const commit of [...commits].sort((a, b) => (a < b ? -1 : 1))) {
          const lies = 1 + history.filter(({ end }) => end <= commit).length
          expect(epochAt(epochs, commit)).toBe(lies)
          expect(lies).toBeGreaterThanOrEqual(before)
          before = lies
        }
      }),
    )
  })
})
