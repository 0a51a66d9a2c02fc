import { Writable } from 'node:stream'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openLineSink } from '../../connectors/sinks/stdout.ts'
import type { Event } from '../../src/core/event.ts'
import { toRecord } from '../../src/core/record.ts'
import { eventStream } from '../../src/testing/events.ts'
import { eventually } from '../support/eventually.ts'
import { createRig, inPhase, laneOf, put, type Rig, TOPIC } from './rig.ts'

let rig: Rig
beforeEach(async () => {
  rig = await createRig()
})
afterEach(() => rig.drop())

/** so many events of one stream: keys `<name>1`, `<name>2` … */
function events(name: string, count: number, stream = eventStream()): Event[] {
  return Array.from({ length: count }, (_, i) => stream.next(put(`${name}${i + 1}`, 'x')))
}

describe('a chain', () => {
  test('with a gap halts its partition after what stands before the gap, and the others flow on', async () => {
    const [a1, a2, , a4] = events('a', 4)
    await rig.publish(0, [a1, a2, a4] as Event[])
    const applier = rig.applier(await rig.sink())
    const halted = await inPhase(applier, 0, 'halted')
    expect(halted.error).toMatchObject({
      code: 'MILLRACE_GAP',
      remedy: expect.stringContaining('find out'),
      fields: { topic: TOPIC, partition: 0, position: a4?.position, at: a2?.position, offset: '2' },
    })
    await rig.publish(1, events('b', 2))
    await rig.rowsAre(['a1=x', 'a2=x', 'b1=x', 'b2=x'])
    expect(laneOf(applier, 0)?.phase).toBe('halted')
  })

  test('that is halted lags more and more, whatever it halted at', async () => {
    const [a1, , a3] = events('a', 3)
    const unmapped = eventStream().next({ type: 'Unheard', key: 'b', payload: {} })
    await rig.publish(0, [a1, a3] as Event[])
    await rig.publish(1, [unmapped])
    const applier = rig.applier(await rig.sink())
    for (const partition of [0, 1]) {
      await inPhase(applier, partition, 'halted')
      await eventually(() => (laneOf(applier, partition)?.lagMs ?? 0) > 500, { what: `the lag of ${partition} grows` })
    }
  })

  test('with a gap right after its first event halts too: a log that nobody trimmed is not bridged', async () => {
    const [a1, , a3] = events('a', 3)
    await rig.publish(0, [a1] as Event[])
    await rig.publish(0, [a3] as Event[])
    await inPhase(rig.applier(await rig.sink()), 0, 'halted')
    expect(await rig.rows()).toEqual(['a1=x'])
  })

  test("is not disturbed by a zombie's late run: duplicates have no effect, and what is new in it counts", async () => {
    const stream = eventStream()
    const first = stream.next(put('a', 'old'))
    const second = stream.next(put('a', 'new'))
    const third = stream.next({ type: 'Gone', key: 'b' })
    const fourth = stream.next(put('c', 'late'))
    await rig.publish(0, [first, second, third])
    const applier = rig.applier(await rig.sink())
    await rig.rowsAre(['a=new'])
    await rig.publish(0, [first, second, third, fourth])
    await rig.publish(0, [fourth, stream.next(put('d', 'next'))])
    await rig.rowsAre(['a=new', 'c=late', 'd=next'])
    expect(laneOf(applier, 0)).toMatchObject({ phase: 'following', applied: 5 })
  })

  test('is each source’s own where two share a topic: neither is a gap in, nor stale behind, the other', async () => {
    const shop = eventStream({ source: 'shop' })
    const other = eventStream({ source: 'other', firstCommit: 0x10n })
    const sink = openLineSink(new Writable({ write: (_, __, done) => done() }))
    const applier = rig.applier(sink)
    await rig.publish(0, [
      shop.next(put('s', '1')),
      other.next(put('o', '1')),
      shop.next(put('s', '2')),
      other.next(put('o', '2')),
    ])
    await eventually(() => laneOf(applier, 0)?.applied === 4, { what: 'all four are applied' })
    expect(laneOf(applier, 0)?.positions).toEqual(
      new Map([
        ['shop', shop.at],
        ['other', other.at],
      ]),
    )
    other.next(put('o', 'lost'))
    await rig.publish(0, [shop.next(put('s', '3')), other.next(put('o', '4'))])
    const { error } = await inPhase(applier, 0, 'halted')
    expect(error).toMatchObject({ code: 'MILLRACE_GAP', fields: { source: 'other' } })
    expect(laneOf(applier, 0)).toMatchObject({ applied: 5 })
  })

  test('passes over a source that the sink does not follow, gaps and all', async () => {
    const shop = eventStream({ source: 'shop' })
    const other = eventStream({ source: 'other', firstCommit: 0x10n })
    const [s1, o1, s2] = [shop.next(put('s', '1')), other.next(put('o', '1')), shop.next(put('s', '2'))]
    other.next(put('o', 'lost'))
    await rig.publish(0, [s1, o1, s2])
    // the guard of a table is one source's, so the sink follows both in checkpoints and this table takes one
    const applier = rig.applier(await rig.sink(), { sources: ['shop'] })
    await rig.rowsAre(['s=2'])
    await eventually(() => laneOf(applier, 0)?.passedOver === 1, { what: 'the other source’s event is passed over' })
    await rig.publish(0, [other.next(put('o', '3')), shop.next(put('s', '3'))])
    await rig.rowsAre(['s=3'])
    expect(laneOf(applier, 0)).toMatchObject({ phase: 'following', passedOver: 2 })
    expect([...(laneOf(applier, 0)?.positions.keys() ?? [])]).toEqual(['shop'])
  })
})

test('records of other producers are passed over and counted', async () => {
  const [a1, a2] = events('a', 2) as [Event, Event]
  const foreign = { key: Buffer.from('k'), value: Buffer.from('v'), headers: [['id', 'not ours']] as const }
  await rig.publish(0, [foreign, a1, foreign, a2, foreign])
  const applier = rig.applier(await rig.sink())
  await rig.rowsAre(['a1=x', 'a2=x'])
  await eventually(() => laneOf(applier, 0)?.offset === 5n, { what: 'the partition is read to its end' })
  expect(laneOf(applier, 0)?.passedOver).toBe(3)
})

describe('what stands before an event that cannot be applied is applied, and its partition halts there', () => {
  test('where the store refuses it, and the sink parks nothing', async () => {
    const stream = eventStream()
    const good = stream.next(put('a', 'x'))
    const poison = stream.next({ type: 'Put', key: 'b', payload: { id: 'b', total: 'much', note: 'x' } })
    await rig.publish(0, [good, poison, stream.next(put('c', 'x'))])
    await rig.publish(1, events('z', 1))
    const applier = rig.applier(await rig.sink(rig.replica.url, { parking: false }))
    const { error, offset } = await inPhase(applier, 0, 'halted')
    expect(error).toMatchObject({
      code: 'MILLRACE_EVENT_REJECTED',
      remedy: expect.any(String),
      fields: { topic: TOPIC, partition: 0, position: poison.position, id: poison.id, type: 'Put' },
    })
    expect(offset).toBe(1n)
    await rig.rowsAre(['a=x', 'z1=x'])
  })

  test('where the record says that it is ours and cannot be read', async () => {
    const [a1, a2] = events('a', 2) as [Event, Event]
    const torn = { ...toRecord(a2), headers: toRecord(a2).headers.filter(([name]) => name !== 'millrace-position') }
    await rig.publish(0, [a1, torn])
    const { error } = await inPhase(rig.applier(await rig.sink()), 0, 'halted')
    expect(error).toMatchObject({ code: 'MILLRACE_RECORD_INVALID', fields: { offset: '1' } })
    await rig.rowsAre(['a1=x'])
  })
})
