import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { policyFor } from '../../src/core/policy.ts'
import type { PartitionCheckpoint, Sink } from '../../src/core/sink.ts'
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
  /** what the store shows: text by key */
  rows(): Promise<ReadonlyMap<string, string>>
  remove(): Promise<void>
}

/** The contract of `core/sink.ts`, for every sink alike. What a sink does not promise (its traits) is not asked of it. */
export function sinkContract(name: string, start: () => Promise<SinkUnderTest>, promises = { checkpoints: true }): void {
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

    it('takes a batch that moves the offset only', async () => {
      const { partition } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply({ moves: [], offset: 4n, events: [], parked: [] })
      await lane.release()
    })

    it('says in its traits what it promises', () => {
      expect(sink.traits.checkpoints).toBe(promises.checkpoints)
    })

    const checkpoints: typeof it | (() => void) = promises.checkpoints ? it : () => {}

    checkpoints('has no checkpoint before the first event, and the last position after it', async () => {
      const { partition, stream, write } = fresh()
      const lane = await sink.claim(partition)
      expect(lane.checkpoint).toEqual({ ...partition, positions: new Map(), offset: null })
      await lane.apply(batchOf([write('a', 'one'), write('b', 'one')], 2n))
      expect(await lane.reread()).toEqual({ ...partition, positions: new Map([[stream.source, stream.at]]), offset: 2n })
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
      await lane.apply({ moves: [], offset: 10n, events: [], parked: [] })
      expect(await lane.reread()).toEqual({ ...partition, positions: new Map(), offset: 10n })
      await lane.apply(batchOf([write('a', 'one')], 11n))
      await lane.apply({ moves: [], offset: 40n, events: [], parked: [] })
      expect(await lane.reread()).toEqual({ ...partition, positions: new Map([[stream.source, stream.at]]), offset: 40n })
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
        await expect(before.apply({ moves: [], offset: 99n, events: [], parked: [] })).rejects.toMatchObject({
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
      await lane.apply({ moves: [{ source: 'elsewhere', from: null, to: foreign.position }], offset: 3n, events: [], parked: [] })
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
        expect(policyFor(error)).toBe('halt')
        expect(await shown()).toEqual({ a: 'one' })
        expect((await lane.reread()).offset).toBe(1n)
        await lane.apply(batchOf([fit], 2n))
        expect(await shown()).toEqual({ a: 'two' })
        await lane.release()
      },
    )
  })
}
