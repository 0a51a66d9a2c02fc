import pg from 'pg'

/**
 * Writers that know what they committed. Each writer owns its keys, so the order of a key's events is the order in
 * which its writer committed them; what happened to a COMMIT whose reply was lost is asked of the outbox afterwards,
 * by event id. Nothing here looks at the relay, the queue or the replica: it is what they are held against.
 */
export interface Workload {
  /** stops after the transactions under way and settles every unknown outcome */
  stop(): Promise<Committed>
  /** stops without asking for what is unknown: its server may be gone for good */
  abandon(): Promise<void>
  /** no transaction begins until `resume` */
  rest(): void
  resume(): void
  readonly transactions: number
}

export interface Committed {
  /** every committed event's id, in commit order per key */
  readonly idsByKey: ReadonlyMap<string, readonly string[]>
  readonly ids: ReadonlySet<string>
  /** ids of rolled back events: none of them may ever be seen */
  readonly rolledBack: ReadonlySet<string>
  /** the state that the replica must show */
  readonly rows: ReadonlyMap<string, Row>
  readonly unknownOutcomes: number
}

export interface Row {
  readonly version: string
  readonly body: string
  readonly amount: string
}

interface Effect {
  readonly id: string
  readonly key: string
  readonly row: Row | null
}

export const SOURCE_TABLE =
  'create table orders (id text primary key, version bigint not null, body text not null, amount numeric not null)'
export const REPLICA_TABLE =
  'create table orders (id text primary key, version bigint not null, body text not null, amount numeric not null, _millrace_position text collate "C")'

export function seededRandom(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

export function startWorkload(options: {
  readonly url: string
  readonly seed: number
  readonly writers?: number
  /** transactions a second over all writers, about */
  readonly rate?: number
  /** events of the occasional large transaction */
  readonly largeTransaction?: number
}): Workload {
  const { url, seed, writers = 8, rate = 200, largeTransaction = 500 } = options
  const stopping = { now: false, abandoned: false }
  let resting = false
  const rows = new Map<string, Row>()
  const idsByKey = new Map<string, string[]>()
  const ids = new Set<string>()
  const rolledBack = new Set<string>()
  let unknownOutcomes = 0
  let transactions = 0

  const settle = (effects: readonly Effect[]): void => {
    for (const { id, key, row } of effects) {
      ids.add(id)
      const known = idsByKey.get(key)
      if (known) known.push(id)
      else idsByKey.set(key, [id])
      if (row === null) rows.delete(key)
      else rows.set(key, row)
    }
  }

  async function writer(number: number): Promise<void> {
    const random = seededRandom(seed * 1_000 + number)
    const pick = (n: number): number => Math.floor(random() * n)
    const uuid = (): string => {
      const hex = Array.from({ length: 32 }, () => pick(16).toString(16))
      hex[12] = '4'
      hex[16] = '8'
      const text = hex.join('')
      return `${text.slice(0, 8)}-${text.slice(8, 12)}-${text.slice(12, 16)}-${text.slice(16, 20)}-${text.slice(20)}`
    }
    const own = Array.from({ length: 12 }, (_, i) => `w${number}-${i}`)
    let client: pg.Client | null = null
    /** effects whose COMMIT got no reply */
    let unknown: Effect[] | null = null

    const connected = async (): Promise<pg.Client> => {
      if (client !== null) return client
      const fresh = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
      fresh.on('error', () => {
        if (client === fresh) client = null
      })
      await fresh.connect()
      client = fresh
      return fresh
    }

    async function put(tx: pg.Client, key: string, effects: Effect[], version: bigint, big: boolean): Promise<void> {
      // beyond a double's integers, and a numeric whose trailing zero must arrive
      const row: Row = {
        version: String(9_007_199_254_740_993n + version),
        body: big ? `${pick(1_000_000)}`.repeat(4_000) : `body "${pick(1_000_000)}" \\ é 😀`,
        amount: `${pick(100_000)}.${String(pick(100)).padStart(2, '0')}`,
      }
      const id = uuid()
      await tx.query(
        'insert into orders values ($1, $2, $3, $4) on conflict (id) do update set version = excluded.version, body = excluded.body, amount = excluded.amount',
        [key, row.version, row.body, row.amount],
      )
      const payload = `{"id":${JSON.stringify(key)},"version":${row.version},"body":${JSON.stringify(row.body)},"amount":${row.amount}}`
      await tx.query(
        "select millrace.emit(aggregate_type => 'order', aggregate_id => $1, type => 'OrderChanged', payload => $2, id => $3)",
        [key, payload, id],
      )
      effects.push({ id, key, row })
    }

    async function erase(tx: pg.Client, key: string, effects: Effect[]): Promise<void> {
      const id = uuid()
      await tx.query('delete from orders where id = $1', [key])
      await tx.query(
        "select millrace.tombstone(aggregate_type => 'order', aggregate_id => $1, type => 'OrderErased', id => $2)",
        [key, id],
      )
      effects.push({ id, key, row: null })
    }

    /** the reply to a COMMIT was lost: the outbox row tells whether the commit was */
    async function settleUnknown(): Promise<void> {
      const asked = unknown as Effect[]
      const { rows: found } = await (await connected()).query('select 1 from millrace.outbox where id = $1', [asked[0]?.id])
      if (found.length > 0) settle(asked)
      else for (const { id } of asked) rolledBack.add(id)
      unknown = null
    }

    let version = 0n
    async function transaction(): Promise<void> {
      const tx = await connected()
      const effects: Effect[] = []
      let committing = false
      try {
        await tx.query('begin')
        if (random() < 0.01)
          for (let i = 0; i < largeTransaction; i++) await put(tx, own[pick(own.length)] as string, effects, ++version, false)
        for (let ops = 1 + pick(4); ops > 0; ops--) {
          const key = own[pick(own.length)] as string
          const choice = random()
          if (choice < 0.6) await put(tx, key, effects, ++version, random() < 0.05)
          else if (choice < 0.75) await erase(tx, key, effects)
          else if (choice < 0.85) {
            // delete and insert again: the key must live
            await erase(tx, key, effects)
            await put(tx, key, effects, ++version, false)
          } else if (choice < 0.92) {
            // a key change: the old key goes, the new one comes
            const other = own[pick(own.length)] as string
            if (other !== key) {
              await erase(tx, key, effects)
              await put(tx, other, effects, ++version, false)
            }
          } else {
            const undone: Effect[] = []
            await tx.query('savepoint s')
            await put(tx, key, undone, ++version, false)
            await tx.query('rollback to savepoint s')
            for (const { id } of undone) rolledBack.add(id)
          }
        }
        if (random() < 0.15) {
          await tx.query('rollback')
          for (const { id } of effects) rolledBack.add(id)
          return
        }
        committing = true
        await tx.query('commit')
        settle(effects)
        transactions++
      } catch (error) {
        client = null
        tx.end().catch(() => {})
        if (committing && effects.length > 0) {
          unknown = effects
          unknownOutcomes++
        } else for (const { id } of effects) rolledBack.add(id)
        throw error
      }
    }

    while (!stopping.now || (unknown !== null && !stopping.abandoned)) {
      try {
        if (unknown !== null) await settleUnknown()
        else if (!resting) await transaction()
        await pause(writers / rate, random)
      } catch {
        await pause(0.1, random)
      }
    }
    await (client as pg.Client | null)?.end().catch(() => {})
  }

  const running = Array.from({ length: writers }, (_, i) => writer(i))
  return {
    get transactions() {
      return transactions
    },
    async stop() {
      stopping.now = true
      await Promise.all(running)
      return { idsByKey, ids, rolledBack, rows, unknownOutcomes }
    },
    rest() {
      resting = true
    },
    resume() {
      resting = false
    },
    async abandon() {
      stopping.now = true
      stopping.abandoned = true
      await Promise.all(running)
    },
  }
}

const pause = (seconds: number, random: () => number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, seconds * 1_000 * (0.5 + random())))
