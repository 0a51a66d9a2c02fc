import { createHash } from 'node:crypto'
import type pg from 'pg'

/**
 * Who works on a copy holds it by an advisory lock of its session, which the server frees with the session. All that is
 * asked of the copy beside the folding itself goes over that session: who has lost it can do nothing more.
 */
export interface Hold {
  /** one after the other */
  run<T>(work: (client: pg.ClientBase) => Promise<T>): Promise<T>
  /** as {@link run}, in a transaction */
  transaction<T>(work: (client: pg.ClientBase) => Promise<T>): Promise<T>
  /** in a transaction of this hold: what is run while this work goes on belongs to the transaction */
  within<T>(work: () => Promise<T>): Promise<T>
  release(): Promise<void>
}

/** A session that is not heard of for so long is ended by the server, so that a suspended owner does not keep the copy (ms). */
const SILENCE = 60_000
const PULSE = 15_000

/** @returns null when another session holds it */
export async function holdCopy(connect: () => Promise<pg.Client>, schema: string, sink: string): Promise<Hold | null> {
  const client = await connect()
  let lost: Error | null = null
  client.on('error', (error) => {
    lost = error
  })
  try {
    const { rows } = await client.query<{ held: boolean }>('select pg_try_advisory_lock($1::int, $2::int) as held', [
      ...holdKey(schema, sink),
    ])
    if (rows[0]?.held !== true) {
      await client.end()
      return null
    }
    await client.query(`set idle_session_timeout = ${SILENCE}`)
  } catch (error) {
    client.end().catch(() => {})
    throw error
  }

  let last: Promise<unknown> = Promise.resolve()
  let within = false
  const run = <T>(work: (client: pg.ClientBase) => Promise<T>): Promise<T> => {
    if (within) return work(client)
    const done = last.then(async () => {
      if (lost !== null) throw lost
      return work(client)
    })
    last = done.catch(() => {})
    return done
  }
  const pulse = setInterval(() => void run(() => client.query('')).catch(() => {}), PULSE).unref()

  return {
    run,
    transaction: (work) =>
      run(async () => {
        await client.query('begin')
        try {
          const result = await work(client)
          await client.query('commit')
          return result
        } catch (error) {
          await client.query('rollback').catch(() => {})
          throw error
        }
      }),
    async within(work) {
      within = true
      try {
        return await work()
      } finally {
        within = false
      }
    },
    async release() {
      clearInterval(pulse)
      await last
      await client.end().catch(() => {})
    },
  }
}

export async function isHeld(pool: pg.Pool, schema: string, sink: string): Promise<boolean> {
  const { rows } = await pool.query<{ held: boolean }>(
    `select exists (select from pg_locks where locktype = 'advisory' and granted and objsubid = 2
       and database = (select oid from pg_database where datname = current_database())
       and classid::bigint = $1::int & 4294967295 and objid::bigint = $2::int & 4294967295) as held`,
    [...holdKey(schema, sink)],
  )
  return rows[0]?.held === true
}

function holdKey(schema: string, sink: string): readonly [number, number] {
  const hash = createHash('sha256').update(`millrace copy\0${schema}\0${sink}`).digest()
  return [hash.readInt32BE(0), hash.readInt32BE(4)]
}
