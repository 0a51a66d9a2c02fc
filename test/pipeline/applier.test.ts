import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { eventStream } from '../../src/testing/events.ts'
import { ORDERS } from '../connectors/postgres-fixture.ts'
import { query } from '../faults/parts.ts'
import { eventually } from '../support/eventually.ts'
import { createRig, inPhase, laneOf, put, type Rig, TOPIC } from './rig.ts'

let rig: Rig
beforeEach(async () => {
  rig = await createRig()
})
afterEach(() => rig.drop())

test('start: latest holds its place from the beginning: a restart before the first event loses nothing', async () => {
  const stream = eventStream()
  await rig.publish(0, [stream.next(put('before', 'x'))])
  const sink = await rig.sink()
  const first = rig.applier(sink, { start: 'latest' })
  await inPhase(first, 0, 'following')
  await first.stop()
  await rig.publish(0, [stream.next(put('while-away', 'x'))])
  rig.applier(sink, { start: 'latest' })
  await rig.rowsAre(['while-away=x'])
})

test('a start that is changed after the sink began changes nothing: it goes on from where it began', async () => {
  const stream = eventStream()
  await rig.publish(0, [stream.next(put('before', 'x'))])
  const sink = await rig.sink()
  const first = rig.applier(sink, { start: 'latest' })
  await inPhase(first, 0, 'following')
  await first.stop()
  await rig.publish(0, [stream.next(put('a', 'x'))])
  rig.applier(sink, { start: 'earliest' })
  await rig.rowsAre(['a=x'])
})

test('start: latest founds its chain with its first event, and a gap after that is a gap', async () => {
  const stream = eventStream()
  await rig.publish(0, [stream.next(put('before', 'x'))])
  const sink = await rig.sink()
  const first = rig.applier(sink, { start: 'latest' })
  await inPhase(first, 0, 'following')
  await first.stop()
  const [a, , c] = [stream.next(put('a', 'x')), stream.next(put('b', 'x')), stream.next(put('c', 'x'))]
  await rig.publish(0, [a, c])
  const again = rig.applier(sink, { start: 'latest' })
  expect((await inPhase(again, 0, 'halted')).error).toMatchObject({ code: 'MILLRACE_GAP', fields: { at: a.position } })
  expect(await rig.rows()).toEqual(['a=x'])
})

test('a sink whose place retention has taken halts and names both ends', async () => {
  const small = await createRig({ retention: 1 })
  try {
    const stream = eventStream()
    const sink = await small.sink()
    const first = small.applier(sink)
    await inPhase(first, 0, 'following')
    await first.stop()
    await small.publish(0, [stream.next(put('a', 'x')), stream.next(put('b', 'x'))])
    // retention is the work of whoever publishes
    const publisher = await small.queue.publisher()
    await eventually(async () => (await small.queue.ranges(TOPIC))[0]?.start === 2n, { what: 'retention takes the events' })
    await publisher.close()
    const { error } = await inPhase(small.applier(sink), 0, 'halted')
    expect(error).toMatchObject({
      code: 'MILLRACE_QUEUE_OFFSET_GONE',
      message: expect.stringMatching(/stands at offset 0.* 2 to 2/),
      remedy: expect.stringContaining('fed anew'),
    })
  } finally {
    await small.drop()
  }
})

test('a sink that cannot be reached for a while goes on where it was', async () => {
  const server = await startPostgresServer()
  try {
    await query(server.url(), (client) => client.query(ORDERS))
    const count = (): Promise<number> =>
      query(server.url(), async (client) => Number((await client.query('select count(*) from orders')).rows[0].count))
    const stream = eventStream()
    const applier = rig.applier(await rig.sink(server.url()))
    await rig.publish(0, [stream.next(put('a', 'x'))])
    await eventually(async () => (await count()) === 1, { what: 'the first event arrives' })
    await server.stop('kill')
    await rig.publish(0, [stream.next(put('b', 'x')), stream.next(put('c', 'x'))])
    const { error } = await inPhase(applier, 0, 'waiting')
    expect(error).toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE' })
    await server.start()
    await eventually(async () => (await count()) === 3, { within: 30_000, what: 'what came meanwhile arrives' })
    expect(await inPhase(applier, 0, 'following')).toMatchObject({ applied: 3, error: null })
    await applier.stop()
  } finally {
    await server.remove()
  }
})

test('an applier whose partition another took is fenced and writes nothing more', async () => {
  const stream = eventStream()
  const applier = rig.applier(await rig.sink())
  await rig.publish(0, [stream.next(put('a', 'mine'))])
  await rig.rowsAre(['a=mine'])
  const other = await rig.sink()
  const lane = await other.claim({ topic: TOPIC, partition: 0 })
  await rig.publish(0, [stream.next(put('a', 'too late'))])
  await inPhase(applier, 0, 'fenced')
  expect(await rig.rows()).toEqual(['a=mine'])
  // and the taker, not the fenced one, has the checkpoint: taking it back would need fewer round trips than these
  for (let looks = 0; looks < 50; looks++) expect((await lane.reread()).offset).toBe(1n)
  expect(await rig.rows()).toEqual(['a=mine'])
})

test('stops within its bound while its sink is blocked, and forgets nothing', async () => {
  const stream = eventStream()
  const sink = await rig.sink()
  const applier = rig.applier(sink)
  await rig.publish(0, [stream.next(put('a', 'x'))])
  await rig.rowsAre(['a=x'])
  const { url } = rig.replica
  await query(url, async (client) => {
    await client.query('begin; lock table orders in access exclusive mode')
    await rig.publish(0, [stream.next(put('b', 'x'))])
    await eventually(
      async () =>
        (await client.query("select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"))
          .rowCount,
      { what: 'the applier waits for the lock' },
    )
    const stopped = applier.stop()
    await client.query('rollback')
    await stopped
  })
  expect(applier.status().phase).toBe('stopped')
  rig.applier(sink)
  await rig.rowsAre(['a=x', 'b=x'])
})

describe('topics', () => {
  test('that appear later are followed from then on', async () => {
    const applier = rig.applier(await rig.sink(), { topics: ['outbox.event.*'] })
    await eventually(() => applier.status().topics.length === 1, { what: 'the first topic is followed' })
    await rig.queue.createTopic('outbox.event.other')
    await eventually(() => applier.status().partitions.some(({ topic }) => topic === 'outbox.event.other'), {
      what: 'the new topic is followed',
    })
    await rig.publish(0, [eventStream().next(put('a', 'x'))])
    await rig.rowsAre(['a=x'])
    expect(laneOf(applier, 0)).toBeDefined()
  })

  test('that are deleted halt their partitions, which say so; the others flow on', async () => {
    await rig.queue.createTopic('outbox.event.other')
    await rig.replica.query('create table others (id text primary key)')
    const others = { from: 'other', into: 'public.others', key: 'id', guard: 'table', on: { Put: 'upsert' } } as const
    const applier = rig.applier(await rig.sink(rig.replica.url, { tables: [others] }), { topics: ['outbox.event.*'] })
    await eventually(() => applier.status().partitions.filter(({ offset }) => offset !== null).length === 4, {
      what: 'both topics are followed',
    })
    await rig.deleteTopic('outbox.event.other')
    const halted = await eventually(
      () => {
        const gone = applier.status().partitions.filter(({ phase }) => phase === 'halted')
        return gone.length === 2 ? gone : undefined
      },
      { within: 30_000, what: 'the partitions of the deleted topic are halted' },
    )
    expect(halted[0]).toMatchObject({
      topic: 'outbox.event.other',
      error: { code: 'MILLRACE_QUEUE_OFFSET_GONE', message: expect.stringContaining('is gone'), remedy: expect.any(String) },
    })
    await rig.publish(0, [eventStream().next(put('a', 'x'))])
    await rig.rowsAre(['a=x'])
  })
})
