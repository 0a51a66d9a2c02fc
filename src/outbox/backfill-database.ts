import { MillraceError } from '../core/errors.ts'
import type { Statement } from './statement.ts'
import { execute, type KyselyTransaction, type PgTransaction } from './transaction.ts'

/**
 * What can begin transactions, by structure: a Kysely that is not one itself, a pool of `pg`, or a client of `pg` that
 * nobody else uses meanwhile and on which no transaction is open. None of these libraries is loaded.
 */
export type BackfillDatabase = KyselyDatabase | PgPool | PgClient

export interface KyselyDatabase {
  readonly isTransaction: boolean
  transaction(): { execute<T>(work: (tx: KyselyTransaction) => Promise<T>): Promise<T> }
}

export interface PgPool {
  readonly totalCount: number
  connect(): Promise<PgTransaction & { release(error?: boolean): void } & PgEvents>
}

export interface PgEvents {
  on?(event: 'error', listener: () => void): unknown
  off?(event: 'error', listener: () => void): unknown
}

export type PgClient = PgTransaction & { release?: never }

export interface ChunkTransaction {
  readonly tx: KyselyTransaction | PgTransaction
  rows(statement: Statement): Promise<readonly Readonly<Record<string, unknown>>[]>
}

export type Transact = <T>(work: (chunk: ChunkTransaction) => Promise<T>) => Promise<T>

/** what a caller of any types, or none, may give */
interface Given {
  readonly transaction?: unknown
  readonly isTransaction?: unknown
  readonly connect?: unknown
  readonly totalCount?: unknown
  readonly query?: unknown
  readonly getTransactionStatus?: () => unknown
}

/** @throws MILLRACE_USAGE for what cannot begin a transaction */
export function transactions(db: BackfillDatabase): Transact {
  const given = db as unknown as Given | null | undefined
  if (typeof given?.transaction === 'function' && given.isTransaction === false) return onKysely(db as KyselyDatabase)
  if (typeof given?.connect === 'function' && typeof given.totalCount === 'number') return onPool(db as PgPool)
  if (typeof given?.query === 'function' && given.getTransactionStatus?.() !== 'T')
    return (work) => onClient(db as PgClient, work)
  throw new MillraceError(
    'MILLRACE_USAGE',
    'a backfill begins a transaction for each of its chunks, and cannot begin one on what it was given',
    {
      remedy: 'pass a Kysely, a pool of pg, or a client of pg on which no transaction is open',
    },
  )
}

const chunkOf = (tx: KyselyTransaction | PgTransaction): ChunkTransaction => ({
  tx,
  rows: async (statement) =>
    ((await execute(tx, statement)) as { readonly rows: readonly Readonly<Record<string, unknown>>[] }).rows,
})

function onKysely(db: KyselyDatabase): Transact {
  return (work) => db.transaction().execute((tx) => work(chunkOf(tx)))
}

function onPool(pool: PgPool): Transact {
  return async (work) => {
    const client = await pool.connect()
    // a connection that breaks between two statements would end the process; the next statement tells
    const ignore = (): void => {}
    client.on?.('error', ignore)
    let broken = true
    try {
      const result = await onClient(client, work)
      broken = false
      return result
    } finally {
      client.off?.('error', ignore)
      client.release(broken)
    }
  }
}

async function onClient<T>(client: PgTransaction, work: (chunk: ChunkTransaction) => Promise<T>): Promise<T> {
  await client.query('begin')
  try {
    const result = await work(chunkOf(client))
    await client.query('commit')
    return result
  } catch (error) {
    await Promise.resolve(client.query('rollback')).catch(() => {})
    throw error
  }
}
