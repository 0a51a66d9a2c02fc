import { type ErrorCode, MillraceError } from '../../../src/core/errors.ts'
import { StatementFailure } from './transaction.ts'

/** What an ErrorResponse of the server says and may be said on. `detail` is left behind: it holds values of rows. */
export interface Said {
  readonly state: string | null
  readonly message: string
  readonly table: string | undefined
  readonly column: string | undefined
  readonly constraint: string | undefined
}

/** what a failed statement of a batch is about */
export type Fault =
  /** a value does not fit, or its JSON is broken: an event is at fault */
  | 'data'
  /** unique, foreign key, exclusion: perhaps only until another partition has caught up */
  | 'constraint'
  /** deadlock or serialization: the same again may pass */
  | 'concurrency'
  | 'other'

const SQLSTATE = /^[0-9FHPX][0-9A-Z]{4}$/
const TLS =
  /^(ERR_TLS_|ERR_SSL_|ERR_OSSL_|CERT_|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED_CERT|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)/

const REMEDY: Partial<Record<ErrorCode, string>> = {
  MILLRACE_SINK_UNREACHABLE: 'it is tried again by itself; check that the server runs, has disk space and can be reached',
  MILLRACE_SINK_AUTH: 'check user, password and pg_hba.conf',
  MILLRACE_SINK_NOT_READY:
    'run millrace check, which names what is missing, and millrace init for the bookkeeping; then start again',
  MILLRACE_TLS: 'give the authority that signed the server certificate as tls.ca, and the host name the certificate is made for',
}

export function said(error: unknown): Said {
  const cause = error instanceof StatementFailure ? error.cause : error
  if (!(cause instanceof Error))
    return { state: null, message: String(cause), table: undefined, column: undefined, constraint: undefined }
  const fields = cause as Error & { code?: unknown; table?: string; column?: string; constraint?: string }
  // several addresses were tried and each failed
  const message = cause instanceof AggregateError && cause.message === '' ? cause.errors.map(String).join('; ') : cause.message
  const state = typeof fields.code === 'string' ? fields.code : null
  return { state, message, table: fields.table, column: fields.column, constraint: fields.constraint }
}

export function faultOf({ state }: Said): Fault {
  if (state === null) return 'other'
  if (state === '40001' || state === '40P01') return 'concurrency'
  if (state === '23503' || state === '23505' || state === '23P01') return 'constraint'
  // 54000: an index row too large, too deep; 42804 and 42846 are the table's fault
  if (/^(22|23|21|44)/.test(state) || state === '54000' || state === '54001' || state === 'P0001') return 'data'
  return 'other'
}

/** The error of a connection or a statement that is no event's fault, by SQLSTATE class, system error or certificate failure. */
export function sinkError(error: unknown): MillraceError {
  if (error instanceof MillraceError) return error
  const { state, message } = said(error)
  const made = (code: ErrorCode, text: string): MillraceError =>
    new MillraceError(code, text, {
      ...(REMEDY[code] !== undefined && { remedy: REMEDY[code] }),
      ...(state !== null && { fields: { cause: state } }),
    })
  if (state !== null && SQLSTATE.test(state))
    return made(byState(state), `the sink's Postgres said: ${safe(state, message)} (${state})`)
  if ((state !== null && TLS.test(state)) || /does not support SSL|establishing an SSL/.test(message))
    return made('MILLRACE_TLS', `the connection to the sink's Postgres could not be secured: ${message}`)
  if (state === null && /password|SASL|SCRAM/i.test(message))
    return made('MILLRACE_SINK_AUTH', `the sink's Postgres did not let us in: ${message}`)
  return made('MILLRACE_SINK_UNREACHABLE', `the sink's Postgres cannot be reached: ${message}`)
}

/** What fails is told as the sink's error. */
export async function asSinkError<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw sinkError(error)
  }
}

/** messages about data quote the value ("invalid input syntax for type integer: …"): those are told by their state alone */
function safe(state: string, message: string): string {
  return /^(22|23|P0)/.test(state) ? 'a value was refused' : message
}

function byState(state: string): ErrorCode {
  if (state.startsWith('28')) return 'MILLRACE_SINK_AUTH'
  // no such database, schema, table, column or function; no privilege; a table that changed under us
  if (/^(3D|3F|42|0A)/.test(state)) return 'MILLRACE_SINK_NOT_READY'
  // connection, resources and disk, shutdown, system errors, time-outs and locks, read-only standby, retries used up; XX000 is
  // what a full disk says at the connect ("could not write init file") and what DDL beside us does (damaged data is XX001 and XX002)
  if (/^(08|53|57|58|55P03|25|40|XX000)/.test(state)) return 'MILLRACE_SINK_UNREACHABLE'
  return 'MILLRACE_INTERNAL'
}

/** PROTOCOL 3: which kind of value it is may be said, the value not */
export const STATE_MEANS: Readonly<Record<string, string>> = {
  '22P02': 'a value is not one of its column’s type',
  '22P05': 'a text holds a character that the database cannot keep, such as \\u0000',
  '22021': 'a text is not valid in the database’s encoding',
  '22003': 'a number is out of its column’s range',
  '22001': 'a text is longer than its column takes',
  '22007': 'a time or date is malformed',
  '22008': 'a time or date is out of range',
  '22012': 'the key in the payload is not the aggregate id',
  '23502': 'a column that must not be null would be',
  '23514': 'a check constraint refuses the row',
  '23503': 'a foreign key points to a row that is not there',
  '23505': 'another row has this unique value',
  '23P01': 'an exclusion constraint refuses the row',
}
