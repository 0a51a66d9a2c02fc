import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createDatabase, type Database } from '../support/database.ts'
import { type PostgresPair, startPostgresPair } from '../support/postgres-pair.ts'
import { requires } from '../support/requires.ts'
import { CLEAN, REPLICA, type Stream, streamOf } from './stream.ts'

/**
 * A standby is promoted that lacks what was relayed: the queue holds events of a past that the database no longer has.
 * The stream goes on behind them, and nothing that the new primary has is lost or sent twice.
 */

let home: string
let replica: Database
let pair: PostgresPair
let stream: Stream
let count = 0

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'millrace-failover-'))
  replica = await createDatabase('replica')
  await replica.query(REPLICA)
})
afterEach(async () => {
  await stream.stop()
  await Promise.all([pair.remove(), replica.drop()])
  await rm(home, { recursive: true, force: true })
})

/** 10 events that both have, 10 that only the old primary and the queue have, 5 that only the new one has */
async function lag(version: 15 | 18): Promise<void> {
  pair = await startPostgresPair({ version, synchronous: false })
  stream = streamOf({
    name: `p${process.pid}_${++count}`,
    sourceUrl: pair.url(),
    replicaUrl: replica.url,
    queue: { kind: 'local', path: join(home, 'queue.db') },
  })
  await stream.pipeline().init()
  const one = await stream.run()
  await stream.write(10)
  await stream.arrived()
  if (version === 18) await pair.followed(stream.made)
  await pair.inSync()
  pair.wal.hold()
  await stream.write(10)
  await stream.arrived()
  await pair.primary.stop('kill')
  await pair.promote()
  pair.move()
  await stream.write(5)
  await expect(one.done).rejects.toMatchObject({ code: version === 18 ? 'MILLRACE_SOURCE_CHANGED' : 'MILLRACE_SLOT_MISSING' })
}

test('accepted, the slot that followed sends all that the new primary has', async () => {
  await lag(18)
  expect(await stream.pipeline().resume()).toMatchObject({ verdict: 'decide', problem: { code: 'MILLRACE_SOURCE_CHANGED' } })
  const { resumed } = await stream.pipeline().resume({ way: 'accept-gap' })
  expect(resumed).toMatchObject({ epoch: 2, made: [] })
  await stream.write(5)
  await stream.flow()
  expect(await stream.judge()).toEqual(CLEAN)
}, 120_000)

test('a refill does too, over a slot made anew', async () => {
  await lag(18)
  expect((await stream.pipeline().resume({ way: 'refill' })).resumed).toMatchObject({ refilled: { published: 5, ambiguous: 0 } })
  await stream.write(5)
  await stream.flow()
  expect(await stream.judge()).toEqual(CLEAN)
}, 120_000)

requires('postgres15')('Postgres 15, whose slots do not follow', () => {
  test('a refill finds what the new primary has', async () => {
    await lag(15)
    const { resumed } = await stream.pipeline().resume({ way: 'refill' })
    expect(resumed).toMatchObject({ epoch: 2, refilled: { published: 5, ambiguous: 0 } })
    await stream.write(5)
    await stream.flow()
    expect(await stream.judge()).toEqual(CLEAN)
  }, 120_000)
})
