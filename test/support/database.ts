import pg from 'pg'
import { inject } from 'vitest'

export interface Database {
  readonly name: string
  readonly url: string
  query(text: string, values?: unknown[]): Promise<pg.QueryResult>
  /** ends its pool and removes it, slots included */
  drop(): Promise<void>
}

const admin = (): string => `postgres://postgres@127.0.0.1:${inject('postgresPort')}/postgres`

/** A new, empty database on the run's shared server. */
export async function createDatabase(prefix = 't'): Promise<Database> {
  const name = `${prefix}_${process.pid}_${Math.random().toString(36).slice(2, 10)}`
  await once(`create database ${name}`)
  const url = admin().replace(/\/postgres$/, `/${name}`)
  const pool = new pg.Pool({ connectionString: url, max: 4 })
  pool.on('error', () => {})
  return {
    name,
    url,
    query: (text, values) => pool.query(text, values),
    async drop() {
      await pool.end()
      await once(
        `select pg_terminate_backend(active_pid) from pg_replication_slots where database = '${name}' and active_pid is not null`,
      )
      for (let left = 50; left > 0; left--) {
        const { rows } = await once(`select slot_name, active from pg_replication_slots where database = '${name}'`)
        if (rows.length === 0) break
        for (const row of rows) if (!row.active) await once(`select pg_drop_replication_slot('${row.slot_name}')`)
        if (rows.some((row) => row.active)) await new Promise((resolve) => setTimeout(resolve, 50))
      }
      await once(`drop database if exists ${name} with (force)`)
    },
  }
}

async function once(text: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: admin() })
  await client.connect()
  try {
    return await client.query(text)
  } finally {
    await client.end()
  }
}
