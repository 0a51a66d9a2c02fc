import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import type { MillraceConfig } from '../../src/index.ts'
import { withClient } from '../postgres/each-postgres.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { POSTGRES_15 } from '../support/machine.ts'
import { requires } from '../support/requires.ts'
import { CLEAN, REPLICA, type Stream, streamOf } from './stream.ts'

/** From a server with Postgres 15 to one with Postgres 18, by a dump (docs/upgrade.md). */

const run = promisify(execFile)

requires('postgres15')('the move to a new server', () => {
  let home: string
  let old: PostgresServer
  let fresh: PostgresServer
  let replica: Database
  let stream: Stream
  let count = 0

  beforeEach(async () => {
    home = await mkdtemp(join(tmpdir(), 'millrace-upgrade-'))
    old = await startPostgresServer({ bin: POSTGRES_15, settings: { fsync: 'off' } })
    fresh = await startPostgresServer({ settings: { fsync: 'off' } })
    replica = await createDatabase('replica')
    await replica.query(REPLICA)
    await withClient(old.url(), (client) => client.query('create database shop'))
    stream = streamOf({
      name: `u${process.pid}_${++count}`,
      sourceUrl: old.url('shop'),
      replicaUrl: replica.url,
      queue: { kind: 'local', path: join(home, 'queue.db') },
    })
    await stream.pipeline().init()
    await stream.write(20)
    await stream.flow()
  }, 60_000)
  afterEach(async () => {
    await stream.stop()
    await Promise.all([old.remove(), fresh.remove(), replica.drop()])
    await rm(home, { recursive: true, force: true })
  })

  const onFresh = (): Partial<MillraceConfig> => ({ source: { url: fresh.url('shop'), acceptUnlimitedWal: true } })

  /** `pg_dump | psql` of Postgres 15; a newer server takes what an older pg_dump writes */
  async function dumpAndRestore(): Promise<void> {
    const file = join(home, 'dump.sql')
    await run(join(POSTGRES_15, 'pg_dump'), ['--dbname', old.url('shop'), '--file', file], { maxBuffer: 1 << 26 })
    await withClient(fresh.url(), async (client) => {
      await client.query('drop database if exists shop')
      await client.query('create database shop')
    })
    await run(join(POSTGRES_15, 'psql'), ['--quiet', '--set', 'ON_ERROR_STOP=1', '--dbname', fresh.url('shop'), '--file', file])
  }

  test('drain, dump, init --new-epoch: the chain goes on, and the replica follows', async () => {
    await stream.write(10)
    await stream.pipeline().drain({ timeout: 30_000 })
    await dumpAndRestore()
    expect(await stream.pipeline(onFresh()).init({ newEpoch: true })).toEqual(
      expect.arrayContaining([`slot ${stream.made}`, expect.stringMatching(/^epoch 2: /)]),
    )
    await stream.write(15, fresh.url('shop'))
    await stream.flow(onFresh())
    expect(await stream.judge()).toEqual(CLEAN)
    expect((await stream.pipeline(onFresh()).status()).gaps).toEqual([])
    // safe to repeat
    await stream.pipeline(onFresh()).init({ newEpoch: true })
    // and the old server, started by mistake, publishes nothing
    await expect((await stream.run()).done).rejects.toMatchObject({
      code: expect.stringMatching(/^MILLRACE_(SOURCE_CHANGED|QUEUE_LOST_END)$/),
    })
  })

  test('is refused without a drain, with a dump from before it, and when services wrote after it', async () => {
    const moved = stream.pipeline(onFresh()).init
    await dumpAndRestore()
    await expect(moved({ newEpoch: true })).rejects.toMatchObject({
      code: 'MILLRACE_NOT_DRAINED',
      remedy: expect.stringContaining('millrace drain'),
    })
    // a dump from between two drains has a mark as well: of the first
    await stream.pipeline().drain({ timeout: 30_000 })
    await dumpAndRestore()
    await stream.write(5)
    await stream.pipeline().drain({ timeout: 30_000 })
    await expect(moved({ newEpoch: true })).rejects.toMatchObject({
      code: 'MILLRACE_NOT_DRAINED',
      message: expect.stringContaining('before the stream was drained'),
    })
    await stream.write(5)
    await dumpAndRestore()
    await expect(moved({ newEpoch: true })).rejects.toMatchObject({
      code: 'MILLRACE_NOT_DRAINED',
      message: expect.stringContaining('5 events'),
    })
    expect(
      await withClient(fresh.url('shop'), async (client) => (await client.query('select 1 from pg_replication_slots')).rows),
    ).toEqual([])
    // nothing of it is lost: what no slot can send is in the outbox
    expect(await stream.pipeline(onFresh()).resume()).toMatchObject({
      verdict: 'decide',
      problem: { code: 'MILLRACE_SLOT_MISSING' },
    })
    await stream.pipeline(onFresh()).resume({ way: 'refill' })
    await stream.write(5, fresh.url('shop'))
    await stream.flow(onFresh())
    expect(await stream.judge()).toEqual(CLEAN)
  })
})
