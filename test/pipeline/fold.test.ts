import { beforeEach, describe, expect, it } from 'vitest'
import type { Copy } from '../../src/core/copy.ts'
import { type FoldOptions, foldOn } from '../../src/pipeline/fold.ts'
import { paceOf } from '../../src/pipeline/pace.ts'
import { silent } from '../connectors/postgres-fixture.ts'
import { TARGET } from '../support/copies.ts'
import { type MemoryStream, memoryStream, steppingClock } from './memory-stream.ts'

let stream: MemoryStream
let copy: Copy
const clock = steppingClock()

function fold(more: Partial<FoldOptions> = {}) {
  return foldOn({
    sink: stream.sink,
    copy,
    queue: stream.queue,
    sources: null,
    span: () => ({ start: 0n, end: null }),
    selects: null,
    pace: paceOf(null, clock),
    log: silent,
    clock,
    signal: new AbortController().signal,
    note: async () => {},
    ...more,
  })
}

const differences = async () =>
  (await copy.compare(TARGET, null, { limit: 100, reach: { whole: true, since: new Map() } })).differences.map(
    ({ key, kind }) => `${key} ${kind}`,
  )

async function begin(options: Parameters<typeof memoryStream>[0] = {}): Promise<void> {
  stream = memoryStream(options)
  for (const key of ['a', 'b', 'c', 'd']) stream.write(key, 'Put', { note: key })
  stream.write('c', 'Gone')
  await stream.apply()
  copy = await stream.store.copies.create('{}', 'rows')
}

describe('a fold', () => {
  beforeEach(() => begin())

  it('makes of the events what live applying makes of them, and ends where the sink stands', async () => {
    stream.write('a', 'Put', { note: 'not applied yet' })
    const folded = await fold()
    expect(folded).toMatchObject({ events: 5, parked: 0, refused: [], reach: { whole: true } })
    expect(await differences()).toEqual([])
    await stream.apply()
    expect(await differences()).toEqual(['a newer'])
    expect(await fold()).toMatchObject({ events: 1 })
    expect(await differences()).toEqual([])
  })

  it('goes on where it stood when it was broken off', async () => {
    const stopping = new AbortController()
    await fold({
      signal: stopping.signal,
      async note() {
        stopping.abort()
      },
    })
    let read = 0
    await fold({
      async note(records) {
        read = records
      },
    })
    expect(read).toBeLessThan(5)
    expect(await differences()).toEqual([])
  })

  it('passes late duplicates over', async () => {
    stream.write('a', 'Put', { note: 'later' })
    stream.again(stream.partitionOf('a'), 0, 1)
    await stream.apply()
    await fold()
    expect(await differences()).toEqual([])
  })

  it('folds apart what waits in the sink, and anew when it waits no more', async () => {
    stream.unfit.add('b')
    const parked = stream.write('b', 'Put', { note: 'waits' })
    stream.write('a', 'Put', { note: 'flows' })
    await stream.apply()
    expect(await fold()).toMatchObject({ parked: 1, refused: [] })
    expect(await differences()).toEqual(['b parked'])

    stream.store.redrive({ topic: 'outbox.event.order', partition: stream.partitionOf('b') }, 'shop/b')
    stream.unfit.clear()
    expect(await fold()).toMatchObject({ parked: 0 })
    expect(await differences()).toEqual([])
    expect(stream.store.live.rows.get('b')?.position).toBe(parked.position)
  })

  it('folds without what people gave up', async () => {
    stream.unfit.add('b')
    const refused = stream.write('b', 'Put', { note: 'given up' })
    await stream.apply()
    await fold()
    expect(await differences()).toEqual(['b parked'])
    // skipped: the key waits no more, and its row shows what came before
    stream.givenUp.push({ order: 'shop/b', position: refused.position })
    const at = { topic: 'outbox.event.order', partition: stream.partitionOf('b') }
    const checkpoint = stream.store.checkpoints().find(({ partition }) => partition === at.partition)
    expect(checkpoint?.parked).toEqual(new Set(['shop/b']))
    stream.unfit.clear()
    const row = stream.store.live.rows.get('b')
    stream.store.redrive(at, 'shop/b')
    stream.store.live.rows.set('b', row as NonNullable<typeof row>)
    await fold()
    expect(await differences()).toEqual([])
  })

  it('refuses a range whose events are missing from the queue', async () => {
    const founded: string[] = []
    await expect(
      fold({
        span: () => ({
          start: 1n,
          end: null,
          founded: ({ event }) => {
            founded.push(event.position)
            throw new Error('a hole')
          },
        }),
      }),
    ).rejects.toThrow('a hole')
    expect(founded.length).toBeGreaterThan(0)
  })

  it('refuses a queue that does not hold what the sink has applied', async () => {
    await stream.apply()
    const cut = stream.partitionOf('a')
    const { sink } = stream
    await expect(
      fold({
        sink: {
          ...sink,
          checkpoints: async () =>
            (await sink.checkpoints()).map((one) =>
              one.partition === cut ? { ...one, positions: new Map([['shop', stream.write('b', 'Put', {}).position]]) } : one,
            ),
        },
      }),
    ).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_REFUSED', message: expect.stringContaining('the queue is not the one') })
  })

  it('tells how far back it reaches where the log was cut', async () => {
    const own = stream.partitionOf('a')
    const last = stream.write('a', 'Put', { note: 'last' })
    await stream.apply()
    const { end } = stream.range(own)
    stream.trim(own, end - 1n)
    const folded = await fold({ span: ({ partition }) => ({ start: stream.range(partition).start, end: null }) })
    expect(folded.reach).toEqual({ whole: false, since: new Map([['shop', last.position]]) })
  })

  it('keeps to a rate', async () => {
    const own = steppingClock()
    for (let n = 0; n < 95; n++) stream.write(`k${n}`, 'Put', {})
    await stream.apply()
    await fold({ pace: paceOf(10, own) })
    expect(own.waited).toBeGreaterThan(9_000)
    expect(own.waited).toBeLessThan(10_500)
  })
})

it('leaves a key alone of which the copy cannot take an event, and does not begin anew for it', async () => {
  let picky = false
  await begin({ refuses: ({ key }) => picky && new TextDecoder().decode(key) === 'b' })
  picky = true
  const first = await fold()
  expect(first).toMatchObject({ parked: 0, refused: ['shop/b'] })
  expect(await differences()).toEqual(['b parked'])
  expect(await fold()).toMatchObject({ events: 0, refused: ['shop/b'] })
})

it('gives up where the copy refuses key after key: then no event is at fault', async () => {
  let picky = false
  await begin({ partitions: 1, refuses: ({ key }) => picky && new TextDecoder().decode(key).startsWith('x') })
  const writeAll = async (from: number, to: number): Promise<void> => {
    picky = false
    for (let n = from; n < to; n++) stream.write(`x${n}`, 'Put', { note: '' })
    await stream.apply()
    picky = true
  }
  await writeAll(0, 1_000)
  expect((await fold()).refused).toHaveLength(1_000)
  await writeAll(1_000, 1_001)
  await expect(fold()).rejects.toMatchObject({
    code: 'MILLRACE_REPLAY_REFUSED',
    message: expect.stringContaining('more than 1000 keys of outbox.event.order/0'),
    remedy: expect.any(String),
  })
})
