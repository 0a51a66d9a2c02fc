import { type ColumnType, Kysely, PostgresDialect, type Transaction } from 'kysely'
import pg from 'pg'
import { z } from 'zod'
import { createOutbox, defineEvents, tombstone } from '../../outbox/index.ts'

/**
 * A small shop, written as a service would be: clerks place, pay, cancel and erase orders, each in transactions of
 * several steps, all at once and on each other's orders, and now and then one changes their mind and rolls back. What
 * happened is said by events, through the outbox, in the same transaction.
 */
export interface Shop {
  readonly tally: () => Tally
  /**
   * How long the oldest committed event has waited that is not among the first `applied` ones (ms); 0: none waits. For
   * a rising `applied`: what was passed is forgotten.
   */
  readonly waiting: (applied: number) => number
  /** resolves when every event has been committed, or the signal said to stop */
  readonly closed: Promise<void>
}

/** what has been committed so far, and what never was */
export interface Tally {
  readonly events: number
  readonly transactions: number
  readonly rolledBack: number
}

/** both sides' columns: the replica has its guard beside them */
export const ORDER_COLUMNS = {
  id: 'bigint primary key',
  customer: 'text not null',
  status: 'text not null',
  total: 'numeric(12,2) not null',
  reference: 'bigint not null',
  items: 'jsonb not null',
  placed_at: 'timestamptz not null',
  paid_at: 'timestamptz',
  note: 'text',
} as const

/** money and 64-bit numbers travel as text: no reader rounds them */
const order = z.object({
  id: z.int(),
  customer: z.string(),
  status: z.literal('placed'),
  total: z.string(),
  reference: z.string(),
  items: z.array(z.object({ sku: z.string(), count: z.int() })),
  placedAt: z.string(),
  paidAt: z.string().nullable(),
  note: z.string().nullable(),
})
const paid = z.object({ id: z.int(), status: z.literal('paid'), paidAt: z.string() })
const cancelled = z.object({ id: z.int(), status: z.literal('cancelled'), note: z.string() })

const events = defineEvents({
  order: {
    id: ({ id }) => id,
    types: { OrderPlaced: order, OrderPaid: paid, OrderCancelled: cancelled, OrderErased: tombstone },
  },
})

const outbox = createOutbox({ events })

interface Database {
  orders: {
    id: number
    customer: string
    status: string
    total: string
    reference: string
    items: ColumnType<unknown, string, string>
    placed_at: string
    paid_at: string | null
    note: string | null
  }
}

/** a transaction that its clerk gave up */
const CHANGED_MIND = Symbol('changed mind')
const DEADLOCK = '40P01'

export function openShop(options: {
  readonly url: string
  readonly clerks: number
  /** to commit in all */
  readonly events: number
  readonly signal: AbortSignal
  readonly random: () => number
  /** ms since the Unix epoch */
  readonly now: () => number
}): Shop {
  const { random, now, signal } = options
  const pool = new pg.Pool({ connectionString: options.url, max: options.clerks })
  pool.on('error', () => {})
  const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
  const pick = (below: number): number => Math.floor(random() * below)
  let lastId = 0
  let promised = 0
  let tally: Tally = { events: 0, transactions: 0, rolledBack: 0 }
  /** the transactions that may not be applied yet: how many events there were with each, and when */
  const commits: { readonly events: number; readonly at: number }[] = []

  async function clerk(): Promise<void> {
    while (!signal.aborted && promised < options.events) {
      const steps = Math.min(1 + pick(5), options.events - promised)
      promised += steps
      try {
        await db.transaction().execute(async (tx) => {
          // in the order of their ids: two clerks with the same orders then wait for, and never block, each other
          const visited = Array.from({ length: steps }, () => 1 + pick(lastId + 1)).sort((a, b) => a - b)
          for (const id of visited) await visit(tx, id)
          if (pick(12) === 0) throw CHANGED_MIND
        })
        tally = { ...tally, events: tally.events + steps, transactions: tally.transactions + 1 }
        commits.push({ events: tally.events, at: now() })
      } catch (error) {
        promised -= steps
        if (error !== CHANGED_MIND && (error as { code?: string }).code !== DEADLOCK) throw error
        tally = { ...tally, rolledBack: tally.rolledBack + 1 }
      }
    }
  }

  /** one event: the order goes on from where it stands, or a new one is placed */
  async function visit(tx: Transaction<Database>, id: number): Promise<void> {
    const found = await tx.selectFrom('orders').select('status').where('id', '=', id).forUpdate().executeTakeFirst()
    if (found?.status === 'placed') return pick(4) === 0 ? cancel(tx, id) : pay(tx, id)
    if (found !== undefined && pick(3) === 0) return erase(tx, id)
    return place(tx)
  }

  async function place(tx: Transaction<Database>): Promise<void> {
    const placed: z.infer<typeof order> = {
      id: ++lastId,
      customer: CUSTOMERS[pick(CUSTOMERS.length)] as string,
      status: 'placed',
      total: `${pick(100_000)}.${String(pick(100)).padStart(2, '0')}`,
      reference: String(9_007_199_254_740_993n + BigInt(lastId)),
      items: Array.from({ length: 1 + pick(4) }, () => ({ sku: `sku-${pick(1_000)}`, count: 1 + pick(9) })),
      placedAt: new Date(now()).toISOString(),
      paidAt: null,
      note: pick(10) === 0 ? 'Leave it at the back door; "ring twice" — näin.' : null,
    }
    const { placedAt, paidAt, items, ...same } = placed
    await tx
      .insertInto('orders')
      .values({ ...same, items: JSON.stringify(items), placed_at: placedAt, paid_at: paidAt })
      .execute()
    await outbox.emit(tx, { type: 'OrderPlaced', payload: placed })
  }

  async function pay(tx: Transaction<Database>, id: number): Promise<void> {
    const paidAt = new Date(now()).toISOString()
    await tx.updateTable('orders').set({ status: 'paid', paid_at: paidAt }).where('id', '=', id).execute()
    await outbox.emit(tx, { type: 'OrderPaid', payload: { id, status: 'paid', paidAt } })
  }

  async function cancel(tx: Transaction<Database>, id: number): Promise<void> {
    const note = 'cancelled by the customer'
    await tx.updateTable('orders').set({ status: 'cancelled', note }).where('id', '=', id).execute()
    await outbox.emit(tx, { type: 'OrderCancelled', payload: { id, status: 'cancelled', note } })
  }

  async function erase(tx: Transaction<Database>, id: number): Promise<void> {
    await tx.deleteFrom('orders').where('id', '=', id).execute()
    await outbox.tombstone(tx, { type: 'OrderErased', aggregateId: id })
  }

  const closed = Promise.all(Array.from({ length: options.clerks }, clerk)).then(() => db.destroy())
  return {
    tally: () => tally,
    waiting(applied) {
      const oldest = commits.findIndex((commit) => commit.events > applied)
      commits.splice(0, oldest === -1 ? commits.length : oldest)
      return commits[0] === undefined ? 0 : now() - commits[0].at
    },
    closed,
  }
}

const CUSTOMERS = [
  'Ada Lovelace',
  "Conan O'Brien",
  'Łukasz Żółć',
  '山田 太郎',
  'Zoë 🛒',
  'back\\slash "quoted"',
  'tab\tand line\nbreak',
]
