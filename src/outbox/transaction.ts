import { MillraceError } from '../core/errors.ts'
import type { Statement } from './statement.ts'

/**
 * An open transaction, by structure: none of these libraries is loaded. An event must commit with the data that it tells
 * of, so what would commit by itself (a pool, a Kysely outside a transaction, a client on which none is open) is refused.
 */
export type OutboxTransaction = KyselyTransaction | PgTransaction | SqlExecutor

/** Kysely's Transaction or ControlledTransaction. */
export interface KyselyTransaction {
  readonly isTransaction: true
  executeQuery(query: RawQuery): PromiseLike<unknown>
}

/** A client of `pg`, one of its own or a pool's, on which `begin` has been awaited. */
export interface PgTransaction {
  query(text: string, values?: unknown[]): PromiseLike<unknown>
  /** as of the server's last answer: idle, in a transaction, in a failed one. `pg` has it from 8.21 on */
  getTransactionStatus?(): 'I' | 'T' | 'E' | null
  /** a pool has one */
  readonly totalCount?: never
}

/** Any other client, through a function of the caller's, who answers for the open transaction. */
export interface SqlExecutor {
  executeSql(text: string, values: unknown[]): PromiseLike<unknown>
}

/** What Kysely's `CompiledQuery.raw` makes. */
export interface RawQuery {
  readonly sql: string
  readonly parameters: readonly unknown[]
  readonly query: { readonly kind: 'RawNode'; readonly sqlFragments: readonly string[]; readonly parameters: readonly never[] }
  readonly queryId: { readonly queryId: string }
}

/**
 * Refuses, as far as can be told without asking the server, what is not an open transaction.
 * @throws MILLRACE_NOT_A_TRANSACTION
 */
export function requireTransaction(tx: OutboxTransaction): void {
  const reason = whyNot(tx)
  if (reason !== null) throw notATransaction(reason)
}

/**
 * Where nothing has to be asked first, the statement is handed over before this returns: what the caller sends
 * afterwards, `commit` above all, comes after it.
 * @throws MILLRACE_NOT_A_TRANSACTION
 */
export function execute(tx: OutboxTransaction, statement: Statement): PromiseLike<unknown> {
  requireTransaction(tx)
  if ('executeSql' in tx) return tx.executeSql(statement.text, statement.values)
  if ('executeQuery' in tx) return tx.executeQuery(rawQuery(statement))
  const send = (): PromiseLike<unknown> => tx.query(statement.text, statement.values)
  return statusOf(tx) === null ? probe(tx).then(send) : send()
}

function whyNot(tx: unknown): string | null {
  if (typeof tx !== 'object' && typeof tx !== 'function') return `got ${typeof tx}`
  if (tx === null) return 'got null'
  const given = tx as Readonly<Record<string, unknown>>
  if (typeof given['executeSql'] === 'function') return null
  if (typeof given['executeQuery'] === 'function' && typeof given['isTransaction'] === 'boolean')
    return given['isTransaction'] ? null : 'this Kysely is not a transaction'
  if (typeof given['query'] !== 'function')
    return 'this is no transaction of Kysely, no pg client, and has no executeSql(text, values)'
  if (typeof given['totalCount'] === 'number') return 'a pool runs each statement in a transaction of its own'
  return statusOf(tx as PgTransaction) === 'I' ? NONE_OPEN : null
}

const NONE_OPEN = 'no transaction is open on this client'

function statusOf(client: PgTransaction): 'I' | 'T' | 'E' | null {
  return typeof client.getTransactionStatus === 'function' ? client.getTransactionStatus() : null
}

const NO_ACTIVE_SQL_TRANSACTION = '25P01'

/** An older `pg` cannot tell: Postgres takes a savepoint in a transaction only, and an empty one costs it nothing. */
async function probe(client: PgTransaction): Promise<void> {
  try {
    await client.query('savepoint millrace_emit; release savepoint millrace_emit')
  } catch (error) {
    if ((error as { code?: unknown }).code === NO_ACTIVE_SQL_TRANSACTION) throw notATransaction(NONE_OPEN, error)
    throw error
  }
}

function notATransaction(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('MILLRACE_NOT_A_TRANSACTION', `the event would not commit with the data it tells of: ${reason}`, {
    cause,
    remedy:
      'pass the transaction: Kysely\'s db.transaction().execute(async (tx) => …), or a pg client after await client.query("begin")',
  })
}

let queries = 0

function rawQuery({ text, values }: Statement): RawQuery {
  queries = (queries + 1) % Number.MAX_SAFE_INTEGER
  return {
    sql: text,
    parameters: values,
    query: { kind: 'RawNode', sqlFragments: [text], parameters: [] },
    queryId: { queryId: `millrace-${queries}` },
  }
}
