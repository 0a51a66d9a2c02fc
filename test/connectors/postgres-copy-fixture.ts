import { onTestFinished } from 'vitest'
import type { PostgresSinkOptions } from '../../connectors/sinks/postgres.ts'
import type { Comparison, Copies, Copy, CopyShape, Difference, Reach } from '../../src/core/copy.ts'
import { type Event, orderOf } from '../../src/core/event.ts'
import type { TopicPartition } from '../../src/core/queue.ts'
import type { Lane, ParkedEvent, ParkReason, Sink } from '../../src/core/sink.ts'
import { batchOf, type EventSpec, eventStream } from '../../src/testing/events.ts'
import { at, openSink } from './postgres-fixture.ts'

export const WHOLE: Reach = { whole: true, since: new Map() }
export const REASON: ParkReason = { code: 'MILLRACE_EVENT_REJECTED', message: 'it does not fit' }

/** One partition: its log, the lane of the live sink, and how much of the log that has applied. */
interface Line {
  readonly place: TopicPartition
  readonly stream: ReturnType<typeof eventStream>
  readonly log: Event[]
  lane: Lane | null
}

/** A Postgres sink that follows logs kept here, and the copies that are folded of them, as the pipeline would. */
export interface Follower {
  readonly sink: Sink
  readonly copies: Copies
  /** appends to a partition's log, and applies it */
  live(specs: readonly EventSpec[], place?: TopicPartition): Promise<readonly Event[]>
  /** as `live`; the events are parked */
  park(specs: readonly EventSpec[], place?: TopicPartition): Promise<readonly Event[]>
  /** appends to a partition's log only: the sink is behind */
  publish(specs: readonly EventSpec[], place?: TopicPartition): readonly Event[]
  /** applies what is published */
  catchUp(place?: TopicPartition): Promise<void>
  create(shape?: CopyShape): Promise<Copy>
  /** folds to where the live sink stands; a partition that the copy has not begun begins at `from` */
  foldOn(copy: Copy, from?: number): Promise<void>
}

let streams = 0n

export async function follow(options: PostgresSinkOptions): Promise<Follower> {
  const sink = await openSink(options)
  onTestFinished(() => sink.close())
  await sink.init()
  const copies = sink.copies as Copies
  const lines = new Map<string, Line>()

  function lineOf(place: TopicPartition): Line {
    const name = `${place.topic}/${place.partition}`
    let line = lines.get(name)
    // positions of two partitions never meet, and stand between each other
    if (line === undefined)
      lines.set(name, (line = { place, stream: eventStream({ firstCommit: 0x1000n + (streams++ % 16n) }), log: [], lane: null }))
    return line
  }

  async function apply(line: Line, events: readonly Event[], parked: readonly ParkedEvent[]): Promise<void> {
    line.lane ??= await sink.claim(line.place)
    await line.lane.apply(batchOf(events, BigInt(line.log.length), parked))
  }

  function publish(specs: readonly EventSpec[], place = at(0)): readonly Event[] {
    const line = lineOf(place)
    const events = specs.map((spec) => line.stream.next(spec))
    line.log.push(...events)
    return events
  }

  return {
    sink,
    copies,
    publish,
    async live(specs, place = at(0)) {
      const events = publish(specs, place)
      await apply(lineOf(place), events, [])
      return events
    },
    async park(specs, place = at(0)) {
      const line = lineOf(place)
      const events = publish(specs, place)
      const first = line.log.length - events.length
      await apply(
        line,
        [],
        events.map((event, index) => ({ event, offset: BigInt(first + index), reason: REASON })),
      )
      return events
    },
    async catchUp(place = at(0)) {
      const line = lineOf(place)
      const own = (await sink.checkpoints()).find(
        ({ topic, partition }) => topic === place.topic && partition === place.partition,
      )
      await apply(line, line.log.slice(Number(own?.offset ?? 0n)), [])
    },
    create: (shape = 'rows') => copies.create('job', shape),
    async foldOn(copy, from = 0) {
      for (const live of await sink.checkpoints()) {
        const { log } = lineOf(live)
        const lane = await copy.fold({ topic: live.topic, partition: live.partition })
        let offset = lane.checkpoint.offset
        if (offset === null) {
          offset = BigInt(from)
          await lane.apply({ moves: [], offset, events: [], parked: [], beginning: null })
        }
        const end = live.offset as bigint
        const waits = (event: Event): boolean => live.parked.has(orderOf(event))
        const events = log.slice(Number(offset), Number(end))
        const parked = events.flatMap((event, index) =>
          waits(event) ? [{ event, offset: (offset as bigint) + BigInt(index), reason: null }] : [],
        )
        const batch = batchOf(
          events.filter((event) => !waits(event)),
          end,
          parked,
        )
        // a fold that begins in the midst has applied nothing before
        const moves = batch.moves.map((move) => ({ ...move, from: lane.checkpoint.positions.get(move.source) ?? null }))
        if (end > offset) await lane.apply({ ...batch, moves })
        await lane.release()
      }
    },
  }
}

export async function compareAll(
  copy: Copy,
  reach: Reach | null = WHOLE,
  limit = 3,
): Promise<{ keys: number; differences: readonly Difference[] }> {
  const differences: Difference[] = []
  let keys = 0
  for (const target of copy.targets)
    for (let after: string | null = null; ; ) {
      const chunk: Comparison = await copy.compare(target, after, { limit, reach })
      differences.push(...chunk.differences)
      keys += chunk.keys
      after = chunk.next
      if (after === null) break
    }
  return { keys, differences }
}

/** kinds by key */
export async function kinds(copy: Copy, reach: Reach | null = WHOLE, limit = 3): Promise<Record<string, string>> {
  const { differences } = await compareAll(copy, reach, limit)
  const found = Object.fromEntries(differences.map(({ key, kind }) => [key, kind]))
  if (Object.keys(found).length !== differences.length) throw new Error('a key was told twice')
  return found
}

/** compares, mends all that differs, and compares again */
export async function mendAll(copy: Copy, { extras = true, reach = WHOLE }: { extras?: boolean; reach?: Reach | null } = {}) {
  const { differences } = await compareAll(copy, reach)
  const mended = await copy.mend(differences, { extras })
  return { ...mended, after: await kinds(copy, reach) }
}
