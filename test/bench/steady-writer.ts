import { setTimeout as wait } from 'node:timers/promises'
import pg from 'pg'

export interface SteadyLoad {
  readonly url: string
  readonly statement: { readonly text: string; readonly values: (key: number, seq: number) => string[] }
  readonly keys: number
  readonly perSecond: number
  readonly count: number
  /** the moment (ms, `performance.now()`) at which the commit of event `seq` had returned */
  readonly committed: (seq: number, at: number) => void
}

const CLIENTS = 8

/**
 * Commits events 1 to `count`, each in a transaction of its own, on a fixed timetable: an open loop, which does not
 * slow down with what it measures. @returns the rate that was reached
 */
export async function writeSteadily({ url, statement, keys, perSecond, count, committed }: SteadyLoad): Promise<number> {
  const pool = new pg.Pool({ connectionString: url, max: CLIENTS, min: CLIENTS })
  try {
    await Promise.all(Array.from({ length: CLIENTS }, () => pool.query('select pg_sleep(0.05)')))
    const start = performance.now()
    const due = (seq: number): number => start + (seq / perSecond) * 1_000
    const under: Promise<void>[] = []
    for (let seq = 1; seq <= count; ) {
      const now = performance.now()
      for (; seq <= count && due(seq) <= now; seq++) {
        const event = seq
        const query = { name: 'emit', text: statement.text, values: statement.values(event % keys, event) }
        under.push(pool.query(query).then(() => committed(event, performance.now())))
      }
      await wait(1)
    }
    await Promise.all(under)
    return count / ((performance.now() - start) / 1_000)
  } finally {
    await pool.end()
  }
}
