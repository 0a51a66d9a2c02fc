import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MillraceError } from '../../src/core/errors.ts'
import { type Event, orderOf } from '../../src/core/event.ts'
import type { StoredRecord } from '../../src/core/queue.ts'
import { toRecord } from '../../src/core/record.ts'
import { eventKey, type LaneRules, type LaneState, planLane, type Verdict } from '../../src/pipeline/lane-plan.ts'
import { eventStream } from '../../src/testing/events.ts'

const rules: LaneRules = { topic: 't', partition: 0, sources: null, parks: true }
const empty: LaneState = { chains: new Map(), parked: new Set(), offset: 0n, beginning: { until: 0n, founding: new Set() } }
const park = { park: { code: 'MILLRACE_EVENT_REJECTED', message: 'no' } }

/** as a queue would give them back, from offset 0 */
const stored = (events: readonly Event[]): StoredRecord[] =>
  events.map((event, i) => {
    const { key, value, headers } = toRecord(event)
    return {
      offset: BigInt(i),
      timestamp: 0,
      key,
      value,
      headers: headers.map(([name, header]) => [name, typeof header === 'string' ? Buffer.from(header) : header] as const),
    }
  })

const names = (events: readonly Event[]): string[] => events.map(({ key }) => Buffer.from(key).toString())

/** one event per letter, keyed by it */
function events(letters: string, stream = eventStream()): Event[] {
  return [...letters].map((key) => stream.next({ type: 'Put', key, payload: {} }))
}

describe('a verdict on one event', () => {
  test('parks it and what follows of its key, in order; the others are applied', () => {
    const all = events('abaca')
    const { batch, after, stopped } = planLane(empty, stored(all), rules, new Map([[eventKey(all[2] as Event), park]]))
    expect(names(batch.events)).toEqual(['a', 'b', 'c'])
    expect(batch.parked.map(({ event, offset, reason }) => [event.position, offset, reason])).toEqual([
      [all[2]?.position, 2n, park.park],
      [all[4]?.position, 4n, null],
    ])
    expect(batch).toMatchObject({ offset: 5n, moves: [{ source: 'shop', from: null, to: all[4]?.position }] })
    expect([...after.parked]).toEqual(['shop/a'])
    expect(stopped).toBeNull()
  })

  test('that stops ends the plan right before it', () => {
    const all = events('abc')
    const why = new MillraceError('MILLRACE_EVENT_UNMAPPED', 'x')
    const { batch, stopped } = planLane(empty, stored(all), rules, new Map([[eventKey(all[1] as Event), { stop: why }]]))
    expect(names(batch.events)).toEqual(['a'])
    expect(batch).toMatchObject({ offset: 1n, moves: [{ to: all[0]?.position }] })
    expect(stopped).toBe(why)
  })
})

test('a key that is parked stays so in later batches, by its ordering key where it has one', () => {
  const stream = eventStream()
  const [a, b, c] = [
    { ...stream.next({ type: 'Put', key: 'a', payload: {} }), orderingKey: 'group' },
    { ...stream.next({ type: 'Put', key: 'b', payload: {} }), orderingKey: 'group' },
    stream.next({ type: 'Put', key: 'group2', payload: {} }),
  ] as const
  const first = planLane(empty, stored([a]), rules, new Map([[eventKey(a), park]]))
  const records = stored([a, b, c]).slice(1)
  const second = planLane(first.after, records, rules)
  expect(second.batch.parked.map(({ event, reason }) => [event.position, reason])).toEqual([[b.position, null]])
  expect(names(second.batch.events)).toEqual(['group2'])
})

describe('a placeholder', () => {
  const placed = (): Event[] =>
    events('aba').map((event, i) => (i === 0 ? { ...event, value: null, placeholder: 'MILLRACE_EVENT_TOO_LARGE' } : event))

  test('parks its key', () => {
    const { batch } = planLane(empty, stored(placed()), rules)
    expect(names(batch.events)).toEqual(['b'])
    expect(batch.parked.map(({ reason }) => reason?.code ?? null)).toEqual(['MILLRACE_EVENT_TOO_LARGE', null])
  })

  test('stops a sink that parks nothing', () => {
    const { batch, stopped } = planLane(empty, stored(placed()), { ...rules, parks: false })
    expect(batch).toMatchObject({ offset: 0n, moves: [], events: [], parked: [] })
    expect(stopped).toMatchObject({ code: 'MILLRACE_EVENT_TOO_LARGE', remedy: expect.any(String) })
  })
})

test('a chain that began in the midst of a log is kept as founding until an event stands beyond the end that the log had', () => {
  const [stale, live, next] = events('abc')
  const begun: LaneState = { ...empty, offset: 5n, beginning: { until: 7n, founding: new Set() } }
  const at = (offset: bigint, event: Event): StoredRecord[] => stored([event]).map((record) => ({ ...record, offset }))
  const first = planLane(begun, at(6n, stale as Event), rules)
  expect(first.batch.beginning).toBe('{"until":"7","founding":["shop"]}')
  const jump = {
    ...(live as Event),
    prev: (next as Event).position,
    position: `f${(live as Event).position.slice(1)}` as Event['position'],
  }
  const second = planLane(first.after, at(7n, jump), rules)
  expect(second.stopped).toBeNull()
  expect(second.founded.map(({ at }) => at)).toEqual([stale?.position])
  expect(second.batch.beginning).toBe('{"until":"7","founding":[]}')
  const third = planLane(second.after, at(8n, { ...jump, position: `ff${jump.position.slice(2)}` as Event['position'] }), rules)
  expect(third.stopped).toMatchObject({ code: 'MILLRACE_GAP' })
})

test('whatever the verdicts, each event is applied or parked once, keys keep their order, and no parked key is overtaken', () => {
  const letters = fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { minLength: 1, maxLength: 30 })
  fc.assert(
    fc.property(letters, fc.array(fc.nat(29), { maxLength: 5 }), fc.nat(29), (keys, culprits, cut) => {
      const all = events(keys.join(''))
      const verdicts = new Map<string, Verdict>(
        culprits.flatMap((at) => (all[at] === undefined ? [] : [[eventKey(all[at]), park] as const])),
      )
      const records = stored(all)
      const first = planLane(empty, records.slice(0, cut), rules, verdicts)
      const second = planLane(first.after, records.slice(cut), rules, verdicts)
      const applied = [...first.batch.events, ...second.batch.events].map((event) => event.position)
      const parked = [...first.batch.parked, ...second.batch.parked]
      expect([...applied, ...parked.map(({ event }) => event.position)].sort()).toEqual(all.map(({ position }) => position))
      for (const order of new Set(all.map(orderOf))) {
        const own = all.filter((event) => orderOf(event) === order)
        const firstParked = own.findIndex((event) => verdicts.has(eventKey(event)))
        const upTo = firstParked === -1 ? own.length : firstParked
        expect(own.filter((event) => applied.includes(event.position))).toEqual(own.slice(0, upTo))
        expect(parked.filter(({ event }) => orderOf(event) === order).map(({ reason }) => reason !== null)).toEqual(
          own.slice(upTo).map((_, i) => i === 0),
        )
      }
      expect(second.after.offset).toBe(BigInt(all.length))
    }),
  )
})
