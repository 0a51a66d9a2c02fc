import pg from 'pg'
import { afterAll, beforeAll, describe } from 'vitest'
import { type PostgresServer, startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { createDatabase } from '../support/database.ts'
import { POSTGRES_15 } from '../support/machine.ts'
import { requires } from '../support/requires.ts'

/** A new, empty database for a test. */
export interface TestDatabase {
  readonly url: string
  drop(): Promise<void>
}

/** The suite on the run's Postgres 18, and on the oldest that we support, where it is installed. */
export function eachPostgres(name: string, suite: (create: () => Promise<TestDatabase>, version: 18 | 15) => void): void {
  describe(`${name}, Postgres 18`, () => suite(createDatabase, 18))
  requires('postgres15')(`${name}, Postgres 15`, () => {
    let server: PostgresServer
    let databases = 0
    beforeAll(async () => {
      server = await startPostgresServer({ bin: POSTGRES_15, settings: { fsync: 'off' } })
    })
    afterAll(() => server?.remove())
    suite(async () => {
      const database = `t_${++databases}`
      await withClient(server.url(), (client) => client.query(`create database ${database}`))
      // the server goes, and all of its databases with it
      return { url: server.url(database), drop: async () => {} }
    }, 15)
  })
}

export async function withClient<Result>(url: string, work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}
