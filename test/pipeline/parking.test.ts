import { afterEach, beforeEach, expect, test } from 'vitest'
import { codeOf } from '../../src/core/errors.ts'
import type { Event } from '../../src/core/event.ts'
import type { Parking, Sink } from '../../src/core/sink.ts'
import type { Applier } from '../../src/pipeline/applier.ts'
import { eventStream } from '../../src/testing/events.ts'
import { openSink } from '../connectors/postgres-fixture.ts'
import { eventually } from '../support/eventually.ts'
import { createRig, inPhase, laneOf, put, type Rig, TOPIC } from './rig.ts'

/** From the queue to the replica and back: an event that cannot be applied, and the people who mend it. */

let rig: Rig
beforeEach(async () => {
  rig = await createRig()
  await rig.replica.query(`alter table orders add constraint fit check (note not like 'unfit%')`)
})
afterEach(() => rig.drop())

const BY = { actor: 'ada', note: null }
const mend = () => rig.replica.query('alter table orders drop constraint fit')
const keyOf = (order: string, partition = 0) => ({ topic: TOPIC, partition, order })
const parkedKeys = async (parking: Parking): Promise<readonly string[]> =>
  (await parking.keys(100)).map(({ order }) => order).sort()

async function parkingSink(): Promise<{ readonly sink: Sink; readonly parking: Parking }> {
  const sink = await rig.sink()
  return { sink, parking: sink.parking as Parking }
}

/** the partition has been read to its end */
const atEnd = (applier: Applier, partition = 0): Promise<unknown> =>
  eventually(
    async () => {
      // the log's own end: the lane looks at it only now and then
      const end = (await rig.queue.ranges(TOPIC))[partition]?.end
      const lane = laneOf(applier, partition)
      return lane?.offset === end && lane?.phase === 'following'
    },
    { within: 20_000, what: `partition ${partition} is at its end` },
  )

test('a poisoned event parks its key alone, the rest flows, and a redrive makes the replica equal', async () => {
  const { sink, parking } = await parkingSink()
  const applier = rig.applier(sink)
  const stream = eventStream()
  await rig.publish(0, [
    stream.next(put('a', '1')),
    stream.next(put('b', 'unfit')),
    stream.next(put('a', '2')),
    stream.next(put('c', '4')),
  ])
  await rig.rowsAre(['a=2', 'c=4'])
  await atEnd(applier)
  expect(await parking.keys(9)).toMatchObject([{ order: 'shop/b', events: 1, reason: { code: 'MILLRACE_EVENT_REJECTED' } }])
  // one that comes later waits too
  await rig.publish(0, [
    stream.next({ type: 'Gone', key: 'a' }),
    stream.next(put('b', '3')),
    stream.next(put('b', 'unfit as well')),
  ])
  await rig.rowsAre(['c=4'])
  await atEnd(applier)
  expect(await parking.redrive(keyOf('shop/b'), BY)).toMatchObject({ applied: 0, remaining: 3 })
  await mend()
  expect(await parking.redrive(keyOf('shop/b'), BY)).toMatchObject({ applied: 3, remaining: 0 })
  // the owner learns that the key is free
  await rig.publish(0, [stream.next(put('b', 'flows'))])
  await rig.rowsAre(['b=flows', 'c=4'])
  expect(laneOf(applier, 0)).toMatchObject({ phase: 'following', parked: 3, parkedKeys: 0 })
  expect(await parkedKeys(parking)).toEqual([])
})

test('what is parked stays so for the next owner', async () => {
  const { sink, parking } = await parkingSink()
  const stream = eventStream()
  const first = rig.applier(sink)
  await rig.publish(0, [stream.next(put('a', 'unfit'))])
  await eventually(async () => (await parkedKeys(parking)).length === 1, { what: 'the key is parked' })
  await first.stop()
  await mend()
  await rig.publish(0, [stream.next(put('a', 'later')), stream.next(put('b', '1'))])
  const second = rig.applier(await rig.sink())
  await rig.rowsAre(['b=1'])
  await atEnd(second)
  expect(laneOf(second, 0)).toMatchObject({ parkedKeys: 1 })
  expect(await parking.redrive(keyOf('shop/a'), BY)).toMatchObject({ applied: 2 })
  await rig.rowsAre(['a=later', 'b=1'])
})

test('an event that could not be published parks its key, and a skip passes it', async () => {
  const { sink, parking } = await parkingSink()
  rig.applier(sink)
  const stream = eventStream()
  const hole: Event = { ...stream.next(put('a', 'never')), value: null, placeholder: 'MILLRACE_EVENT_TOO_LARGE' }
  await rig.publish(0, [hole, stream.next(put('a', '2')), stream.next(put('b', '1'))])
  await rig.rowsAre(['b=1'])
  expect(await parking.redrive(keyOf('shop/a'), BY)).toMatchObject({ remaining: 2, reason: { code: 'MILLRACE_EVENT_TOO_LARGE' } })
  expect(await parking.skip(keyOf('shop/a'), hole.position, BY)).toMatchObject({ applied: 1, remaining: 0 })
  await rig.rowsAre(['a=2', 'b=1'])
})

test('a conflict that no other partition can resolve parks its key', async () => {
  await rig.replica.query('create unique index one_note on orders (note)')
  const { sink, parking } = await parkingSink()
  rig.applier(sink)
  const stream = eventStream()
  await rig.publish(0, [stream.next(put('a', '1')), stream.next(put('b', '1')), stream.next(put('c', '2'))])
  await rig.rowsAre(['a=1', 'c=2'])
  expect(await parking.keys(9)).toMatchObject([{ order: 'shop/b', reason: { code: 'MILLRACE_EVENT_CONFLICT' } }])
  await rig.publish(0, [stream.next(put('a', '3'))])
  await rig.rowsAre(['a=3', 'c=2'])
  await parking.redrive(keyOf('shop/b'), BY)
  await rig.rowsAre(['a=3', 'b=1', 'c=2'])
})

test('more than may be parked halts the partition alone; mended and redriven, it goes on', async () => {
  const options = {
    url: rig.replica.url,
    parking: { maxKeys: 2 },
    tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { Put: 'upsert', Gone: 'delete' } }] as const,
  }
  const sink = await openSink({ ...options, tables: [...options.tables] })
  try {
    await sink.init()
    const applier = rig.applier(sink)
    const [stream, other] = [eventStream(), eventStream({ firstCommit: 0x9000n })]
    await rig.publish(0, [stream.next(put('a', 'unfit'))])
    await eventually(async () => (await sink.parking?.totals())?.keys === 1, { what: 'the first key is parked' })
    await rig.publish(
      0,
      ['b', 'c', 'd'].map((key) => stream.next(put(key, 'unfit'))),
    )
    const { error } = await inPhase(applier, 0, 'halted')
    expect(error).toMatchObject({
      code: 'MILLRACE_PARKING_FULL',
      fields: { keys: 1, keysOfCode: 3, code: 'MILLRACE_EVENT_REJECTED' },
    })
    await rig.publish(1, [other.next(put('z', 'flows'))])
    await rig.rowsAre(['z=flows'])
    await applier.stop()
    await mend()
    for (const key of await (sink.parking as Parking).keys(9)) await (sink.parking as Parking).redrive(key, BY)
    const again = rig.applier(sink)
    await rig.rowsAre(['a=unfit', 'b=unfit', 'c=unfit', 'd=unfit', 'z=flows'])
    await again.stop()
  } finally {
    await sink.close()
  }
})

test('a sink that parks nothing halts its partition at the event, and what stands before it is applied', async () => {
  const sink = await openSink({
    url: rig.replica.url,
    parking: false,
    tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { Put: 'upsert', Gone: 'delete' } }],
  })
  try {
    await sink.init()
    const applier = rig.applier(sink)
    const stream = eventStream()
    await rig.publish(0, [stream.next(put('a', '1')), stream.next(put('b', 'unfit')), stream.next(put('c', '1'))])
    expect((await inPhase(applier, 0, 'halted')).error).toMatchObject({ code: 'MILLRACE_EVENT_REJECTED' })
    await rig.rowsAre(['a=1'])
    await applier.stop()
  } finally {
    await sink.close()
  }
})

test('the replica equals its history, whatever is poisoned and redriven while it flows', async () => {
  const { sink, parking } = await parkingSink()
  const applier = rig.applier(sink)
  const streams = [eventStream(), eventStream({ firstCommit: 0x900000n })] as const
  const expected = new Map<string, string>()
  let over = false
  const people = (async () => {
    while (!over) {
      await new Promise(setImmediate)
      for (const key of await parking.keys(100))
        await parking.redrive(key, BY).catch((error: unknown) => expect(codeOf(error)).toBe('MILLRACE_NOT_PARKED'))
    }
  })()
  const [first, second] = streams
  for (let round = 0; round < 25; round++)
    for (const [partition, stream] of [first, second].entries()) {
      const events = Array.from({ length: 8 }, (_, index) => {
        const number = round * 8 + index
        const key = `p${partition}-${(number * 7) % 5}`
        if (number % 11 === 3) {
          expected.delete(key)
          return stream.next({ type: 'Gone', key })
        }
        const note = number % 6 === 0 ? `unfit ${number}` : String(number)
        expected.set(key, note)
        return stream.next(put(key, note))
      })
      await rig.publish(partition, events)
    }
  await atEnd(applier, 0)
  await atEnd(applier, 1)
  over = true
  await people
  await mend()
  for (const key of await parking.keys(100)) expect(await parking.redrive(key, BY)).toMatchObject({ remaining: 0 })
  await rig.rowsAre([...expected].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, note]) => `${key}=${note}`))
  expect(await parking.totals()).toEqual({ keys: 0, events: 0, bytes: 0 })
}, 120_000)
