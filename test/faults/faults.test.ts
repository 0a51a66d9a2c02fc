import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { type KafkaCluster, sharedKafka, startKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import type { Pipeline } from './parts.ts'
import { underFaults } from './scenario.ts'

const FAILPOINTS = ['topic-recorded', 'read', 'planned', 'sent', 'acked', 'state-written', 'confirmed'] as const

let source: Database
let replica: Database

/** The same promises over every queue. */
function kills(queue: () => Promise<Pipeline['queue'] | 'local'>, applierPasses: readonly number[]): void {
  beforeAll(async () => {
    source = await createDatabase('source')
    replica = await createDatabase('replica')
  })
  afterAll(async () => {
    await source.drop()
    await replica.drop()
  })

  test('a relay killed at each of its failpoints loses nothing, doubles nothing in effect and keeps the order', async () => {
    const committed = await underFaults(
      { sourceUrl: source.url, replicaUrl: replica.url, queue: await queue() },
      async ({ relay, applier }) => {
        applier()
        for (const round of [1, 3])
          for (const name of FAILPOINTS) {
            if (name === 'topic-recorded' && round > 1) continue
            const killed = relay({ name, pass: round })
            expect(await killed.ended, `${name}:\n${killed.output()}`).toEqual({ code: null, signal: 'SIGKILL' })
          }
      },
    )
    expect(committed.ids.size).toBeGreaterThan(500)
  }, 240_000)

  test('an applier killed before, during and after its commit leaves data and checkpoint together', async () => {
    const source = await createDatabase('source')
    const replica = await createDatabase('replica')
    try {
      await underFaults({ sourceUrl: source.url, replicaUrl: replica.url, queue: await queue() }, async ({ relay, applier }) => {
        relay()
        for (const pass of applierPasses)
          for (const when of ['before', 'during', 'after'] as const) {
            const killed = applier({ when, pass })
            expect(await killed.ended, `${when}:\n${killed.output()}`).toEqual({ code: null, signal: 'SIGKILL' })
          }
      })
    } finally {
      await source.drop()
      await replica.drop()
    }
  }, 240_000)
}

describe('over the embedded queue', () => kills(async () => 'local', [1, 4, 9]))

// a group learns of a killed member after its session timeout only: one round there
requires('kafka')('over Kafka', () => kills(async () => ({ kind: 'kafka', brokers: await sharedKafka() }), [3]))

describe('Postgres itself', () => {
  test('killed under load and restarted, its slot may rewind: nothing is lost and nothing has its effect twice', async () => {
    const server: PostgresServer = await startPostgresServer()
    const replica = await createDatabase('replica')
    try {
      await underFaults(
        { sourceUrl: server.url(), replicaUrl: replica.url, queue: 'local', within: 90_000 },
        async ({ relay, applier, workload }) => {
          applier()
          const alive = relay()
          expect(await alive.said).toBe('running')
          for (let i = 0; i < 3; i++) {
            const before = workload.transactions
            await eventually(async () => workload.transactions > before + 150, { within: 60_000, what: 'some transactions' })
            await server.stop('kill')
            await server.start()
          }
        },
      )
    } finally {
      await server.remove()
      await replica.drop()
    }
  }, 240_000)
})

requires('own-kafka')('the broker itself', () => {
  test('killed under load and restarted: no hole, and the order holds', async () => {
    const kafka: KafkaCluster = await startKafka()
    const source = await createDatabase('source')
    const replica = await createDatabase('replica')
    try {
      await underFaults(
        { sourceUrl: source.url, replicaUrl: replica.url, queue: { kind: 'kafka', brokers: kafka.brokers }, within: 120_000 },
        async ({ relay, applier, workload }) => {
          applier()
          const alive = relay()
          expect(await alive.said).toBe('running')
          for (let i = 0; i < 2; i++) {
            const before = workload.transactions
            await eventually(async () => workload.transactions > before + 150, { within: 60_000, what: 'some transactions' })
            await kafka.kill()
            await kafka.start()
          }
        },
      )
    } finally {
      await kafka.remove()
      await source.drop()
      await replica.drop()
    }
  }, 300_000)
})
