import assert from 'node:assert/strict'
import type { Copies, Copy, Difference, Reach } from '../core/copy.ts'
import { type ErrorCode, MillraceError } from '../core/errors.ts'
import type { Event } from '../core/event.ts'
import { policyFor } from '../core/policy.ts'
import type { Position } from '../core/position.ts'
import type { Lane, LaneBatch, ParkedEvent, Sink } from '../core/sink.ts'
import { batchOf } from './events.ts'
import { equal, matches, rejects } from './expect.ts'
import { offsetOnly, type Promised, promisedBy, type SinkContract } from './sink-contract.ts'
import { type Fresh, type Stand, UNFIT } from './sink-under-test.ts'

const RUNNING = { code: 'MILLRACE_REPLAY_RUNNING' }
const UNKNOWN = { code: 'MILLRACE_REPLAY_UNKNOWN' }
const WHOLE: Reach = { whole: true, since: new Map() }

/**
 * The contract of `Sink.copies`, beside that of the sink. Each test has a store to itself: whoever compares sees every row
 * there is. The sink under test has one target, whose rows are written whole, and `damage`.
 */
export function copiesContract({ test, start }: Pick<SinkContract, 'test' | 'start'>): void {
  const promised = promisedBy(test, start)
  recordContract(promised)
  comparisonContract(promised)
  mendingContract(promised)
}

function recordContract(promised: Promised): void {
  promised('has no copy until one is made, and then one', async ({ sink, another }) => {
    const copies = copiesOf(sink)
    const others = copiesOf(await another())
    equal(await copies.find(), null)
    await rejects(copies.take(), UNKNOWN)
    await rejects(copies.ask('pause'), UNKNOWN)
    const copy = await copies.create('first', 'rows')
    equal(copy.job, 'first')
    matches(await others.find(), { job: 'first', wish: null, held: true, createdAt: isDate, updatedAt: isDate })
    for (const at of [copies, others]) {
      await rejects(at.create('second', 'rows'), RUNNING)
      await rejects(at.take(), RUNNING)
    }
    await copy.close()
    matches(await others.find(), { job: 'first', held: false })
    await rejects(others.create('second', 'rows'), RUNNING)
    const taken = await others.take()
    equal(taken.job, 'first')
    await rejects(copies.take(), RUNNING)
    await taken.drop()
    equal(await copies.find(), null)
    await (await copies.create('another', 'rows')).drop()
  })

  promised('keeps the job, and tells whoever keeps it what was asked for', async ({ sink, another }) => {
    const copies = copiesOf(sink)
    const others = copiesOf(await another())
    const copy = await copies.create('{"phase":"fold"}', 'rows')
    equal(await copy.keep('{"phase":"compare"}'), null)
    matches(await others.find(), { job: '{"phase":"compare"}', wish: null })
    await others.ask('pause')
    matches(await copies.find(), { wish: 'pause' })
    equal(await copy.keep('paused'), 'pause')
    await copy.close()
    const taken = await others.take()
    equal(taken.job, 'paused')
    equal(await taken.keep('paused'), 'pause', 'a wish holds for whoever takes the copy next')
    await others.ask(null)
    equal(await taken.keep('on'), null)
    await copies.ask('cancel')
    equal(await taken.keep('on'), 'cancel')
    await taken.drop()
  })

  promised('folds with a checkpoint of its own: the live one stands, its owner goes on', async ({ sink, fresh, another }) => {
    const one = fresh()
    const live = await sink.claim(one.partition)
    const events = [one.write('a', 'one'), one.write('a', 'two'), one.write('b', 'one')]
    await live.apply(batchOf(events, 3n))
    const kept = await sink.checkpoints()
    const copy = await copiesOf(sink).create('job', 'rows')
    const lane = await begin(copy, one)
    equal(lane.checkpoint.offset, null)
    await lane.apply(batchOf(events.slice(0, 2), 2n))
    equal(await sink.checkpoints(), kept)
    await copy.close()
    const again = await copiesOf(await another()).take()
    const { checkpoint } = await again.fold(one.partition)
    matches(checkpoint, { ...one.partition, offset: 2n, positions: new Map([[one.stream.source, events[1]?.position]]) })
    await rejects(lane.apply(batchOf(events.slice(2), 3n)), {})
    await live.apply(batchOf([one.write('c', 'one')], 4n))
    equal(await one.shown(), { a: 'two', b: 'one', c: 'one' })
    await again.drop()
    equal((await live.reread()).offset, 4n)
    equal(await one.shown(), { a: 'two', b: 'one', c: 'one' })
  })
}

function comparisonContract(promised: Promised): void {
  promised('finds nothing to differ where all that was applied is folded', async (stand) => {
    const { copy, one } = await folded(stand)
    equal(await differences(copy, one), {})
    equal(await differences(copy, one, null), {})
  })

  for (const limit of [1, 100])
    promised(`names exactly the keys that were damaged, ${limit} at a time`, async (stand) => {
      const { copy, one, damage } = await folded(stand)
      await damage('changed', 'damaged')
      await damage('removed', null)
      await damage('erased', 'back')
      await damage('added', 'never made')
      const named = { changed: 'different', removed: 'missing', erased: 'extra', added: 'extra' }
      equal(await differences(copy, one, WHOLE, limit), named)
    })

  promised('looks for rows that are not in the stream only where it is told how far the stream reaches', async (stand) => {
    const { copy, one, damage } = await folded(stand)
    await damage('changed', 'damaged')
    await damage('added', 'never made')
    equal(await differences(copy, one, null), { changed: 'different' })
  })

  promised('does not know what the queue no longer holds, and never calls it extra', async (stand) => {
    const { one, live, events, damage } = await applied(stand)
    const late = one.write('late', 'in no log')
    await live.apply(batchOf([late], at(events) + 1n))
    const copy = await copiesOf(stand.sink).create('job', 'rows')
    const lane = await copy.fold(one.partition)
    // the log is retained from the third event on
    const [, , third] = events as [Event, Event, Event]
    await lane.apply(offsetOnly(2n))
    await lane.apply(withoutFrom(batchOf(events.slice(2), at(events))))
    await lane.apply({ ...offsetOnly(at(events) + 1n), moves: [{ source: late.source, from: late.prev, to: late.position }] })
    const since = new Map([[third.source, third.position]])
    await damage('added', 'with nothing to tell whence')
    const found = await compared(copy, WHOLE_BUT(since))
    equal(named(found, one), { changed: 'unverifiable', removed: 'unverifiable', late: 'extra', added: 'unverifiable' })
    matches(await copy.mend(found, { extras: true }), { written: 0, removed: 1 })
    equal(Object.keys(await one.shown()), ['added', 'changed', 'removed', 'same'])
  })

  promised('compares only what was selected, however far it folds on', async (stand) => {
    const { one, events, damage } = await applied(stand)
    const copy = await copiesOf(stand.sink).create('job', 'rows')
    const first = await begin(copy, one)
    await first.apply(batchOf(events.slice(0, 1), 1n))
    equal(await copy.select(), 1)
    await copy.restart()
    const lane = await copy.fold(one.partition)
    equal(lane.checkpoint.offset, null)
    await lane.apply(offsetOnly(0n))
    await lane.apply(batchOf(events, at(events)))
    await damage('changed', 'damaged')
    await damage('removed', null)
    equal(await differences(copy, one, null), { changed: 'different' })
  })

  promised('looks again at keys that differed', async (stand) => {
    const { copy, one, damage } = await folded(stand)
    await damage('changed', 'damaged')
    await damage('removed', null)
    const found = await compared(copy, WHOLE)
    await damage('changed', 'one')
    equal(named(await copy.recheck(found, { limit: 100, reach: WHOLE }), one), { removed: 'missing' })
    equal(await copy.recheck([], { limit: 100, reach: WHOLE }), [])
  })
}

function mendingContract(promised: Promised): void {
  promised('mends each key by what is folded, once', async (stand) => {
    const { copy, one, live, events, damage } = await folded(stand)
    const before = await one.shown()
    await damage('changed', 'damaged')
    await damage('removed', null)
    await damage('erased', 'back')
    await damage('added', 'never made')
    const found = await compared(copy, WHOLE)
    equal(await copy.mend(found, { extras: true }), { written: 2, removed: 2, left: 0, refused: [] })
    equal(await one.shown(), before)
    equal(await differences(copy, one), {})
    matches(await copy.mend(found, { extras: true }), { written: 0, removed: 0 })
    equal(await one.shown(), before)
    await live.apply(batchOf([one.write('changed', 'on'), one.erase('removed'), one.write('erased', 'anew')], at(events) + 3n))
    equal(await one.shown(), { changed: 'on', erased: 'anew', same: 'one' })
  })

  promised(
    'keeps rows that are not in the stream unless it is told to remove them; what the stream deleted goes',
    async (stand) => {
      const { copy, one, damage } = await folded(stand)
      await damage('erased', 'back')
      await damage('added', 'never made')
      const found = await compared(copy, WHOLE)
      matches(await copy.mend(found, { extras: false }), { written: 0, removed: 1, left: 1 })
      equal(await differences(copy, one), { added: 'extra' })
    },
  )

  promised('leaves what went on beyond the fold, and brings nothing back', async (stand) => {
    const { copy, one, live, lane, events } = await folded(stand)
    const more = [one.write('changed', 'newer'), one.erase('removed'), one.write('erased', 'anew'), one.write('made', 'since')]
    await live.apply(batchOf(more, at(events) + 4n))
    const after = await one.shown()
    const found = await compared(copy, WHOLE)
    equal(named(found, one), { changed: 'newer', removed: 'newer', erased: 'newer', made: 'newer' })
    // whatever the comparison before may have called them
    for (const kind of ['different', 'missing', 'extra'] as const)
      matches(
        await copy.mend(
          found.map((one) => ({ ...one, kind })),
          { extras: false },
        ),
        { written: 0, removed: 0 },
      )
    equal(await one.shown(), after)
    await lane.apply(batchOf(more, at(events) + 4n))
    equal(await differences(copy, one), {})
  })

  promised('names what the store does not take back, and mends the rest', async (stand) => {
    if (!stand.under.refusing) return
    const one = stand.fresh()
    const live = await stand.sink.claim(one.partition)
    const events = [one.write('bad', UNFIT), one.write('good', 'one')]
    await live.apply(batchOf(events, 2n))
    const copy = await copiesOf(stand.sink).create('job', 'rows')
    await (await begin(copy, one)).apply(batchOf(events, 2n))
    for (const key of ['bad', 'good']) await damaging(stand, one)(key, 'damaged')
    await stand.under.refusing(true)
    const found = await compared(copy, WHOLE)
    const { refused, ...mended } = await copy.mend(found, { extras: true })
    equal(mended, { written: 1, removed: 0, left: 1 })
    equal(
      refused.map(({ key, reason }) => [key, policyFor(new MillraceError(reason.code as ErrorCode, reason.message))]),
      [[found.find(({ key }) => key.endsWith(one.keyed('bad'))), 'park']],
    )
    equal(await one.shown(), { bad: 'damaged', good: 'one' })
    await stand.under.refusing(false)
    matches(await copy.mend(found, { extras: true }), { written: 1, refused: [] })
    equal(await differences(copy, one), {})
  })

  promised('leaves parked keys alone, and says so', async (stand) => {
    if (stand.sink.parking === null) return
    const one = stand.fresh()
    const live = await stand.sink.claim(one.partition)
    const events = [one.write('a', 'one'), one.write('b', 'one')]
    const waits: ParkedEvent = {
      event: one.write('a', 'two'),
      offset: 2n,
      reason: { code: 'MILLRACE_EVENT_REJECTED', message: 'it does not fit' },
    }
    const batch = batchOf(events, 3n, [waits])
    await live.apply(batch)
    const copy = await copiesOf(stand.sink).create('job', 'rows')
    await (await begin(copy, one)).apply(
      batchOf([one0(events, 1)], 3n, [{ ...waits, event: one0(events, 0), offset: 0n }, waits]),
    )
    await damaging(stand, one)('a', 'damaged')
    await damaging(stand, one)('b', 'damaged')
    const found = await compared(copy, WHOLE)
    equal(named(found, one), { a: 'parked', b: 'different' })
    matches(await copy.mend(found, { extras: true }), { written: 1, removed: 0, left: 1 })
    equal(await one.shown(), { a: 'damaged', b: 'one' })
  })

  promised('mends beside the owner of the partition: what it applies meanwhile stands', async (stand) => {
    const { copy, one, live, events, damage } = await folded(stand)
    let offset = at(events)
    let last = ''
    const going = (async () => {
      for (let round = 0; round < 15; round++) {
        last = `round ${round}`
        await live.apply(batchOf([one.write('changed', last), one.erase('same'), one.write('removed', last)], (offset += 3n)))
      }
    })()
    for (let round = 0; round < 5; round++) {
      await damage('added', 'never made')
      await copy.mend(await compared(copy, WHOLE), { extras: true })
    }
    await going
    const { added: _, ...shown } = await one.shown()
    equal(shown, { changed: last, removed: last })
  })
}

interface Applied {
  readonly one: Fresh
  readonly live: Lane
  readonly events: readonly Event[]
  /** changes a row behind the sink's back */
  damage(key: string, text: string | null): Promise<void>
}

/** A partition of which the keys `changed`, `removed` and `same` are shown, and `erased` was. */
async function applied(stand: Stand): Promise<Applied> {
  const one = stand.fresh()
  const live = await stand.sink.claim(one.partition)
  const events = [
    one.write('changed', 'one'),
    one.write('removed', 'one'),
    one.write('erased', 'one'),
    one.write('same', 'one'),
    one.erase('erased'),
  ]
  await live.apply(batchOf(events, at(events)))
  return { one, live, events, damage: damaging(stand, one) }
}

/** The same, folded as far. */
async function folded(stand: Stand): Promise<Applied & { readonly copy: Copy; readonly lane: Lane }> {
  const made = await applied(stand)
  const copy = await copiesOf(stand.sink).create('job', 'rows')
  const lane = await begin(copy, made.one)
  await lane.apply(batchOf(made.events, at(made.events)))
  return { ...made, copy, lane }
}

/** Begins to fold with the partition's first record, as the pipeline does. */
async function begin(copy: Copy, { partition }: Fresh): Promise<Lane> {
  const lane = await copy.fold(partition)
  await lane.apply(offsetOnly(0n))
  return lane
}

function damaging({ under }: Stand, { keyed }: Fresh): Applied['damage'] {
  const { damage } = under
  assert.ok(damage, 'a sink with copies is to be tested with `damage`')
  return (key, text) => damage(keyed(key), text)
}

async function compared(copy: Copy, reach: Reach | null, limit = 100): Promise<readonly Difference[]> {
  const found: Difference[] = []
  for (const target of copy.targets)
    for (let after: string | null = null; ; ) {
      const chunk = await copy.compare(target, after, { limit, reach })
      found.push(...chunk.differences)
      after = chunk.next
      if (after === null) break
    }
  return found
}

/** by key; each may be named once */
function named(found: readonly Difference[], { keyed }: Fresh): Readonly<Record<string, string>> {
  const prefix = keyed('')
  const kinds = found.map(({ key, kind }) => [key.slice(key.indexOf(prefix) + prefix.length), kind] as const)
  equal(new Set(kinds.map(([key]) => key)).size, kinds.length, `a key is named twice: ${kinds.join(' ')}`)
  return Object.fromEntries(kinds)
}

async function differences(copy: Copy, one: Fresh, reach: Reach | null = WHOLE, limit?: number) {
  return named(await compared(copy, reach, limit), one)
}

function copiesOf({ copies }: Sink): Copies {
  assert.ok(copies !== null, 'it is to be tested for its copies, and has none')
  return copies
}

const WHOLE_BUT = (since: ReadonlyMap<string, Position>): Reach => ({ whole: false, since })
const at = (events: readonly Event[]): bigint => BigInt(events.length)
const one0 = (events: readonly Event[], index: number): Event => events[index] as Event
const withoutFrom = (batch: LaneBatch): LaneBatch => ({ ...batch, moves: batch.moves.map((move) => ({ ...move, from: null })) })
const isDate = (value: unknown): boolean => value instanceof Date
