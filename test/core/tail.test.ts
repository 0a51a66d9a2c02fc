import { describe, expect, test } from 'vitest'
import type { Event } from '../../src/core/event.ts'
import { position } from '../../src/core/position.ts'
import type { Tail } from '../../src/core/relay-state.ts'
import { acknowledged, beginAnew, beginSearch, endSearch, searchStep } from '../../src/core/tail.ts'

const place = { topic: 'orders', partition: 0 }
const at = (n: number) => position(1, BigInt(n), 1)
const event = (n: number, prev: number | null, source = 'shop'): Event => ({
  source,
  position: at(n),
  prev: prev === null ? null : at(prev),
  id: `e${n}`,
  type: 'T',
  key: new Uint8Array(),
  value: null,
  headers: [],
  committedAt: 0,
  version: '1',
  orderingKey: null,
  placeholder: null,
})

/** What the relay finds from a recorded tail in a log that starts at `start` and holds these events. */
function find(recorded: Tail, start: number, log: readonly (Event | null)[], begin = beginSearch): Tail {
  let search = begin(place, 'shop', recorded, { start: BigInt(start), end: BigInt(start + log.length) })
  log.forEach((entry, i) => {
    const offset = BigInt(start + i)
    if (offset < search.range.start) return
    search = searchStep(search, offset, entry)
  })
  return endSearch(search)
}

describe('the tail is found by reading forward from what was recorded', () => {
  const recorded: Tail = { position: at(2), offset: 1n }

  test('what a lost reply left behind is the tail', () => {
    expect(find(recorded, 0, [event(1, null), event(2, 1), event(3, 2), event(4, 3)])).toEqual({ position: at(4), offset: 3n })
  })

  test("a zombie's late duplicates are not the tail, though they stand last", () => {
    expect(find(recorded, 0, [event(1, null), event(2, 1), event(3, 2), event(1, null), event(2, 1)])).toEqual({
      position: at(3),
      offset: 2n,
    })
  })

  test('records of other sources and of foreign producers are passed over', () => {
    expect(find(recorded, 0, [event(1, null), event(2, 1), event(9, 8, 'other'), null, event(3, 2)])).toEqual({
      position: at(3),
      offset: 4n,
    })
  })

  test('a partition that retention has emptied keeps its recorded tail', () => {
    expect(find(recorded, 7, [])).toEqual(recorded)
  })

  test('a partition that retention has cut goes on from what is there', () => {
    expect(find(recorded, 4, [event(5, 4), event(6, 5)])).toEqual({ position: at(6), offset: 5n })
  })

  test('a topic without an event of ours is read from its recorded end', () => {
    const none: Tail = { position: null, offset: 1n }
    expect(find(none, 0, [null, null, event(1, null)])).toEqual({ position: at(1), offset: 2n })
    expect(find({ position: null, offset: -1n }, 0, [])).toEqual({ position: null, offset: -1n })
  })
})

const lost = expect.objectContaining({ code: 'MILLRACE_QUEUE_LOST_END' })
const thrown = (work: () => unknown): unknown => {
  try {
    return work()
  } catch (error) {
    return error
  }
}

describe('a chain that is broken behind the recorded tail is looked for in the whole log', () => {
  test('where the tail is a late duplicate behind what another session had published and not recorded', () => {
    const recorded: Tail = { position: at(2), offset: 3n }
    const log = [event(1, null), event(2, 1), event(3, 2), event(2, 1), event(4, 3)]
    expect(thrown(() => find(recorded, 0, log))).toEqual(lost)
    expect(find(recorded, 0, log, beginAnew)).toEqual({ position: at(4), offset: 4n })
  })

  test('where another session had published before the end of the topic was recorded', () => {
    const recorded: Tail = { position: null, offset: 0n }
    const log = [event(1, null), event(2, 1)]
    expect(thrown(() => find(recorded, 0, log))).toEqual(lost)
    expect(find(recorded, 0, log, beginAnew)).toEqual({ position: at(2), offset: 1n })
  })

  test('also in a log whose beginning retention has taken', () => {
    const recorded: Tail = { position: at(2), offset: 8n }
    expect(find(recorded, 7, [event(3, 2), event(2, 1), event(4, 3)], beginAnew)).toEqual({ position: at(4), offset: 9n })
    const stale = [event(3, 2), event(5, 4), event(9, 8), event(7, 6), event(10, 9)]
    expect(find({ position: at(7), offset: 10n }, 7, stale, beginAnew)).toEqual({ position: at(10), offset: 11n })
  })

  test('and what was lost is missing there as well, whatever retention has taken', () => {
    const recorded: Tail = { position: at(2), offset: 8n }
    for (const start of [7, 8]) {
      const log = [event(1, null), event(2, 1), event(4, 3)].slice(start - 7)
      expect(thrown(() => find(recorded, start, log, beginAnew))).toEqual(lost)
    }
    expect(thrown(() => find({ position: null, offset: 7n }, 7, [null, event(4, 3)], beginAnew))).toEqual(lost)
  })

  test('and another record at the recorded offset is a loss', () => {
    const recorded: Tail = { position: at(2), offset: 1n }
    expect(thrown(() => find(recorded, 0, [event(1, null), null, event(2, 1)], beginAnew))).toEqual(lost)
    const search = beginAnew(place, 'shop', recorded, { start: 0n, end: 3n })
    expect(thrown(() => endSearch(searchStep(searchStep(search, 0n, event(1, null)), 2n, event(2, 1))))).toEqual(lost)
  })
})

describe('a queue that lost what it acknowledged halts the relay', () => {
  const recorded: Tail = { position: at(2), offset: 1n }

  test('(i) its log ends at or before the recorded offset', () => {
    expect(thrown(() => find(recorded, 0, [event(1, null)]))).toEqual(lost)
    expect(thrown(() => find(recorded, 0, []))).toEqual(lost)
  })

  test('(i) which a relay that runs sees without reading', () => {
    for (const end of [0n, 1n]) expect(thrown(() => beginSearch(place, 'shop', recorded, { start: 0n, end }))).toEqual(lost)
    expect(thrown(() => beginSearch(place, 'shop', recorded, { start: 0n, end: 2n }))).not.toEqual(lost)
  })

  test('(ii) another record stands at the recorded offset', () => {
    expect(thrown(() => find(recorded, 0, [event(1, null), event(3, 1)]))).toEqual(lost)
    expect(thrown(() => find(recorded, 0, [event(1, null), null]))).toEqual(lost)
    expect(thrown(() => find(recorded, 0, [event(1, null), event(2, 1, 'other')]))).toEqual(lost)
  })

  test('(ii) nothing stands at the recorded offset, although the log begins before it', () => {
    const search = beginSearch(place, 'shop', recorded, { start: 0n, end: 3n })
    expect(thrown(() => endSearch(searchStep(search, 2n, null)))).toEqual(lost)
  })

  test('(iii) what is read forward does not chain', () => {
    expect(thrown(() => find(recorded, 0, [event(1, null), event(2, 1), event(4, 3)]))).toEqual(lost)
    expect(thrown(() => find({ position: null, offset: -1n }, 0, [event(4, 3)]))).toEqual(lost)
  })

  test('(iv) an acknowledged offset is not above the one before it', () => {
    expect(acknowledged(place, recorded, 2n, 3, at(5))).toEqual({ position: at(5), offset: 4n })
    expect(thrown(() => acknowledged(place, recorded, 1n, 3, at(5)))).toEqual(lost)
  })
})
