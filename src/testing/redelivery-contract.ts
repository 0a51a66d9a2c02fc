import type { Event } from '../core/event.ts'
import { batchOf } from './events.ts'
import { equal, matches, rejects } from './expect.ts'
import type { Promised } from './sink-contract.ts'
import type { SinkUnderTest, Stand } from './sink-under-test.ts'

/** What `Sink.redeliver` promises: the same events once more, told from the first time, and nothing else. */
export function redeliveryContract(promised: Promised): void {
  /** the ids of these events that were delivered again, in that order */
  async function replayed(under: SinkUnderTest, events: readonly Event[]): Promise<readonly string[]> {
    if (!under.replayed) throw new Error('a sink that promises to deliver again is to be tested with `replayed`')
    const own = new Set(events.map(({ id }) => id))
    return (await under.replayed()).filter((id) => own.has(id))
  }
  const redeliver = async ({ sink }: Pick<Stand, 'sink'>, ...[place, events]: Parameters<NonNullable<typeof sink.redeliver>>) =>
    sink.redeliver?.(place, events)

  promised('delivers again in order, marked, and only what it is given', async ({ sink, fresh, under }) => {
    const { partition, write, erase } = fresh()
    const lane = await sink.claim(partition)
    const events = [write('a', 'one'), write('b', 'one'), erase('b'), write('a', 'two')]
    await lane.apply(batchOf(events, 4n))
    equal(await replayed(under, events), [], 'what is applied for the first time is not marked')
    await redeliver({ sink }, partition, events.slice(1))
    await redeliver({ sink }, partition, events.slice(0, 1))
    equal(
      await replayed(under, events),
      [1, 2, 3, 0].map((index) => events[index]?.id),
    )
    await redeliver({ sink }, partition, [])
  })

  promised(
    'delivers again beside the owner: no checkpoint moves, and nobody is fenced',
    async ({ sink, fresh, another, under }) => {
      const { partition, write } = fresh()
      const lane = await sink.claim(partition)
      const events = [write('a', 'one'), write('a', 'two')]
      await lane.apply(batchOf(events, 2n))
      const [before, kept] = [await lane.reread(), await sink.checkpoints()]
      await redeliver({ sink: await another() }, partition, events)
      equal(
        await replayed(under, events),
        events.map(({ id }) => id),
      )
      equal(await lane.reread(), before)
      equal(await sink.checkpoints(), kept)
      await lane.apply(batchOf([write('a', 'three')], 3n))
    },
  )

  promised('delivers again in a partition that nobody owns, and begins none by it', async ({ sink, fresh, under }) => {
    const { partition, write } = fresh()
    const events = [write('a', 'one')]
    await redeliver({ sink }, partition, events)
    equal(await replayed(under, events), [events[0]?.id])
    equal((await sink.claim(partition)).checkpoint.offset, null)
  })

  promised('names the event that it cannot deliver again', async ({ sink, fresh, under }) => {
    if (!under.unfit) return
    const { partition, write, unfit, stream } = fresh()
    const events = [write('a', 'one'), unfit('b')]
    const error = await rejects(redeliver({ sink }, partition, events), {})
    matches((error as { fields?: unknown }).fields, { position: events[1]?.position, source: stream.source })
  })
}
