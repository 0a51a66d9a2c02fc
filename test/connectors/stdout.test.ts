import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { PassThrough, Writable } from 'node:stream'
import { expect, test } from 'vitest'
import stdout, { openLineSink } from '../../connectors/sinks/stdout.ts'
import type { Event } from '../../src/core/event.ts'
import { type Position, position } from '../../src/core/position.ts'
import type { LaneBatch } from '../../src/core/sink.ts'

const place = { topic: 'outbox.event.order', partition: 2 }
const at = (index: number): Position => position(1, 0xabcdefn, index)
const utf8 = (text: string): Uint8Array => Buffer.from(text)

function event(index: number, fields: Partial<Event> = {}): Event {
  return {
    source: 'shop',
    position: at(index),
    prev: index === 1 ? null : at(index - 1),
    id: `id-${index}`,
    type: 'OrderPlaced',
    key: utf8('42'),
    value: utf8('{"id":42}'),
    headers: [],
    committedAt: 1_795_264_496_000,
    version: '1',
    orderingKey: null,
    placeholder: null,
    ...fields,
  }
}

function batch(events: readonly Event[], from: Position | null = null): LaneBatch {
  const last = events.at(-1)
  return {
    events,
    parked: [],
    beginning: null,
    offset: BigInt(events.length),
    moves: last === undefined ? [] : [{ source: 'shop', from, to: last.position }],
  }
}

/** what the sink writes for the event, as text */
async function lineOf(fields: Partial<Event>): Promise<string> {
  const stream = new PassThrough({ encoding: 'utf8' })
  const sink = openLineSink(stream)
  await (await sink.claim(place)).apply(batch([event(1, fields)]))
  await sink.close()
  const text = stream.read() as string
  expect(text.indexOf('\n')).toBe(text.length - 1)
  return text.trimEnd()
}

const parsed = async (fields: Partial<Event>): Promise<Record<string, unknown>> =>
  JSON.parse(await lineOf(fields)) as Record<string, unknown>

test('an event is one line of JSON', async () => {
  expect(await parsed({ headers: [['traceparent', utf8('00-1-2-01')]] })).toEqual({
    source: 'shop',
    topic: 'outbox.event.order',
    partition: 2,
    position: '00000001-0000000000abcdef-00000001',
    id: 'id-1',
    type: 'OrderPlaced',
    version: '1',
    key: '42',
    committedAt: 1_795_264_496_000,
    headers: { traceparent: '00-1-2-01' },
    value: { id: 42 },
  })
})

test('a payload is passed on as it was written: numbers keep every digit, and line breaks stay inside the line', async () => {
  expect(await lineOf({ value: utf8('{"id":9007199254740993,"total":1.10,"far":1e400}') })).toContain(
    '"value":{"id":9007199254740993,"total":1.10,"far":1e400}',
  )
  expect(await lineOf({ value: utf8('{\r\n  "lines": [\n    1\n  ],\n  "text": "a\\nb\u2028"\n}\n') })).toMatch(
    /"value":\{ {3}"lines": \[ {5}1 {3}\], {3}"text": "a\\nb\u2028" \}\}$/,
  )
})

test('a tombstone is told from the payload null, and both from a payload that is not JSON', async () => {
  expect(await parsed({ value: null })).toMatchObject({ tombstone: true })
  expect(await parsed({ value: null })).not.toHaveProperty('value')
  expect(await parsed({ value: utf8('null') })).toMatchObject({ value: null })
  expect(await parsed({ value: utf8('') })).toMatchObject({ valueBase64: '' })
  expect(await parsed({ value: utf8('{"id":}') })).toMatchObject({ valueBase64: Buffer.from('{"id":}').toString('base64') })
  expect(await parsed({ value: Uint8Array.of(0x22, 0xff, 0x22) })).toMatchObject({ valueBase64: 'Iv8i' })
  expect(await parsed({ value: utf8('{}},{"forged":true') })).not.toHaveProperty('forged')
})

test('what is delivered again is marked, and is else the line that it was', async () => {
  const stream = new PassThrough({ encoding: 'utf8' })
  const sink = openLineSink(stream)
  await sink.redeliver?.(place, [event(1), event(2)])
  const lines = (stream.read() as string).trimEnd().split('\n')
  expect(lines.map((line) => line.replace('"replayed":true,', ''))).toEqual([await lineOf({}), await lineOf(event(2))])
  expect(lines.map((line) => (JSON.parse(line) as { replayed: unknown }).replayed)).toEqual([true, true])
  await sink.close()
})

test('keys and headers of any kind stay what they are', async () => {
  expect(await parsed({ key: utf8('schlüssel "42"\n') })).toMatchObject({ key: 'schlüssel "42"\n' })
  expect(await parsed({ key: Uint8Array.of(0xff) })).toMatchObject({ keyBase64: '/w==' })
  const line = await lineOf({
    headers: [
      ['tag', 'one'],
      ['__proto__', 'kept'],
      ['tag', utf8('two')],
      ['', ''],
      ['bytes', Uint8Array.of(0xff)],
    ],
  })
  expect(line).toContain('"headers":{"tag":["one","two"],"__proto__":"kept","":"","bytes":"/w=="}')
})

test('a batch has been applied only when its reader has taken it', async () => {
  const taken: (() => void)[] = []
  const slow = new Writable({ highWaterMark: 1, write: (_chunk, _encoding, done) => void taken.push(done) })
  const lane = await openLineSink(slow).claim(place)
  let resolved = false
  const applied = lane.apply(batch([event(1), event(2)])).then(() => {
    resolved = true
  })
  await new Promise(setImmediate)
  expect(resolved).toBe(false)
  expect((await lane.reread()).positions).toEqual(new Map())
  taken.shift()?.()
  await applied
  expect(await lane.reread()).toEqual({
    ...place,
    positions: new Map([['shop', at(2)]]),
    offset: 2n,
    parked: new Set(),
    beginning: null,
  })
})

test('when the reader is gone the sink says so, and what was not read stays to be applied', async () => {
  const reader = spawn(process.execPath, ['-e', 'process.stdin.destroy()'], { stdio: ['pipe', 'ignore', 'ignore'] })
  await once(reader, 'exit')
  const lane = await openLineSink(reader.stdin).claim(place)
  const gone = { code: 'MILLRACE_SINK_NOT_READY', message: expect.stringContaining('nobody reads stdout any more') as string }
  await expect(lane.apply(batch([event(1)]))).rejects.toMatchObject(gone)
  await expect(lane.apply(batch([event(1)]))).rejects.toMatchObject(gone)
  expect((await lane.reread()).offset).toBeNull()
})

test('any other failure to write is unknown, and tried again', async () => {
  const full = new Writable({
    write: (_chunk, _encoding, done) => done(Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' })),
  })
  const lane = await openLineSink(full).claim(place)
  await expect(lane.apply(batch([event(1)]))).rejects.toMatchObject({ code: 'MILLRACE_SINK_UNREACHABLE' })
})

test('a partition that is claimed again within a run goes on from where it was; who held it before can no longer write', async () => {
  const stream = new PassThrough({ encoding: 'utf8' })
  const sink = openLineSink(stream)
  const first = await sink.claim(place)
  await first.apply(batch([event(1)]))
  const second = await sink.claim(place)
  expect(second.checkpoint).toEqual({
    ...place,
    positions: new Map([['shop', at(1)]]),
    offset: 1n,
    parked: new Set(),
    beginning: null,
  })
  const fenced = { code: 'MILLRACE_SINK_FENCED' }
  await expect(first.apply(batch([event(2)], at(1)))).rejects.toMatchObject(fenced)
  await expect(first.reread()).rejects.toMatchObject(fenced)
  await expect(second.apply(batch([event(3)], at(2)))).rejects.toMatchObject(fenced)
  await second.apply(batch([event(2)], at(1)))
  await second.apply({ events: [], moves: [], offset: 9n, parked: [], beginning: null })
  expect((await second.reread()).offset).toBe(9n)
  expect((stream.read() as string).split('\n').filter(Boolean)).toHaveLength(2)
})

test('it follows the aggregate types it is told to, or all', async () => {
  const options = async (value: unknown) => await stdout.options['~standard'].validate(value)
  const follows = async (value: unknown) => {
    const result = await options(value)
    return result.issues === undefined ? stdout.follows(result.value) : result.issues[0]?.message
  }
  expect(await follows({})).toBeNull()
  expect(await follows({ from: 'order' })).toEqual(['order'])
  expect(await follows({ from: ['order', 'customer'] })).toEqual(['order', 'customer'])
  expect(await follows({ form: 'order' })).toMatch(/unrecognized key/i)
  expect(stdout.follows({ from: ['order'] })).toEqual(['order'])
})
