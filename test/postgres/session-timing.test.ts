import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { nextEpoch } from '../../src/core/epoch.ts'
import type { MillraceError } from '../../src/core/errors.ts'
import { position } from '../../src/core/position.ts'
import { FrameReader } from '../../src/postgres/frames.ts'
import { settle } from '../../src/postgres/options.ts'
import type { ReplicationStream } from '../../src/postgres/replication.ts'
import { PostgresSession } from '../../src/postgres/session.ts'
import { collectLog, ROOM } from './outbox-fixture.ts'
import { begin, commit, keepalive, outboxRelation, outboxRow } from './pgoutput-writer.ts'

/** The session between a stream of ours and its caller, on a clock of ours: what happens when. */
beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

interface Status {
  readonly lsn: bigint
  readonly ping: boolean
}

const server = { systemId: '1', timeline: 1, history: [], walEnd: 0x50n }

function start(options: { readonly bufferBytes?: number; readonly begun?: boolean } = {}) {
  const statuses: Status[] = []
  let paused = true
  let destroyed = false
  const stream: ReplicationStream = {
    server,
    backendPid: 7,
    pause: () => void (paused = true),
    resume: () => void (paused = false),
    write: (frame) => {
      const lsns = [6, 14, 22].map((at) => frame.readBigUInt64BE(at))
      expect(new Set(lsns).size).toBe(1)
      statuses.push({ lsn: lsns[0] as bigint, ping: frame[38] === 1 })
      return true
    },
    end: async () => {},
    destroy: () => void (destroyed = true),
  }
  const drain = new AbortController()
  const session = new PostgresSession({
    settings: settle({
      name: 'timing',
      url: 'postgres://127.0.0.1/x',
      statusIntervalMs: 150,
      ...(options.bufferBytes !== undefined && { bufferBytes: options.bufferBytes }),
    }),
    outboxOid: null,
    publication: '16/17',
    log: collectLog(),
    now: Date.now,
    publicationNow: async () => session.identity.publication,
    slot: async () => ({ confirmed: session.identity.confirmed, active: false }),
  })
  const frames = new FrameReader({ copyData: (bytes, from, to) => session.copyData(bytes, from, to), message() {} })
  session.own(stream, server, 0x50n, drain.signal)
  if (options.begun !== false) session.begin([nextEpoch([], server)])
  return {
    session,
    drain,
    statuses,
    paused: () => paused,
    destroyed: () => destroyed,
    receive(...bytes: readonly Buffer[]) {
      const chunk = Buffer.concat(bytes)
      session.chunk(chunk.length)
      frames.push(chunk)
      session.chunkEnd()
    },
  }
}

const transaction = (lsn: bigint): Buffer[] => [begin(lsn), outboxRelation(), outboxRow('1'), commit(lsn, lsn + 0x40n)]

test('before the epochs are known nothing is read on and nothing is decoded; what came with the start is not lost', async () => {
  const { session, statuses, paused, receive } = start({ begun: false })
  receive(...transaction(0x100n))
  expect(paused()).toBe(true)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(statuses).toHaveLength(400)
  const next = session.next(ROOM)
  session.begin([nextEpoch([], server), { ...nextEpoch([], server), epoch: 2, timeline: 2, began: 0x200n, from: 0x200n }])
  expect(paused()).toBe(false)
  expect((await next)?.changes.map(({ position }) => position)).toEqual([position(1, 0x100n, 1)])
  receive(...transaction(0x1ffn - 0x40n), ...transaction(0x200n))
  expect((await session.next(ROOM))?.changes.map((change) => change.position)).toEqual([
    position(1, 0x1bfn, 1),
    position(2, 0x200n, 1),
  ])
})

test('the confirmed LSN is said every interval, exactly, and nothing that was only received', async () => {
  const { session, statuses, receive } = start()
  receive(...transaction(0x100n))
  await vi.advanceTimersByTimeAsync(450)
  expect(statuses).toEqual(Array(3).fill({ lsn: 0x50n, ping: false }))
  const batch = await session.next(ROOM)
  await vi.advanceTimersByTimeAsync(150)
  expect(statuses.at(-1)?.lsn).toBe(0x50n)
  session.confirm(batch?.end as bigint)
  await vi.advanceTimersByTimeAsync(150)
  expect(statuses.at(-1)?.lsn).toBe(0x140n)
})

test('what was not given out cannot be confirmed', async () => {
  const { session, receive } = start()
  receive(...transaction(0x100n))
  expect(() => session.confirm(0x140n)).toThrow(expect.objectContaining({ code: 'MILLRACE_INTERNAL' }))
  await session.next(ROOM)
  expect(() => session.confirm(0x141n)).toThrow(expect.objectContaining({ code: 'MILLRACE_INTERNAL' }))
  session.confirm(0x140n)
})

test('while the buffer is full reading stops, the status timer does not, and silence is no failure', async () => {
  const { session, statuses, paused, receive } = start({ bufferBytes: 1_000 })
  receive(...transaction(0x100n), ...transaction(0x200n), ...transaction(0x300n))
  expect(paused()).toBe(true)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(statuses.length).toBe(400)
  expect((await session.next({ maxChanges: 2, maxBytes: 1e9 }))?.changes).toHaveLength(2)
  expect(paused()).toBe(true)
  expect((await session.next(ROOM))?.changes).toHaveLength(1)
  expect(paused()).toBe(false)
  await vi.advanceTimersByTimeAsync(20_000)
  expect(await Promise.race([session.next(ROOM), 'waits'])).toBe('waits')
})

test('an idle stream is pinged after ten seconds, and given up after thirty', async () => {
  const { session, statuses, destroyed } = start()
  const next = session.next(ROOM).catch((error: MillraceError) => error.code)
  await vi.advanceTimersByTimeAsync(9_000)
  expect(statuses.some(({ ping }) => ping)).toBe(false)
  await vi.advanceTimersByTimeAsync(20_000)
  expect(statuses.filter(({ ping }) => ping)).toHaveLength(2)
  await vi.advanceTimersByTimeAsync(1_500)
  expect(await next).toBe('MILLRACE_STREAM_BROKEN')
  expect(destroyed()).toBe(true)
})

test('an answer to the ping is a sign of life', async () => {
  const { statuses, destroyed, receive } = start()
  for (let i = 0; i < 10; i++) {
    await vi.advanceTimersByTimeAsync(12_000)
    receive(keepalive(0x50n))
  }
  expect(statuses.filter(({ ping }) => ping)).toHaveLength(10)
  expect(destroyed()).toBe(false)
})

test('a reply that was asked for is given at once, and again as soon as a confirm covers it', async () => {
  const { session, statuses, receive } = start()
  receive(keepalive(0x200n, true))
  expect(statuses).toEqual([{ lsn: 0x50n, ping: false }])
  expect(session.wantsConfirm).toBe(true)
  const batch = await session.next(ROOM)
  expect(batch).toEqual({ changes: [], bytes: 0, end: 0x200n })
  session.confirm(0x200n)
  expect(statuses).toEqual([
    { lsn: 0x50n, ping: false },
    { lsn: 0x200n, ping: false },
  ])
  expect(session.wantsConfirm).toBe(false)
})

test('a reply that was asked for wakes the reader at once, also just after a keepalive did', async () => {
  const { session, receive } = start()
  receive(keepalive(0x100n))
  await session.next(ROOM)
  const next = session.next(ROOM)
  receive(keepalive(0x200n, true))
  expect(await Promise.race([next, Promise.resolve('waits')])).toMatchObject({ end: 0x200n })
})

test('a server that asks again after each answer does not make us spin', async () => {
  const { statuses, receive } = start()
  for (let i = 0; i < 1_000; i++) receive(keepalive(0x200n, true))
  expect(statuses).toHaveLength(1)
})

test('a reply that nothing covers within five seconds ends the session, so that the server can stop', async () => {
  const { session, destroyed, receive } = start()
  receive(...transaction(0x100n), keepalive(0x200n, true))
  await session.next(ROOM)
  await vi.advanceTimersByTimeAsync(4_800)
  expect(destroyed()).toBe(false)
  await vi.advanceTimersByTimeAsync(400)
  expect(destroyed()).toBe(true)
  await expect(session.next(ROOM)).rejects.toMatchObject({ code: 'MILLRACE_STREAM_BROKEN' })
})

test('a request inside a long transaction, where nothing can be confirmed yet, ends nothing', async () => {
  const { session, statuses, destroyed, receive } = start()
  receive(begin(0x1000n), outboxRelation(), outboxRow('1'))
  for (let i = 0; i < 30; i++) {
    receive(keepalive(0x200n, true), outboxRow('1'))
    await vi.advanceTimersByTimeAsync(1_000)
  }
  expect(destroyed()).toBe(false)
  expect(session.wantsConfirm).toBe(false)
  expect(statuses.length).toBeGreaterThan(200)
})

test('keepalives of an idle database give an end at most once a second', async () => {
  const { session, receive } = start()
  let ends = 0
  void (async () => {
    while ((await session.next(ROOM)) !== null) ends++
  })()
  for (let i = 1; i <= 1_000; i++) {
    receive(keepalive(0x200n + BigInt(i)))
    await vi.advanceTimersByTimeAsync(10)
  }
  expect(ends).toBeGreaterThanOrEqual(9)
  expect(ends).toBeLessThanOrEqual(11)
})

test('asked to drain it gives out nothing more, and confirms still go out until it is closed', async () => {
  const { session, drain, statuses, paused, receive } = start()
  receive(...transaction(0x100n))
  const batch = await session.next(ROOM)
  const waiting = session.next(ROOM)
  drain.abort()
  expect(await waiting).toBeNull()
  expect(await session.next(ROOM)).toBeNull()
  expect(paused()).toBe(true)
  session.confirm(batch?.end as bigint)
  await vi.advanceTimersByTimeAsync(150)
  expect(statuses.at(-1)?.lsn).toBe(0x140n)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(await session.next(ROOM)).toBeNull()
})
