import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import local from '../../connectors/queues/local.ts'
import type { Event } from '../../src/core/event.ts'
import { type Position, position } from '../../src/core/position.ts'
import type { Queue } from '../../src/core/queue.ts'
import { toRecord } from '../../src/core/record.ts'
import type { RelayState } from '../../src/core/relay-state.ts'
import { checkpointOf, type SavedCheckpoint } from '../../src/core/saved-checkpoint.ts'
import {
  decodeRange,
  encodeRange,
  isCutShort,
  isHole,
  type RangeContext,
  resolveRange,
  selects,
} from '../../src/pipeline/replay-range.ts'
import { eventStream } from '../../src/testing/events.ts'
import { silent } from '../connectors/postgres-fixture.ts'
import { epoch, state as someState } from '../core/stream.ts'

/** Two partitions of one topic in a real queue: what can be asked for, and how it is refused. */

const TOPIC = 'outbox.event.order'
const MINUTE = 60_000
const NOON = Date.parse('2026-11-20T12:00:00Z')

let folder: string
let path: string
let queue: Queue
let now: number
let events: readonly Event[]

/** an event a minute, in turn on the two partitions, each published ten seconds after its commit */
async function publishAll(): Promise<void> {
  const streams = [eventStream(), eventStream({ firstCommit: 0x1008n })]
  const publisher = await queue.publisher()
  const all: Event[] = []
  for (let n = 0; n < 20; n++) {
    const partition = n % 2
    const committedAt = NOON + n * MINUTE
    const event = {
      ...(streams[partition] as (typeof streams)[0]).next({ type: 'Put', key: `k${n}`, payload: { n } }),
      committedAt,
    }
    now = committedAt + 10_000
    await publisher.publish([{ topic: TOPIC, partition, records: [toRecord(event)] }])
    all.push(event)
  }
  await publisher.close()
  events = all
  now = NOON + 60 * MINUTE
}

/** as retention does */
function trim(partition: number, before: number): void {
  const file = new DatabaseSync(path)
  file
    .prepare('delete from batch where partition = (select id from partition where topic = ? and number = ?) and base < ?')
    .run(TOPIC, partition, before)
  file.prepare('update partition set log_start = ? where topic = ? and number = ?').run(before, TOPIC, partition)
  file.close()
}

const at = (n: number): Position => (events[n] as Event).position
/** the relay's state once the first `count` events were published */
const stateAfter = (count: number): RelayState => {
  const tails = [0, 1].map((partition) => {
    const own = events.slice(0, count).filter((_, n) => n % 2 === partition)
    return { position: own.at(-1)?.position ?? null, offset: BigInt(own.length) - 1n }
  })
  return {
    ...someState,
    epochs: [epoch(1), epoch(2, { from: 0x9000n })],
    intent: 0x1000n + BigInt(count) * 8n,
    topics: new Map([[TOPIC, tails]]),
  }
}
const savedAfter = (count: number, name = `after-${count}`): SavedCheckpoint =>
  checkpointOf(stateAfter(count), name, NOON + count * MINUTE, false)

const context = (more: Partial<RangeContext> = {}): RangeContext => ({
  queue,
  source: 'shop',
  places: [0, 1].map((partition) => ({ topic: TOPIC, partition, end: 10n, positions: new Map([['shop', at(18 + partition)]]) })),
  checkpoints: [],
  state: stateAfter(20),
  now,
  ...more,
})

/** which events a range selects, as it is read */
async function selected(from: string, to: string | null = null, more: Partial<RangeContext> = {}): Promise<readonly number[]> {
  const { partitions } = decodeRange(encodeRange(await resolveRange({ from, to }, context(more))))
  return events.flatMap((event, n) => {
    const range = partitions[n % 2]
    const offset = BigInt(Math.floor(n / 2))
    return range !== undefined && offset >= range.start && offset < range.end && selects(range, event) ? [n] : []
  })
}
const numbers = (from: number, to = 19): readonly number[] => Array.from({ length: to - from + 1 }, (_, n) => from + n)

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-range-'))
  path = join(folder, 'queue.db')
  now = NOON
  const parsed = await local.options['~standard'].validate({ path, topics: { partitions: 2, retention: '30d' } })
  if (parsed.issues) throw new Error(JSON.stringify(parsed.issues))
  queue = await local.open(parsed.value, { log: silent, pipeline: 'shop', now: () => now })
  await queue.createTopic(TOPIC)
  await publishAll()
})
afterEach(async () => {
  await queue.close()
  await rm(folder, { recursive: true, force: true })
})

describe('every kind of place', () => {
  test('a position, an LSN, a time, an event id and a checkpoint say the same', async () => {
    const checkpoints = [savedAfter(7), savedAfter(12)]
    for (const from of [
      at(7),
      `0/${(0x1000 + 8 * 9).toString(16)}`,
      '2026-11-20T12:06:00.001Z',
      events[7]?.id as string,
      `event:${events[7]?.id}`,
      'after-7',
    ])
      expect([from, await selected(from, null, { checkpoints })]).toEqual([from, numbers(7)])
    for (const to of [at(11), '2026-11-20T12:11Z', events[11]?.id as string, 'after-12'])
      expect([to, await selected('after-7', to, { checkpoints })]).toEqual([to, numbers(7, 11)])
  })

  test('a saved checkpoint lets the reading begin near its start, and one of another stream does not', async () => {
    const starts = async (checkpoints: readonly SavedCheckpoint[]) =>
      (await resolveRange({ from: at(13), to: null }, context({ checkpoints }))).partitions.map(({ start }) => start)
    expect(await starts([savedAfter(4), savedAfter(12), savedAfter(16)])).toEqual([6n, 6n])
    expect(await starts([{ ...savedAfter(12), streamId: 'another' }])).toEqual([0n, 0n])
    // a topic that was made again holds other records at these offsets
    const elsewhere = savedAfter(12)
    const topics = new Map([[TOPIC, (elsewhere.topics.get(TOPIC) ?? []).map((tail) => ({ ...tail, offset: tail.offset + 2n }))]])
    expect(await starts([{ ...elsewhere, topics }])).toEqual([0n, 0n])
  })

  test('what the sink has applied was relayed, also where the relay has yet to record it', async () => {
    expect(await selected(at(15), null, { state: stateAfter(10) })).toEqual(numbers(15))
  })

  test('a topic that was made after the checkpoint is meant from its first event on', async () => {
    const early = { ...savedAfter(7), topics: new Map() }
    expect(await selected('after-7', null, { checkpoints: [early] })).toEqual(numbers(0))
  })
})

describe('what cannot be meant is refused', () => {
  const refused = (message: string) =>
    expect.objectContaining({ code: 'MILLRACE_REPLAY_REFUSED', message: expect.stringContaining(message) as string })
  const asking = (from: string, to: string | null = null, more: Partial<RangeContext> = {}) =>
    resolveRange({ from, to }, context({ checkpoints: [savedAfter(7), savedAfter(12)], ...more }))

  test('the future, another epoch, another stream, and an end before its start', async () => {
    const away = { ...savedAfter(7, 'elsewhere'), streamId: 's-0' }
    for (const [from, to, message] of [
      ['2026-11-20T13:00:00.001Z', null, 'it lies in the future: it is 2026-11-20T13:00:00.000Z now'],
      [at(3), '2026-11-21T00:00Z', 'it lies in the future'],
      [position(3, 1n, 1), null, 'it is of epoch 3, and shop has 1 to 2: a position of another source?'],
      [position(0, 1n, 1), null, 'it is of epoch 0'],
      [position(1, 0x8000n, 1), null, 'it lies beyond what was relayed of shop'],
      ['0/FF000', null, 'it lies beyond what was relayed of shop'],
      ['elsewhere', null, 'was saved of the stream s-0, and shop is now s-1'],
      ['event:nobody', null, 'no event of shop with the id nobody'],
      ['after-12', 'after-7', 'it comes after --to after-7'],
      [at(9), at(8), 'it comes after --to'],
      ['2026-11-20T12:05Z', '2026-11-20T12:04Z', 'it comes after --to'],
    ] as const)
      await expect(asking(from, to, { checkpoints: [savedAfter(7), savedAfter(12), away] }), from).rejects.toEqual(
        refused(message),
      )
    await expect(asking('nowhere')).rejects.toMatchObject({ code: 'MILLRACE_CHECKPOINT_UNKNOWN' })
    await expect(asking('12:00')).rejects.toMatchObject({ code: 'MILLRACE_USAGE' })
  })

  test('what retention took, with what is left of each partition and the earliest place that misses nothing', async () => {
    trim(0, 4)
    trim(1, 3)
    for (const from of [at(2), 'after-5', '2026-11-20T12:05Z'])
      await expect(asking(from, null, { checkpoints: [savedAfter(5)] }), from).rejects.toMatchObject({
        code: 'MILLRACE_REPLAY_REFUSED',
        message: expect.stringContaining(
          `outbox.event.order/0 begins at ${at(8)}, committed at 2026-11-20T12:08:00.000Z`,
        ) as string,
        remedy: expect.stringContaining(`--from ${at(8)} (2026-11-20T12:08:00.000Z)`) as string,
        fields: { earliest: at(8), earliestTime: '2026-11-20T12:08:00.000Z' },
      })
    expect(await selected(at(8))).toEqual(numbers(8))
    // nothing of what came after it is gone
    expect(await selected('after-8', null, { checkpoints: [savedAfter(8)] })).toEqual(numbers(8))
  })

  test('a partition that retention emptied misses nothing where its last event is known to be older', async () => {
    trim(0, 10)
    expect(await selected(at(19), null, { checkpoints: [savedAfter(20)] })).toEqual([19])
    await expect(asking(at(15))).rejects.toEqual(
      refused(`outbox.event.order/0 holds nothing any more, its last event was ${at(18)}`),
    )
    const { unproven } = await asking('2026-11-20T12:50Z', null, { checkpoints: [] })
    expect(unproven).toEqual([{ topic: TOPIC, partition: 0 }])
    // saved long enough before for any two clocks
    expect((await asking('2026-11-20T12:50Z', null, { checkpoints: [savedAfter(20)] })).unproven).toEqual([])
  })

  test('a hole shows when it is read, and so does an end that was never met', async () => {
    const range = (await asking(at(6))).partitions[0]
    if (range === undefined) throw new Error('no partition')
    const jump = (n: number, stood: number | null) =>
      isHole(range, { event: events[n] as Event, at: stood === null ? null : at(stood) })
    expect([jump(10, 6), jump(8, null), jump(6, null), jump(6, 2)]).toEqual([true, true, false, false])
    const applied = new Map([['shop', at(18)]])
    expect([
      isCutShort(range, new Map([['shop', at(18)]]), applied),
      isCutShort(range, new Map([['shop', at(8)]]), applied),
    ]).toEqual([false, true])
    expect(isCutShort(range, new Map(), new Map([['shop', at(4)]]))).toBe(false)
  })
})
