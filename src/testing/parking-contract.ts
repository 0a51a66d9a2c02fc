import assert from 'node:assert/strict'
import { type Event, orderOf } from '../core/event.ts'
import type { Audit, KeyPlace, ParkedEvent, Parking, ParkReason, Sink } from '../core/sink.ts'
import { batchOf, eventStream } from './events.ts'
import { equal, matches, rejects } from './expect.ts'
import { FENCED, offsetOnly, type Promised } from './sink-contract.ts'
import { type Stand, UNFIT } from './sink-under-test.ts'

const REASON: ParkReason = { code: 'MILLRACE_EVENT_REJECTED', message: 'it does not fit' }
const BY: Audit = { actor: 'ada@here', note: 'mended the table' }
const CHANGED = { code: 'MILLRACE_PARKED_CHANGED' }
const NOT_PARKED = { code: 'MILLRACE_NOT_PARKED' }

/** What `LaneBatch.parked` and `Sink.parking` promise. */
export function parkingContract(promised: Promised): void {
  promised('keeps parked events whole, with the checkpoint that passes them, for whoever comes next', async (stand) => {
    const { partition, stream, write } = stand.fresh()
    const lane = await stand.sink.claim(partition)
    const headers = [
      ['traceparent', Buffer.from('00-1-2')],
      ['', Buffer.from([0, 255])],
      ['traceparent', Buffer.from('again')],
    ] as const
    const first: Event = { ...write('a', 'one'), headers, orderingKey: 'tenant', version: '7' }
    const second: Event = { ...write('b', 'two'), value: null, orderingKey: 'tenant', placeholder: 'MILLRACE_EVENT_TOO_LARGE' }
    const other = write('c', 'three')
    await lane.apply(batchOf([other], 3n, waiting([first, second])))
    const another = await stand.another()
    const { checkpoint } = await another.claim(partition)
    equal(checkpoint, {
      ...partition,
      positions: new Map([[stream.source, stream.at]]),
      offset: 3n,
      parked: new Set(['shop/tenant']),
      beginning: null,
    })
    const known = (await another.checkpoints()).find((one) => one.partition === partition.partition)
    equal(known?.parked, new Set(['shop/tenant']))
    const key = { ...partition, order: 'shop/tenant' }
    const kept = await parkingOf(another).events(key, 10)
    equal(
      kept.map(({ parkedAt, ...one }) => ({ ...one, dated: parkedAt instanceof Date })),
      [
        { event: first, offset: 0n, reason: REASON, dated: true },
        { event: second, offset: 1n, reason: null, dated: true },
      ],
    )
    equal((await parkingOf(another).events(key, 1)).length, 1)
    const keys = await keysOf(another, key)
    equal(keys.length, 1)
    matches(keys[0], { ...key, position: first.position, reason: REASON, events: 2, bytes: isCount, since: isDate })
  })

  promised('parks all or nothing with the rest of the batch', async ({ sink, fresh, under }) => {
    const { partition, write, unfit, shown } = fresh()
    const lane = await sink.claim(partition)
    const [a, bad, fit] = [write('a', 'waits'), under.unfit ? unfit('b') : write('b', 'waits too'), write('c', 'one')]
    if (under.unfit) {
      const error = await rejects(lane.apply(batchOf([bad, fit], 3n, waiting([a]))), {})
      matches((error as { fields?: unknown }).fields, { position: bad.position })
    }
    equal((await lane.reread()).parked, new Set())
    equal(await keysOf(sink, partition), [])
    await lane.apply(batchOf([fit], 3n, [...waiting([a]), ...waiting([bad], 1n)]))
    equal((await lane.reread()).parked, new Set([orderOf(a), orderOf(bad)]))
    equal(await shown(), { c: 'one' })
    await sink.claim(partition)
    await rejects(lane.apply(batchOf([], 4n, waiting([write('d', 'zombie')], 3n))), FENCED)
    equal((await keysOf(sink, partition)).length, 2)
  })

  promised('takes what follows of a key behind it, and counts it', async (stand) => {
    const { lane, key, write, offset } = await parkedLane(stand, ['one', 'two'])
    const [before] = await keysOf(stand.sink, key)
    const third = write('a', 'three')
    await lane.apply(batchOf([write('b', 'flows')], offset + 2n, [{ event: third, offset, reason: null }]))
    const [after] = await keysOf(stand.sink, key)
    equal(after, { ...before, events: 3, bytes: after?.bytes })
    assert.ok((after?.bytes ?? 0) > (before?.bytes ?? 0))
    const waits = (await parkingOf(stand.sink).events(key, 10)).map(({ event }) => event.position)
    equal(waits.at(-1), third.position)
  })

  promised('applies what waits in its order when it is redriven, and the key flows again', async (stand) => {
    const { key, shown, lane } = await parkedLane(stand, ['one', 'two', 'three'])
    const parking = parkingOf(stand.sink)
    equal(await parking.redrive(key, BY), { applied: 3, remaining: 0, reason: null })
    equal(await shown(), { a: 'three' })
    equal((await lane.reread()).parked, new Set())
    equal(await keysOf(stand.sink, key), [])
    equal(await parking.events(key, 10), [])
    await rejects(parking.redrive(key, BY), NOT_PARKED)
  })

  promised('applies as far as it goes, and says what the rest waits for', async (stand) => {
    if (!stand.under.refusing) return
    await stand.under.refusing(true)
    const { key, shown, lane, events } = await parkedLane(stand, ['one', 'two', UNFIT, 'four'], 'a row each')
    const parking = parkingOf(stand.sink)
    const stopped = await parking.redrive(key, BY)
    matches(stopped, { applied: 2, remaining: 2 })
    equal(stopped.reason?.code, 'MILLRACE_EVENT_REJECTED')
    assert.ok(stopped.reason?.message.includes(events[2]?.position as string), stopped.reason?.message)
    equal(await shown(), { 1: 'one', 2: 'two' })
    const keys = await keysOf(stand.sink, key)
    equal(keys.length, 1)
    matches(keys[0], { position: events[2]?.position, events: 2, reason: stopped.reason })
    equal(
      (await parking.events(key, 10)).map(({ reason }) => reason),
      [stopped.reason, null],
    )
    equal(await parking.redrive(key, BY), { ...stopped, applied: 0 })
    equal((await lane.reread()).parked, new Set([key.order]))
    await stand.under.refusing(false)
    equal(await parking.redrive(key, BY), { applied: 2, remaining: 0, reason: null })
    equal(await shown(), { 1: 'one', 2: 'two', 3: UNFIT, 4: 'four' })
  })

  promised('does not let an owner park behind what was redriven meanwhile', async (stand) => {
    const { key, lane, write, shown, offset } = await parkedLane(stand, ['one'])
    const next = write('a', 'two')
    // nothing changed for what the owner knows: a key that is parked still, and one that it parks itself
    await lane.apply(batchOf([], offset + 1n, [{ event: next, offset, reason: null }]))
    const other = write('b', 'waits')
    await lane.apply(batchOf([], offset + 2n, waiting([other], offset + 1n)))
    await parkingOf(stand.sink).redrive(key, BY)
    const behind = write('a', 'three')
    const late = batchOf([], offset + 3n, [{ event: behind, offset: offset + 2n, reason: null }])
    for (const batch of [late, { ...late, events: [behind], parked: [] }]) await rejects(lane.apply(batch), CHANGED)
    equal(await shown(), { a: 'two' })
    matches(await lane.reread(), { parked: new Set([orderOf(other)]), offset: offset + 2n })
    await lane.apply(batchOf([behind], offset + 3n))
    equal(await shown(), { a: 'three' })
    equal((await keysOf(stand.sink, key)).length, 1)
  })

  promised('tells an owner that was followed so, whatever was redriven', async (stand) => {
    const { key, lane, write, offset, partition } = await parkedLane(stand, ['one'])
    const after = await stand.sink.claim(partition)
    await parkingOf(stand.sink).redrive(key, BY)
    await rejects(lane.apply(batchOf([write('a', 'two')], offset + 1n)), FENCED)
    await rejects(after.apply(offsetOnly(9n)), CHANGED)
  })

  promised('tells of parked keys for every source of a partition', async (stand) => {
    const { key, lane, shown, offset } = await parkedLane(stand, ['one'])
    const event = { type: stand.under.types.write, key: 'a', payload: {} }
    const elsewhere = eventStream({ source: 'elsewhere' })
    const foreign = elsewhere.next(event)
    await lane.apply({ ...offsetOnly(offset + 1n), moves: [{ source: 'elsewhere', from: null, to: foreign.position }] })
    await parkingOf(stand.sink).redrive(key, BY)
    const next = elsewhere.next(event)
    const move = {
      ...offsetOnly(offset + 2n),
      moves: [{ source: 'elsewhere', from: foreign.position, to: next.position }],
    }
    await rejects(lane.apply(move), CHANGED)
    await lane.reread()
    await lane.apply(move)
    const third = eventStream({ source: 'third' }).next(event)
    await lane.apply({ ...offsetOnly(offset + 3n), moves: [{ source: 'third', from: null, to: third.position }] })
    await lane.apply(offsetOnly(offset + 4n))
    equal(await shown(), { a: 'one' })
  })

  promised('applies each parked event once, whoever else redrives the key', async (stand) => {
    const { key, shown } = await parkedLane(stand, ['one', 'two', 'three'])
    const both = [stand.sink, await stand.another()].map((sink) => parkingOf(sink).redrive(key, BY))
    const applied = (await Promise.allSettled(both)).map((end) => {
      if (end.status === 'fulfilled') return end.value.applied
      matches(end.reason, NOT_PARKED)
      return 0
    })
    equal(applied.sort(), [0, 3])
    equal(await shown(), { a: 'three' })
  })

  promised('leaves a row as later events of other keys made it', async ({ sink, fresh }) => {
    const { partition, write, erase, shown } = fresh()
    const lane = await sink.claim(partition)
    const early = (event: Event): Event => ({ ...event, orderingKey: 'tenant' })
    const [a, b, c] = [early(write('a', 'old')), early(write('b', 'old')), early(write('c', 'only here'))]
    await lane.apply(batchOf([write('a', 'new'), erase('b')], 5n, waiting([a, b, c])))
    matches(await parkingOf(sink).redrive({ ...partition, order: orderOf(a) }, BY), { applied: 3, remaining: 0 })
    equal(await shown(), { a: 'new', c: 'only here' })
  })

  promised('gives up the first event when it is skipped by its position, and redrives the rest', async (stand) => {
    if (!stand.under.refusing) return
    await stand.under.refusing(true)
    const { key, shown, events } = await parkedLane(stand, [UNFIT, 'two', UNFIT, 'four'], 'a row each')
    const parking = parkingOf(stand.sink)
    const [bad, second, worse] = events as [Event, Event, Event]
    await rejects(parking.skip(key, second.position, BY), NOT_PARKED)
    matches(await parking.skip(key, bad.position, BY), { applied: 1, remaining: 2 })
    equal(await shown(), { 2: 'two' })
    equal(await parking.skip(key, worse.position, { ...BY, note: null }), { applied: 1, remaining: 0, reason: null })
    equal(await shown(), { 2: 'two', 4: 'four' })
    await stand.under.refusing(false)
    const records = (await parking.audit(2)).map(({ at, ...record }) => ({ ...record, at: isDate(at) }))
    equal(records, [
      { ...key, ...BY, note: null, at: true, action: 'skip', skipped: worse.position, applied: 1, remaining: 0 },
      { ...key, ...BY, at: true, action: 'skip', skipped: bad.position, applied: 1, remaining: 2 },
    ])
  })

  promised('applies no placeholder: only a skip passes it', async ({ sink, fresh }) => {
    const { partition, write, shown } = fresh()
    const lane = await sink.claim(partition)
    const first = write('a', 'one')
    const second = write('a', 'three')
    const hole: Event = { ...write('a', 'never'), value: null, placeholder: 'MILLRACE_EVENT_TOO_LARGE' }
    await lane.apply(batchOf([], 4n, waiting([first, second, hole, write('a', 'four')])))
    const key = { ...partition, order: orderOf(hole) }
    const parking = parkingOf(sink)
    for (const applied of [2, 0]) {
      const stopped = await parking.redrive(key, BY)
      matches(stopped, { applied, remaining: 2 })
      equal(stopped.reason?.code, 'MILLRACE_EVENT_TOO_LARGE')
    }
    equal(await shown(), { a: 'three' })
    equal(await parking.skip(key, hole.position, BY), { applied: 1, remaining: 0, reason: null })
    equal(await shown(), { a: 'four' })
  })

  promised('parks any key there is', async ({ sink, fresh }) => {
    const odd = ['__proto__', 'constructor', 'a/b', '', ' ', '"\\\'%_', 'e\u0301', '\u00e9', '\ufeffbom', '💶', '\u0000']
    const names = [...odd, 'x'.repeat(9_000)]
    const { partition, write, shown } = fresh()
    const lane = await sink.claim(partition)
    const events = names.map((orderingKey, index): Event => ({ ...write(`${index}`, `text ${index}`), orderingKey }))
    const parked = events.flatMap((event) => waiting([event]))
    await lane.apply(batchOf([], 99n, parked))
    const orders = events.map(orderOf)
    equal((await lane.reread()).parked, new Set(orders))
    equal((await keysOf(sink, partition)).map(({ order }) => order).sort(), [...orders].sort())
    for (const order of orders) matches(await parkingOf(sink).redrive({ ...partition, order }, BY), { applied: 1, remaining: 0 })
    equal((await lane.reread()).parked, new Set())
    equal(Object.keys(await shown()).length, names.length)
  })

  promised('lets a key wait in each topic partition for itself', async (stand) => {
    const [one, two] = [await parkedLane(stand, ['one']), await parkedLane(stand, ['two'])]
    const shared = (event: Event): Event => ({ ...event, orderingKey: 'shared' })
    for (const { lane, write, offset } of [one, two])
      await lane.apply(batchOf([], offset + 1n, waiting([shared(write('b', 'x'))], offset)))
    const parking = parkingOf(stand.sink)
    const before = await parking.totals()
    matches(await parking.redrive({ ...one.partition, order: 'shop/shared' }, BY), { applied: 1 })
    matches(await two.lane.reread(), { parked: new Set([two.key.order, 'shop/shared']) })
    const after = await parking.totals()
    equal([before.keys - after.keys, before.events - after.events], [1, 1])
    assert.ok(after.bytes < before.bytes)
  })
}

/** A lane that has parked the events of one key, the first because of its text: all of one row, or each of its own. */
async function parkedLane(stand: Stand, texts: readonly string[], rows: 'one row' | 'a row each' = 'one row') {
  const one = stand.fresh()
  const lane = await stand.sink.claim(one.partition)
  const events = texts.map(
    (text, index): Event =>
      rows === 'one row' ? one.write('a', text) : { ...one.write(`${index + 1}`, text), orderingKey: 'tenant' },
  )
  const offset = BigInt(texts.length)
  await lane.apply(batchOf([], offset, waiting(events)))
  const key: KeyPlace = { ...one.partition, order: orderOf(events[0] as Event) }
  return { ...one, lane, events, key, offset }
}

/** the events of one key, of which the first has a reason */
function waiting(events: readonly Event[], offset = 0n): ParkedEvent[] {
  return events.map((event, index) => ({ event, offset: offset + BigInt(index), reason: index === 0 ? REASON : null }))
}

async function keysOf(sink: Sink, { topic, partition }: Pick<KeyPlace, 'topic' | 'partition'>) {
  return (await parkingOf(sink).keys(1_000)).filter((key) => key.topic === topic && key.partition === partition)
}

function parkingOf({ parking }: Sink): Parking {
  assert.ok(parking !== null, 'it promises parking, and has none')
  return parking
}

const isDate = (value: unknown): boolean => value instanceof Date
const isCount = (value: unknown): boolean => typeof value === 'number' && value > 0
