import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Event } from '../../src/core/event.ts'
import { orderOf } from '../../src/core/event.ts'
import { policyFor } from '../../src/core/policy.ts'
import type { Audit, KeyPlace, ParkedEvent, Parking, ParkReason, PartitionCheckpoint, Sink } from '../../src/core/sink.ts'
import { batchOf, eventStream } from '../support/events.ts'

/** One sink under test: what the contract needs of its store, beside the contract itself. */
export interface SinkUnderTest {
  /** opens the same sink again, as another process would: the same name, the same store */
  open(): Promise<Sink>
  readonly topic: string
  /** an event that writes the row of a key, and one that removes it */
  readonly types: { readonly write: string; readonly remove: string }
  /** the payload that gives the key's row this text */
  payload(key: string, text: string): unknown
  /** an event's payload that the store cannot take; null: it takes whatever comes */
  readonly unfit: ((key: string) => unknown) | null
  /** for a sink that parks: makes the store refuse, or take again, a row whose text is {@link UNFIT} */
  readonly refusing: ((refused: boolean) => Promise<void>) | null
  /** what the store shows: text by key */
  rows(): Promise<ReadonlyMap<string, string>>
  remove(): Promise<void>
}

export const UNFIT = 'unfit'

const REASON: ParkReason = { code: 'MILLRACE_EVENT_REJECTED', message: 'it does not fit' }
const BY: Audit = { actor: 'ada@here', note: 'mended the table' }

/** The contract of `core/sink.ts`, for every sink alike. What a sink does not promise (its traits) is not asked of it. */
export function sinkContract(
  name: string,
  start: () => Promise<SinkUnderTest>,
  promises = { checkpoints: true, parking: true },
): void {
  describe(`the sink contract: ${name}`, () => {
    let under: SinkUnderTest
    let sink: Sink
    let partitions = 0

    beforeAll(async () => {
      under = await start()
      sink = await under.open()
      await sink.init()
    })
    afterAll(async () => {
      await sink?.close()
      await under?.remove()
    })

    /** a partition nobody used before, with a stream of its own */
    function fresh() {
      const partition = { topic: under.topic, partition: partitions++ }
      const prefix = `p${partition.partition}-`
      const stream = eventStream()
      const write = (key: string, text: string) =>
        stream.next({ type: under.types.write, key: prefix + key, payload: under.payload(prefix + key, text) })
      const erase = (key: string) => stream.next({ type: under.types.remove, key: prefix + key })
      const unfit = (key: string) =>
        stream.next({
          type: under.types.write,
          key: prefix + key,
          payload: (under.unfit as (key: string) => unknown)(prefix + key),
        })
      const shown = async () =>
        Object.fromEntries(
          [...(await under.rows())].flatMap(([key, text]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), text]] : [])),
        )
      return { partition, stream, write, erase, unfit, shown }
    }

    it('says what is wrong in findings, and finds nothing wrong with a store that init prepared', async () => {
      const findings = await sink.check()
      expect(findings.filter(({ level }) => level === 'blocker')).toEqual([])
    })

    it('can be initialised again without a change', async () => {
      await sink.init()
    })

    it('applies events in their order, and the last of a key stands', async () => {
      const { partition, write, erase, shown } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply(batchOf([write('a', 'one'), write('b', 'one'), write('a', 'two'), write('c', 'one'), erase('c')], 5n))
      expect(await shown()).toEqual({ a: 'two', b: 'one' })
      await lane.apply(batchOf([erase('a'), write('c', 'again')], 7n))
      expect(await shown()).toEqual({ b: 'one', c: 'again' })
      await lane.release()
    })

    it('accepts the erasure of what it never saw', async () => {
      const { partition, erase, shown } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply(batchOf([erase('nobody')], 1n))
      expect(await shown()).toEqual({})
      await lane.release()
    })

    it('keeps how the applier began, until it says otherwise', async () => {
      const { partition, write } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply({ moves: [], offset: 4n, events: [], parked: [], beginning: 'in the "midst"' })
      await lane.apply(batchOf([write('a', 'one')], 5n))
      expect(await lane.reread()).toMatchObject({ offset: 5n, beginning: 'in the "midst"' })
      await lane.apply({ moves: [], offset: 6n, events: [], parked: [], beginning: 'anew' })
      expect((await lane.reread()).beginning).toBe('anew')
      await lane.release()
    })

    it('takes a batch that moves the offset only', async () => {
      const { partition } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply({ moves: [], offset: 4n, events: [], parked: [], beginning: null })
      await lane.release()
    })

    it('lets no offset go back: what arrives late, after the checkpoint was read again, has no effect', async () => {
      const { partition, stream, write, shown } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply({ moves: [], offset: 4n, events: [], parked: [], beginning: null })
      await lane.apply(batchOf([write('a', 'one')], 5n))
      await lane.reread()
      const next = write('a', 'late')
      const late = [{ moves: [], offset: 4n, events: [], parked: [], beginning: null }, batchOf([next], 4n)]
      for (const batch of late) await expect(lane.apply(batch)).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
      expect(await lane.reread()).toEqual({
        ...partition,
        positions: new Map([[stream.source, next.prev]]),
        offset: 5n,
        parked: new Set(),
        beginning: null,
      })
      expect(await shown()).toEqual({ a: 'one' })
      await lane.apply({ moves: [], offset: 5n, events: [], parked: [], beginning: null })
      await lane.release()
    })

    it('says in its traits what it promises', () => {
      expect(sink.traits.checkpoints).toBe(promises.checkpoints)
    })

    const checkpoints: typeof it | (() => void) = promises.checkpoints ? it : () => {}

    checkpoints('has no checkpoint before the first event, and the last position after it', async () => {
      const { partition, stream, write } = fresh()
      const lane = await sink.claim(partition)
      expect(lane.checkpoint).toEqual({ ...partition, positions: new Map(), offset: null, parked: new Set(), beginning: null })
      await lane.apply(batchOf([write('a', 'one'), write('b', 'one')], 2n))
      expect(await lane.reread()).toEqual({
        ...partition,
        positions: new Map([[stream.source, stream.at]]),
        offset: 2n,
        parked: new Set(),
        beginning: null,
      })
      await lane.release()
    })

    checkpoints('finds its checkpoint again in another process', async () => {
      const { partition, stream, write } = fresh()
      const first = await sink.claim(partition)
      await first.apply(batchOf([write('a', 'one')], 9_007_199_254_740_993n))
      await first.release()
      const other = await under.open()
      try {
        const lane = await other.claim(partition)
        expect(lane.checkpoint.positions).toEqual(new Map([[stream.source, stream.at]]))
        expect(lane.checkpoint.offset).toBe(9_007_199_254_740_993n)
        await lane.release()
      } finally {
        await other.close()
      }
    })

    checkpoints('moves the offset alone with an empty batch', async () => {
      const { partition, stream, write } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply({ moves: [], offset: 10n, events: [], parked: [], beginning: null })
      expect(await lane.reread()).toEqual({ ...partition, positions: new Map(), offset: 10n, parked: new Set(), beginning: null })
      await lane.apply(batchOf([write('a', 'one')], 11n))
      await lane.apply({ moves: [], offset: 40n, events: [], parked: [], beginning: null })
      expect(await lane.reread()).toEqual({
        ...partition,
        positions: new Map([[stream.source, stream.at]]),
        offset: 40n,
        parked: new Set(),
        beginning: null,
      })
      await lane.release()
    })

    checkpoints('refuses a batch that does not begin where its source stands, and changes nothing', async () => {
      const { partition, stream, write, shown } = fresh()
      const lane = await sink.claim(partition)
      const first = batchOf([write('a', 'one')], 1n)
      await lane.apply(first)
      await expect(lane.apply(first)).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
      const skipped = write('a', 'skipped')
      const next = batchOf([write('a', 'three')], 3n)
      await expect(lane.apply(next)).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
      expect(await shown()).toEqual({ a: 'one' })
      expect((await lane.reread()).positions.get(stream.source)).toBe(skipped.prev)
      await lane.release()
    })

    checkpoints('fences an owner that another one followed, and lets it change nothing', async () => {
      const { partition, write, shown } = fresh()
      const before = await sink.claim(partition)
      await before.apply(batchOf([write('a', 'one')], 1n))
      const other = await under.open()
      try {
        const after = await other.claim(partition)
        const batch = batchOf([write('a', 'zombie')], 2n)
        await expect(before.apply(batch)).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
        await expect(before.apply({ moves: [], offset: 99n, events: [], parked: [], beginning: null })).rejects.toMatchObject({
          code: 'MILLRACE_SINK_FENCED',
        })
        await expect(before.reread()).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
        expect(await shown()).toEqual({ a: 'one' })
        expect(await after.reread()).toEqual(after.checkpoint)
        await after.apply(batch)
        expect(await shown()).toEqual({ a: 'zombie' })
        await after.release()
      } finally {
        await other.close()
      }
    })

    checkpoints('keeps a checkpoint for each source of a partition, and one offset for all', async () => {
      const { partition, stream, write } = fresh()
      const lane = await sink.claim(partition)
      const empty = eventStream({ source: 'elsewhere' })
      const foreign = empty.next({ type: under.types.write, key: 'x', payload: {} })
      // a source's events may all be passed over by the sink: its position moves all the same
      await lane.apply({
        moves: [{ source: 'elsewhere', from: null, to: foreign.position }],
        offset: 3n,
        events: [],
        parked: [],
        beginning: null,
      })
      await lane.apply(batchOf([write('a', 'one')], 4n))
      const both = new Map([
        ['elsewhere', foreign.position],
        [stream.source, stream.at],
      ])
      const sorted = ({ positions, offset }: PartitionCheckpoint) => ({ positions: new Map([...positions].sort()), offset })
      expect(sorted(await lane.reread())).toEqual({ positions: both, offset: 4n })
      const again = await sink.claim(partition)
      expect(sorted(again.checkpoint)).toEqual({ positions: both, offset: 4n })
      await expect(lane.apply(batchOf([write('a', 'two')], 5n))).rejects.toMatchObject({ code: 'MILLRACE_SINK_FENCED' })
      await again.release()
    })

    checkpoints('has lanes that are independent of each other', async () => {
      const [one, two] = [fresh(), fresh()]
      const lanes = [await sink.claim(one.partition), await sink.claim(two.partition)] as const
      await Promise.all(
        [one, two].map(async ({ write }, index) => {
          for (let n = 0; n < 20; n++)
            await lanes[index as 0 | 1].apply(batchOf([write('a', `${n}`), write(`${n}`, 'x')], BigInt(n + 1)))
        }),
      )
      expect((await one.shown()).a).toBe('19')
      expect((await two.shown()).a).toBe('19')
      const known = (await sink.checkpoints()).map(({ topic, partition, offset }) => `${topic}/${partition}@${offset}`)
      for (const { partition } of [one, two]) expect(known).toContain(`${partition.topic}/${partition.partition}@20`)
    })

    checkpoints(
      'applies all or nothing: an event that does not fit is named, and what stands before it can be applied',
      async () => {
        if (under.unfit === null) return
        const { partition, write, unfit, shown, stream } = fresh()
        const lane = await sink.claim(partition)
        await lane.apply(batchOf([write('a', 'one')], 1n))
        const fit = write('a', 'two')
        const bad = unfit('b')
        const after = write('c', 'never')
        const error = await lane.apply(batchOf([fit, bad, after], 4n)).catch((caught: unknown) => caught)
        expect(error).toMatchObject({ fields: { position: bad.position, source: stream.source } })
        expect(policyFor(error)).toBe('park')
        expect(await shown()).toEqual({ a: 'one' })
        expect((await lane.reread()).offset).toBe(1n)
        await lane.apply(batchOf([fit], 2n))
        expect(await shown()).toEqual({ a: 'two' })
        await lane.release()
      },
    )

    describe('parking', () => {
      let parking: Parking

      beforeAll(() => {
        if (sink.parking !== null) parking = sink.parking
      })

      it('is there where it is promised', () => {
        expect(sink.parking !== null).toBe(promises.parking)
      })

      const parks: typeof it | (() => void) = promises.parking ? it : () => {}
      const waiting = (events: readonly Event[], offset = 0n, reason = REASON): ParkedEvent[] =>
        events.map((event, index) => ({ event, offset: offset + BigInt(index), reason: index === 0 ? reason : null }))
      const refusing = (refused: boolean): Promise<void> => under.refusing?.(refused) ?? Promise.resolve()

      /** a lane that has parked the events of one key, the first because of its text: all of one row, or each of its own */
      async function parkedLane(texts: readonly string[], rows: 'one row' | 'a row each' = 'one row') {
        const one = fresh()
        const lane = await sink.claim(one.partition)
        const events = texts.map(
          (text, index): Event =>
            rows === 'one row' ? one.write('a', text) : { ...one.write(`${index + 1}`, text), orderingKey: 'tenant' },
        )
        await lane.apply(batchOf([], BigInt(texts.length), waiting(events)))
        const key: KeyPlace = { ...one.partition, order: orderOf(events[0] as Event) }
        return { ...one, lane, events, key, offset: BigInt(texts.length) }
      }
      const keysOf = async ({ topic, partition }: KeyPlace) =>
        (await parking.keys(1_000)).filter((key) => key.topic === topic && key.partition === partition)

      parks('keeps the events whole, with the checkpoint that passes them, for whoever comes next', async () => {
        const { partition, stream, write } = fresh()
        const lane = await sink.claim(partition)
        const headers = [
          ['traceparent', Buffer.from('00-1-2')],
          ['', Buffer.from([0, 255])],
          ['traceparent', Buffer.from('again')],
        ] as const
        const first: Event = { ...write('a', 'one'), headers, orderingKey: 'tenant', version: '7' }
        const second: Event = {
          ...write('b', 'two'),
          value: null,
          orderingKey: 'tenant',
          placeholder: 'MILLRACE_EVENT_TOO_LARGE',
        }
        const other = write('c', 'three')
        await lane.apply(batchOf([other], 3n, waiting([first, second])))
        const another = await under.open()
        try {
          const { checkpoint } = await another.claim(partition)
          expect(checkpoint).toEqual({
            ...partition,
            positions: new Map([[stream.source, stream.at]]),
            offset: 3n,
            parked: new Set(['shop/tenant']),
            beginning: null,
          })
          expect((await another.checkpoints()).find((one) => one.partition === partition.partition)?.parked).toEqual(
            new Set(['shop/tenant']),
          )
          const key = { ...partition, order: 'shop/tenant' }
          expect(await another.parking?.events(key, 10)).toEqual([
            {
              event: { ...first, value: Buffer.from(first.value as Uint8Array) },
              offset: 0n,
              reason: REASON,
              parkedAt: expect.any(Date),
            },
            { event: second, offset: 1n, reason: null, parkedAt: expect.any(Date) },
          ])
          expect(await another.parking?.events(key, 1)).toHaveLength(1)
          expect(await keysOf(key)).toEqual([
            { ...key, position: first.position, reason: REASON, events: 2, bytes: expect.any(Number), since: expect.any(Date) },
          ])
        } finally {
          await another.close()
        }
      })

      parks('is all or nothing with the rest of the batch', async () => {
        const { partition, write, unfit, shown } = fresh()
        const lane = await sink.claim(partition)
        const [a, bad, fit] = [write('a', 'waits'), unfit('b'), write('c', 'one')]
        await expect(lane.apply(batchOf([bad, fit], 3n, waiting([a])))).rejects.toMatchObject({
          fields: { position: bad.position },
        })
        expect((await lane.reread()).parked).toEqual(new Set())
        expect(await keysOf({ ...partition, order: '' })).toEqual([])
        await lane.apply(batchOf([fit], 3n, [...waiting([a]), ...waiting([bad], 1n)]))
        expect((await lane.reread()).parked).toEqual(new Set([orderOf(a), orderOf(bad)]))
        expect(await shown()).toEqual({ c: 'one' })
        await sink.claim(partition)
        await expect(lane.apply(batchOf([], 4n, waiting([write('d', 'zombie')], 3n)))).rejects.toMatchObject({
          code: 'MILLRACE_SINK_FENCED',
        })
        expect(await keysOf({ ...partition, order: '' })).toHaveLength(2)
      })

      parks('takes what follows of a key behind it, and counts it', async () => {
        const { lane, key, write, offset } = await parkedLane(['one', 'two'])
        const before = (await keysOf(key))[0]
        const third = write('a', 'three')
        await lane.apply(batchOf([write('b', 'flows')], offset + 2n, [{ event: third, offset, reason: null }]))
        const after = (await keysOf(key))[0]
        expect(after).toEqual({ ...before, events: 3, bytes: expect.any(Number) })
        expect(after?.bytes).toBeGreaterThan(before?.bytes as number)
        expect((await parking.events(key, 10)).map(({ event }) => event.position)).toContain(third.position)
      })

      parks('applies what waits in its order when it is redriven, and the key flows again', async () => {
        const { key, shown, lane } = await parkedLane(['one', 'two', 'three'])
        expect(await parking.redrive(key, BY)).toEqual({ applied: 3, remaining: 0, reason: null })
        expect(await shown()).toEqual({ a: 'three' })
        expect((await lane.reread()).parked).toEqual(new Set())
        expect(await keysOf(key)).toEqual([])
        expect(await parking.events(key, 10)).toEqual([])
        await expect(parking.redrive(key, BY)).rejects.toMatchObject({ code: 'MILLRACE_NOT_PARKED' })
      })

      parks('applies as far as it goes, and says what the rest waits for', async () => {
        await refusing(true)
        const { key, shown, lane, events } = await parkedLane(['one', 'two', UNFIT, 'four'], 'a row each')
        const stopped = await parking.redrive(key, BY)
        expect(stopped).toEqual({
          applied: 2,
          remaining: 2,
          reason: { code: 'MILLRACE_EVENT_REJECTED', message: expect.any(String) },
        })
        expect(stopped.reason?.message).toContain(events[2]?.position)
        expect(await shown()).toEqual({ 1: 'one', 2: 'two' })
        expect(await keysOf(key)).toMatchObject([{ position: events[2]?.position, events: 2, reason: stopped.reason }])
        expect((await parking.events(key, 10)).map(({ reason }) => reason)).toEqual([stopped.reason, null])
        expect(await parking.redrive(key, BY)).toEqual({ ...stopped, applied: 0 })
        expect((await lane.reread()).parked).toEqual(new Set([key.order]))
        await refusing(false)
        expect(await parking.redrive(key, BY)).toEqual({ applied: 2, remaining: 0, reason: null })
        expect(await shown()).toEqual({ 1: 'one', 2: 'two', 3: UNFIT, 4: 'four' })
      })

      parks('does not let an owner park behind what was redriven meanwhile', async () => {
        const { key, lane, write, shown, offset } = await parkedLane(['one'])
        const next = write('a', 'two')
        // nothing changed for what the owner knows: a key that is parked still, and one that it parks itself
        await lane.apply(
          batchOf(
            [],
            offset + 1n,
            waiting([next], offset).map((one) => ({ ...one, reason: null })),
          ),
        )
        const other = write('b', 'waits')
        await lane.apply(batchOf([], offset + 2n, waiting([other], offset + 1n)))
        await parking.redrive(key, BY)
        const behind = write('a', 'three')
        const late = batchOf([], offset + 3n, [{ event: behind, offset: offset + 2n, reason: null }])
        for (const batch of [late, { ...late, events: [behind], parked: [] }])
          await expect(lane.apply(batch)).rejects.toMatchObject({ code: 'MILLRACE_PARKED_CHANGED' })
        expect(await shown()).toEqual({ a: 'two' })
        const checkpoint = await lane.reread()
        expect(checkpoint.parked).toEqual(new Set([orderOf(other)]))
        expect(checkpoint.offset).toBe(offset + 2n)
        await lane.apply(batchOf([behind], offset + 3n))
        expect(await shown()).toEqual({ a: 'three' })
        expect(await keysOf(key)).toHaveLength(1)
      })

      parks('tells an owner that was followed so, whatever was redriven', async () => {
        const { key, lane, write, offset, partition } = await parkedLane(['one'])
        const after = await sink.claim(partition)
        await parking.redrive(key, BY)
        await expect(lane.apply(batchOf([write('a', 'two')], offset + 1n))).rejects.toMatchObject({
          code: 'MILLRACE_SINK_FENCED',
        })
        await expect(after.apply({ moves: [], offset: 9n, events: [], parked: [], beginning: null })).rejects.toMatchObject({
          code: 'MILLRACE_PARKED_CHANGED',
        })
      })

      parks('is right for every source of a partition', async () => {
        const { key, lane, shown, offset } = await parkedLane(['one'])
        const elsewhere = eventStream({ source: 'elsewhere' })
        const foreign = elsewhere.next({ type: under.types.write, key: 'a', payload: {} })
        await lane.apply({ ...batchOf([], offset + 1n), moves: [{ source: 'elsewhere', from: null, to: foreign.position }] })
        await parking.redrive(key, BY)
        const next = elsewhere.next({ type: under.types.write, key: 'a', payload: {} })
        const move = { ...batchOf([], offset + 2n), moves: [{ source: 'elsewhere', from: foreign.position, to: next.position }] }
        await expect(lane.apply(move)).rejects.toMatchObject({ code: 'MILLRACE_PARKED_CHANGED' })
        await lane.reread()
        await lane.apply(move)
        const third = eventStream({ source: 'third' }).next({ type: under.types.write, key: 'a', payload: {} })
        await lane.apply({ ...batchOf([], offset + 3n), moves: [{ source: 'third', from: null, to: third.position }] })
        await lane.apply(batchOf([], offset + 4n))
        expect(await shown()).toEqual({ a: 'one' })
      })

      parks('applies each event once, whoever else redrives the key', async () => {
        const { key, shown } = await parkedLane(['one', 'two', 'three'])
        const other = await under.open()
        try {
          const ends = await Promise.allSettled([parking.redrive(key, BY), (other.parking as Parking).redrive(key, BY)])
          const applied = ends.map((end) => {
            if (end.status === 'fulfilled') return end.value.applied
            expect(end.reason).toMatchObject({ code: 'MILLRACE_NOT_PARKED' })
            return 0
          })
          expect(applied.sort()).toEqual([0, 3])
        } finally {
          await other.close()
        }
        expect(await shown()).toEqual({ a: 'three' })
      })

      parks('leaves a row as later events of other keys made it', async () => {
        const { partition, write, erase, shown } = fresh()
        const lane = await sink.claim(partition)
        const early = (event: Event): Event => ({ ...event, orderingKey: 'tenant' })
        const [a, b, c] = [early(write('a', 'old')), early(write('b', 'old')), early(write('c', 'only here'))]
        await lane.apply(batchOf([write('a', 'new'), erase('b')], 5n, waiting([a, b, c])))
        expect(await parking.redrive({ ...partition, order: orderOf(a) }, BY)).toMatchObject({ applied: 3, remaining: 0 })
        expect(await shown()).toEqual({ a: 'new', c: 'only here' })
      })

      parks('gives up the first event when it is skipped by its position, and redrives the rest', async () => {
        await refusing(true)
        const { key, shown, events } = await parkedLane([UNFIT, 'two', UNFIT, 'four'], 'a row each')
        const [bad, second, worse] = events as [Event, Event, Event]
        await expect(parking.skip(key, second.position, BY)).rejects.toMatchObject({ code: 'MILLRACE_NOT_PARKED' })
        expect(await parking.skip(key, bad.position, BY)).toMatchObject({ applied: 1, remaining: 2 })
        expect(await shown()).toEqual({ 2: 'two' })
        expect(await parking.skip(key, worse.position, { ...BY, note: null })).toEqual({ applied: 1, remaining: 0, reason: null })
        expect(await shown()).toEqual({ 2: 'two', 4: 'four' })
        await refusing(false)
        const records = (await parking.audit(2)).map(({ at, ...record }) => ({ ...record, at: at instanceof Date }))
        expect(records).toEqual([
          { ...key, ...BY, note: null, at: true, action: 'skip', skipped: worse.position, applied: 1, remaining: 0 },
          { ...key, ...BY, at: true, action: 'skip', skipped: bad.position, applied: 1, remaining: 2 },
        ])
      })

      parks('applies no placeholder: only a skip passes it', async () => {
        const { partition, write, shown } = fresh()
        const lane = await sink.claim(partition)
        const [first, third] = [write('a', 'one'), write('a', 'never'), write('a', 'three')].filter((_, index) => index !== 1)
        const hole: Event = { ...write('a', 'never'), value: null, placeholder: 'MILLRACE_EVENT_TOO_LARGE' }
        const last = write('a', 'four')
        await lane.apply(batchOf([], 5n, waiting([first as Event, third as Event, hole, last])))
        const key = { ...partition, order: orderOf(hole) }
        const reason = { code: 'MILLRACE_EVENT_TOO_LARGE', message: expect.any(String) }
        expect(await parking.redrive(key, BY)).toEqual({ applied: 2, remaining: 2, reason })
        expect(await parking.redrive(key, BY)).toEqual({ applied: 0, remaining: 2, reason })
        expect(await shown()).toEqual({ a: 'three' })
        expect(await parking.skip(key, hole.position, BY)).toEqual({ applied: 1, remaining: 0, reason: null })
        expect(await shown()).toEqual({ a: 'four' })
      })

      parks('parks any key there is', async () => {
        const names = [
          '__proto__',
          'constructor',
          'a/b',
          '',
          ' ',
          '"\\\'%_',
          'e\u0301',
          '\u00e9',
          '\ufeffbom',
          '💶',
          '\u0000',
          'x'.repeat(9_000),
        ]
        const { partition, write, shown } = fresh()
        const lane = await sink.claim(partition)
        const events = names.map(
          (name, index): Event => ({
            ...write(`${index}`, name.length > 99 ? 'long' : name.replace('\u0000', 'nul')),
            orderingKey: name,
          }),
        )
        await lane.apply(
          batchOf(
            [],
            99n,
            events.flatMap((event) => waiting([event])),
          ),
        )
        const orders = events.map(orderOf)
        expect((await lane.reread()).parked).toEqual(new Set(orders))
        expect(new Set((await keysOf({ ...partition, order: '' })).map(({ order }) => order))).toEqual(new Set(orders))
        for (const order of orders)
          expect(await parking.redrive({ ...partition, order }, BY)).toMatchObject({ applied: 1, remaining: 0 })
        expect((await lane.reread()).parked).toEqual(new Set())
        expect(Object.keys(await shown())).toHaveLength(names.length)
      })

      parks('waits in each topic partition for itself', async () => {
        const [one, two] = [await parkedLane(['one']), await parkedLane(['two'])]
        const shared = (event: Event): Event => ({ ...event, orderingKey: 'shared' })
        for (const { lane, write, offset } of [one, two])
          await lane.apply(batchOf([], offset + 1n, waiting([shared(write('b', 'x'))], offset)))
        const key = { ...one.partition, order: 'shop/shared' }
        const before = await parking.totals()
        expect(await parking.redrive(key, BY)).toMatchObject({ applied: 1 })
        expect(await two.lane.reread()).toMatchObject({ parked: new Set([two.key.order, 'shop/shared']) })
        const after = await parking.totals()
        expect([before.keys - after.keys, before.events - after.events]).toEqual([1, 1])
        expect(after.bytes).toBeLessThan(before.bytes)
      })
    })
  })
}
