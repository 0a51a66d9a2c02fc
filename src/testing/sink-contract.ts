import assert from 'node:assert/strict'
import { policyFor } from '../core/policy.ts'
import type { LaneBatch, PartitionCheckpoint, Sink } from '../core/sink.ts'
import { batchOf, eventStream } from './events.ts'
import { equal, matches, rejects } from './expect.ts'
import { parkingContract } from './parking-contract.ts'
import { redeliveryContract } from './redelivery-contract.ts'
import { freshPartition, type SinkPromises, type SinkUnderTest, type Stand } from './sink-under-test.ts'

export interface SinkContract {
  /** your runner's: `test` of vitest, jest, node:test, `it` of mocha … Tests must not run at the same time. */
  readonly test: (name: string, run: () => Promise<void>) => unknown
  /** the sink on a store of its own; called, and removed, for each test */
  readonly start: () => Promise<SinkUnderTest>
  /** what the sink promises; default: exactly once, with checkpoints, and no more than that */
  readonly promises?: Partial<SinkPromises>
}

/** Registers a test: it is given the sink, open and initialised. */
export type Promised = (name: string, run: (stand: Stand) => Promise<void>) => void

const DEFAULTS: SinkPromises = { effect: 'exactly-once', checkpoints: true, parking: false, redeliver: false, copies: false }

export const FENCED = { code: 'MILLRACE_SINK_FENCED' }

/** The contract of `Sink`, for every sink alike. What a sink does not promise is not asked of it. */
export function sinkContract({ test, start, promises: given }: SinkContract): void {
  const promises = { ...DEFAULTS, ...given }
  const promised = promisedBy(test, start, promises)

  promised('says in its traits, and by what it has, what it promises', async ({ sink }) => {
    const { effect, checkpoints } = sink.traits
    const { parking, redeliver, copies } = sink
    equal({ effect, checkpoints, parking: parking !== null, redeliver: redeliver !== null, copies: copies !== null }, promises)
  })

  laneContract(promised)
  if (promises.checkpoints) checkpointContract(promised)
  if (promises.parking) parkingContract(promised)
  if (promises.redeliver) redeliveryContract(promised)
}

export function promisedBy(test: SinkContract['test'], start: SinkContract['start'], promises = DEFAULTS): Promised {
  let partitions = 0
  return (name, run) =>
    void test(name, async () => {
      const under = await start()
      const opened: Sink[] = []
      const another = async (): Promise<Sink> => {
        const sink = await under.open()
        opened.push(sink)
        return sink
      }
      try {
        const sink = await another()
        await sink.init()
        await run({ under, sink, promises, another, fresh: () => freshPartition(under, partitions++) })
      } finally {
        for (const sink of opened) await sink.close()
        await under.remove()
      }
    })
}

function laneContract(promised: Promised): void {
  promised('says what is wrong in findings, and finds nothing wrong with a store that init prepared', async ({ sink }) => {
    equal(
      (await sink.check()).filter(({ level }) => level === 'blocker'),
      [],
    )
  })

  promised('can be initialised again without a change', async ({ sink, fresh }) => {
    const { partition, write, shown } = fresh()
    const lane = await sink.claim(partition)
    await lane.apply(batchOf([write('a', 'one')], 1n))
    await sink.init()
    equal(await shown(), { a: 'one' })
    equal((await lane.reread()).offset, 1n)
  })

  promised('applies events in their order, and the last of a key stands', async ({ sink, fresh }) => {
    const { partition, write, erase, shown } = fresh()
    const lane = await sink.claim(partition)
    await lane.apply(batchOf([write('a', 'one'), write('b', 'one'), write('a', 'two'), write('c', 'one'), erase('c')], 5n))
    equal(await shown(), { a: 'two', b: 'one' })
    await lane.apply(batchOf([erase('a'), write('c', 'again')], 7n))
    equal(await shown(), { b: 'one', c: 'again' })
    await lane.release()
  })

  promised('accepts the erasure of what it never saw', async ({ sink, fresh }) => {
    const { partition, erase, shown } = fresh()
    const lane = await sink.claim(partition)
    await lane.apply(batchOf([erase('nobody')], 1n))
    equal(await shown(), {})
    await lane.release()
  })

  promised('keeps how the applier began, until it says otherwise', async ({ sink, fresh }) => {
    const { partition, write } = fresh()
    const lane = await sink.claim(partition)
    await lane.apply({ ...offsetOnly(4n), beginning: 'in the "midst"' })
    await lane.apply(batchOf([write('a', 'one')], 5n))
    matches(await lane.reread(), { offset: 5n, beginning: 'in the "midst"' })
    await lane.apply({ ...offsetOnly(6n), beginning: 'anew' })
    matches(await lane.reread(), { offset: 6n, beginning: 'anew' })
    await lane.release()
  })

  promised('takes a batch that moves the offset only', async ({ sink, fresh }) => {
    const lane = await sink.claim(fresh().partition)
    await lane.apply(offsetOnly(4n))
    equal((await lane.reread()).offset, 4n)
    await lane.release()
  })

  promised(
    'lets no offset go back: what arrives late, after the checkpoint was read again, has no effect',
    async ({ sink, fresh, promises }) => {
      const { partition, stream, write, shown } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply(offsetOnly(4n))
      await lane.apply(batchOf([write('a', 'one')], 5n))
      await lane.reread()
      const next = write('a', 'late')
      for (const batch of [offsetOnly(4n), batchOf([next], 4n)]) await rejects(lane.apply(batch), FENCED)
      equal(await lane.reread(), {
        ...partition,
        positions: new Map([[stream.source, next.prev]]),
        offset: 5n,
        parked: new Set(),
        beginning: null,
      })
      if (promises.effect === 'exactly-once') equal(await shown(), { a: 'one' })
      await lane.apply(offsetOnly(5n))
    },
  )
}

function checkpointContract(promised: Promised): void {
  promised('has no checkpoint before the first event, and the last position after it', async ({ sink, fresh }) => {
    const { partition, stream, write } = fresh()
    const lane = await sink.claim(partition)
    equal(lane.checkpoint, { ...partition, positions: new Map(), offset: null, parked: new Set(), beginning: null })
    await lane.apply(batchOf([write('a', 'one'), write('b', 'one')], 2n))
    equal(await lane.reread(), {
      ...partition,
      positions: new Map([[stream.source, stream.at]]),
      offset: 2n,
      parked: new Set(),
      beginning: null,
    })
    await lane.release()
  })

  promised('finds its checkpoint again in another process', async ({ sink, fresh, another }) => {
    const { partition, stream, write } = fresh()
    const first = await sink.claim(partition)
    await first.apply({ ...batchOf([write('a', 'one')], 9_007_199_254_740_993n), beginning: 'here' })
    await first.release()
    const lane = await (await another()).claim(partition)
    equal(lane.checkpoint, {
      ...partition,
      positions: new Map([[stream.source, stream.at]]),
      offset: 9_007_199_254_740_993n,
      parked: new Set(),
      beginning: 'here',
    })
    await lane.release()
  })

  promised('moves the offset alone with an empty batch', async ({ sink, fresh }) => {
    const { partition, stream, write } = fresh()
    const lane = await sink.claim(partition)
    await lane.apply(offsetOnly(10n))
    equal(await lane.reread(), { ...partition, positions: new Map(), offset: 10n, parked: new Set(), beginning: null })
    await lane.apply(batchOf([write('a', 'one')], 11n))
    await lane.apply(offsetOnly(40n))
    equal(await lane.reread(), {
      ...partition,
      positions: new Map([[stream.source, stream.at]]),
      offset: 40n,
      parked: new Set(),
      beginning: null,
    })
    await lane.release()
  })

  promised(
    'refuses a batch that does not begin where its source stands, and changes nothing',
    async ({ sink, fresh, promises }) => {
      const { partition, stream, write, shown } = fresh()
      const lane = await sink.claim(partition)
      const first = batchOf([write('a', 'one')], 1n)
      await lane.apply(first)
      await rejects(lane.apply(first), FENCED)
      const skipped = write('a', 'skipped')
      await rejects(lane.apply(batchOf([write('a', 'three')], 3n)), FENCED)
      if (promises.effect === 'exactly-once') equal(await shown(), { a: 'one' })
      matches(await lane.reread(), { offset: 1n, positions: new Map([[stream.source, skipped.prev]]) })
      await lane.release()
    },
  )

  promised(
    'fences an owner that another one followed, and lets it change nothing',
    async ({ sink, fresh, another, promises }) => {
      const { partition, write, shown } = fresh()
      const before = await sink.claim(partition)
      await before.apply(batchOf([write('a', 'one')], 1n))
      const after = await (await another()).claim(partition)
      const batch = batchOf([write('a', 'zombie')], 2n)
      await rejects(before.apply(batch), FENCED)
      await rejects(before.apply(offsetOnly(99n)), FENCED)
      await rejects(before.reread(), FENCED)
      if (promises.effect === 'exactly-once') equal(await shown(), { a: 'one' })
      equal(await after.reread(), after.checkpoint)
      await after.apply(batch)
      equal(await shown(), { a: 'zombie' })
      await after.release()
    },
  )

  promised('is right when a claim crosses what the owner before it applies', async ({ sink, fresh, another, promises }) => {
    const { partition, write, shown } = fresh()
    const rival = await another()
    let [owner, other] = [sink, rival]
    let lane = await owner.claim(partition)
    let at = 0n
    for (let round = 0; round < 12; round++) {
      const batch = batchOf([write('a', `${round}`)], at + 1n)
      const [applied, claimed] = await Promise.allSettled([lane.apply(batch), other.claim(partition)])
      if (claimed.status === 'rejected') throw claimed.reason
      if (applied.status === 'rejected') matches(applied.reason, FENCED)
      lane = claimed.value
      const { offset } = await lane.reread()
      equal(offset === batch.offset, applied.status === 'fulfilled', 'what was acknowledged is what the checkpoint says')
      if (applied.status === 'rejected') {
        if (promises.effect === 'exactly-once') assert.notEqual((await shown())['a'], `${round}`)
        await lane.apply(batch)
      }
      equal(await shown(), { a: `${round}` })
      at = batch.offset
      ;[owner, other] = [other, owner]
    }
  })

  promised('keeps a checkpoint for each source of a partition, and one offset for all', async ({ sink, fresh, under }) => {
    const { partition, stream, write } = fresh()
    const lane = await sink.claim(partition)
    const foreign = eventStream({ source: 'elsewhere' }).next({ type: under.types.write, key: 'x', payload: {} })
    // a source's events may all be passed over by the sink: its position moves all the same
    await lane.apply({ ...offsetOnly(3n), moves: [{ source: 'elsewhere', from: null, to: foreign.position }] })
    await lane.apply(batchOf([write('a', 'one')], 4n))
    const both = {
      offset: 4n,
      positions: [
        ['elsewhere', foreign.position],
        [stream.source, stream.at],
      ],
    }
    const sorted = ({ positions, offset }: PartitionCheckpoint) => ({ offset, positions: [...positions].sort() })
    equal(sorted(await lane.reread()), both)
    const again = await sink.claim(partition)
    equal(sorted(again.checkpoint), both)
    await rejects(lane.apply(batchOf([write('a', 'two')], 5n)), FENCED)
    await again.release()
  })

  promised('has lanes that are independent of each other', async ({ sink, fresh, another }) => {
    const [one, two] = [fresh(), fresh()]
    const lanes = [await sink.claim(one.partition), await sink.claim(two.partition)] as const
    await Promise.all(
      [one, two].map(async ({ write }, index) => {
        for (let n = 0; n < 20; n++)
          await lanes[index as 0 | 1].apply(batchOf([write('a', `${n}`), write(`${n}`, 'x')], BigInt(n + 1)))
      }),
    )
    equal((await one.shown())['a'], '19')
    equal((await two.shown())['a'], '19')
    const known = (await (await another()).checkpoints()).map(({ topic, partition, offset }) => `${topic}/${partition}@${offset}`)
    for (const { partition } of [one, two])
      assert.ok(known.includes(`${partition.topic}/${partition.partition}@20`), `its checkpoints are ${known.join(', ')}`)
  })

  promised(
    'applies all or nothing: an event that does not fit is named, and what stands before it can be applied',
    async ({ sink, fresh, under, promises }) => {
      if (!under.unfit) return
      const { partition, write, unfit, shown, stream } = fresh()
      const lane = await sink.claim(partition)
      await lane.apply(batchOf([write('a', 'one')], 1n))
      const fit = write('a', 'two')
      const bad = unfit('b')
      const after = write('c', 'never')
      const error = await rejects(lane.apply(batchOf([fit, bad, after], 4n)), {})
      matches((error as { fields?: unknown }).fields, { position: bad.position, source: stream.source })
      equal(policyFor(error), 'park')
      if (promises.effect === 'exactly-once') equal(await shown(), { a: 'one' })
      equal((await lane.reread()).offset, 1n)
      await lane.apply(batchOf([fit], 2n))
      equal(await shown(), { a: 'two' })
      await lane.release()
    },
  )
}

export function offsetOnly(offset: bigint): LaneBatch {
  return { moves: [], offset, events: [], parked: [], beginning: null }
}
