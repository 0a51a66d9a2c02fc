import { chmod, chown, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import type { SourceSession } from '../../src/core/source.ts'
import { createAuthority } from '../support/certificates.ts'
import {
  connect,
  insert,
  insertMany,
  lastEnd,
  queryOnce,
  ROOM,
  read,
  SCHEMA,
  session,
  sourceOn,
  textOf,
  until,
  within,
} from './outbox-fixture.ts'

/** What a session does when its server goes away, is slow to be read, or gave up the slot: on servers of the test's own. */
let server: PostgresServer
beforeAll(async () => {
  server = await startPostgresServer({
    settings: { wal_sender_timeout: '1500ms', max_slot_wal_keep_size: '32MB', min_wal_size: '32MB', max_wal_size: '64MB' },
  })
  await queryOnce(server.url(), SCHEMA)
})
afterAll(() => server.remove())

async function started(options: Parameters<typeof sourceOn>[1] = {}) {
  const source = sourceOn(server.url(), options)
  await source.init()
  return source
}

/** Confirms whatever comes, like a relay whose queue is always fast; ends with the session. */
async function follow(opened: SourceSession): Promise<never> {
  for (;;) {
    const batch = await opened.next(ROOM)
    if (batch === null) throw new Error('the session was closed')
    if (batch.end !== null) opened.confirm(batch.end)
  }
}

test('a walsender whose reader takes longer than wal_sender_timeout stays alive', async () => {
  const source = await started({ bufferBytes: 128 << 10 })
  const opened = await session(source)
  const db = await connect(server.url())
  await db.query(insertMany(40_000, 400))
  await read(opened, 1, { untilEnd: false, limit: { maxChanges: 1, maxBytes: 1 } })
  const { rows } = await db.query('select pid, backend_start from pg_stat_replication where application_name = $1', [
    `millrace_${source.name}`,
  ])
  const paused = performance.now()
  await until(() => performance.now() - paused > 4_000, 'the reader takes its time')
  const got = await read(opened, 39_999)
  expect(got.changes).toHaveLength(39_999)
  expect(
    (
      await db.query('select pid, backend_start from pg_stat_replication where application_name = $1', [
        `millrace_${source.name}`,
      ])
    ).rows,
  ).toEqual(rows)
})

test('a server that is killed ends the session; after its restart what was not confirmed comes again', async () => {
  const source = await started()
  const opened = await session(source)
  await queryOnce(server.url(), insert('confirmed'))
  const confirmed = lastEnd(await read(opened, 1))
  opened.confirm(confirmed)
  await until(async () => (await source.slotStatus())?.confirmed === confirmed, 'the confirm reached the slot')
  await queryOnce(server.url(), insert('received'))
  await read(opened, 1)
  const next = opened.next(ROOM)
  next.catch(() => {})
  await server.stop('kill')
  await expect(within(10_000, next, 'the end of the session')).rejects.toMatchObject({ code: 'MILLRACE_STREAM_BROKEN' })
  await expect(session(source)).rejects.toMatchObject({ code: 'MILLRACE_SOURCE_UNREACHABLE' })
  await server.start()
  const again = await read(await session(source), 1)
  expect(textOf(again.changes.at(-1)?.aggregateId ?? null)).toBe('received')
})

test('a fast shutdown is not held up by a session that confirms, and is told of everything', async () => {
  const source = await started()
  const opened = await session(source)
  const following = follow(opened)
  following.catch(() => {})
  await queryOnce(server.url(), insert('last words'))
  await within(30_000, server.stop('fast'), 'the shutdown')
  // the server ended it: the session did not have to let go, as one does that cannot confirm in time
  await expect(following).rejects.toMatchObject({
    code: 'MILLRACE_STREAM_BROKEN',
    message: expect.not.stringContaining('shutting down'),
  })
  const confirmed = opened.walEnd
  await server.start()
  expect((await source.slotStatus())?.confirmed).toBe(confirmed)
})

test('a fast shutdown is held up no longer than five seconds by a session that cannot confirm', async () => {
  const source = await started()
  const opened = await session(source)
  await queryOnce(server.url(), insert('unconfirmed'))
  await read(opened, 1)
  const next = opened.next(ROOM).then(() => opened.next(ROOM))
  next.catch(() => {})
  const stopped = server.stop('fast')
  await until(() => opened.wantsConfirm, 'the server asks')
  await within(20_000, stopped, 'the shutdown')
  await expect(next).rejects.toMatchObject({ code: 'MILLRACE_STREAM_BROKEN', message: expect.stringContaining('shutting down') })
  await server.start()
  const again = await read(await session(source), 1)
  expect(textOf(again.changes[0]?.aggregateId ?? null)).toBe('unconfirmed')
})

test('a slot whose WAL was removed is lost: said by check, refused at open, never made anew', async () => {
  const source = await started()
  const db = await connect(server.url())
  await db.query('create table if not exists filler (x text)')
  await until(async () => {
    await db.query("insert into filler select repeat('x', 1000) from generate_series(1, 20000)")
    await db.query('select pg_switch_wal()')
    await db.query('checkpoint')
    return (await source.slotStatus())?.walStatus === 'lost'
  }, 'the slot is lost')
  expect(await source.check()).toContainEqual(
    expect.objectContaining({ level: 'blocker', message: expect.stringContaining('is lost (wal_removed)') }),
  )
  await expect(session(source)).rejects.toMatchObject({ code: 'MILLRACE_SLOT_LOST' })
  await expect(source.init()).resolves.toEqual([])
  expect(await source.teardown({ slot: true })).toHaveLength(1)
})

test('a slot that is dropped under the session ends it; the next one finds it missing', async () => {
  const source = await started()
  const opened = await session(source)
  const next = opened.next(ROOM).then(() => opened.next(ROOM))
  next.catch(() => {})
  const { activePid } = (await source.slotStatus()) ?? {}
  await queryOnce(server.url(), `select pg_terminate_backend(${activePid})`)
  await expect(within(10_000, next, 'the end of the session')).rejects.toMatchObject({ code: 'MILLRACE_STREAM_BROKEN' })
  await until(async () => (await source.slotStatus())?.activePid === null, 'the slot is free')
  await source.teardown({ slot: true })
  await expect(session(source)).rejects.toMatchObject({ code: 'MILLRACE_SLOT_MISSING' })
})

test('over TLS: verified against the authority, refused without it, and the stream is the same', async () => {
  const authority = await createAuthority()
  const { certificate, key } = await authority.issue('127.0.0.1', 'localhost')
  const secured = await startPostgresServer({ settings: { fsync: 'off' } })
  onTestFinished(() => secured.remove())
  const owner = await stat(secured.dataDir)
  for (const [file, text] of [
    ['server.crt', certificate],
    ['server.key', key],
  ] as const) {
    await writeFile(join(secured.dataDir, file), text)
    await chown(join(secured.dataDir, file), owner.uid, owner.gid)
    await chmod(join(secured.dataDir, file), 0o600)
  }
  await queryOnce(secured.url(), 'alter system set ssl = on')
  await secured.stop()
  await secured.start()
  await queryOnce(secured.url(), SCHEMA)

  const verified = { tls: { ca: authority.certificate } }
  const source = sourceOn(secured.url(), verified)
  await source.init()
  const opened = await session(source)
  const db = await connect(secured.url())
  expect(
    (await db.query('select count(*)::int as n from pg_stat_ssl s join pg_stat_replication r using (pid) where s.ssl')).rows,
  ).toEqual([{ n: 1 }])
  await db.query(insertMany(50_000))
  expect((await read(opened, 50_000)).changes).toHaveLength(50_000)
  await opened.close()

  const unverified = sourceOn(secured.url(), { name: source.name, tls: { mode: 'verify-full' } })
  await expect(session(unverified)).rejects.toMatchObject({ code: 'MILLRACE_TLS' })
  expect(await unverified.check()).toMatchObject([{ level: 'blocker', remedy: expect.stringContaining('tls.ca') }])
  const plain = sourceOn(server.url(), { ...verified })
  await expect(session(plain)).rejects.toMatchObject({ code: 'MILLRACE_TLS' })
})
