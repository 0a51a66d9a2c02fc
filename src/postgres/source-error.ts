import { type ErrorCode, MillraceError } from '../core/errors.ts'
import { RESUME } from '../core/failover.ts'

/** What an ErrorResponse of the server says; the fields of `pg`'s DatabaseError that are read here. */
export interface ServerError {
  readonly code?: string | undefined
  readonly message: string
  /** the server's C function: unlike the message, never translated */
  readonly routine?: string | undefined
}

/** What was being done decides what a failure means. */
export type Doing = 'connect' | 'query' | 'stream'

/** no class of Postgres begins with E, as EPIPE does */
const SQLSTATE = /^[0-9FHPX][0-9A-Z]{4}$/
const TLS =
  /^(ERR_TLS_|ERR_SSL_|ERR_OSSL_|CERT_|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED_CERT|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)/

const REMEDY: Partial<Record<ErrorCode, string>> = {
  MILLRACE_SOURCE_UNREACHABLE: 'check that the server runs and that the url is its direct address; a relay tries again by itself',
  MILLRACE_SOURCE_AUTH: 'check user, password, pg_hba.conf (database and replication lines) and that the role has REPLICATION',
  MILLRACE_TLS: 'give the authority that signed the server certificate as tls.ca, and the host name the certificate is made for',
  MILLRACE_SLOT_IN_USE: 'another relay holds the slot; this one takes it when that one ends',
  MILLRACE_SLOT_LOST: RESUME,
  MILLRACE_SLOT_MISSING: `if this pipeline is new: millrace init; if not: ${RESUME}`,
  MILLRACE_PUBLICATION_MISSING: `if this pipeline is new: millrace init; if not: ${RESUME}`,
}

/**
 * The error of a connection to the source, by SQLSTATE class, system error or certificate failure. A server's message
 * names roles, databases and settings, never a row: `detail` is left behind because it can.
 */
export function sourceError(error: unknown, doing: Doing): MillraceError {
  if (error instanceof MillraceError) return error
  const { code, message, routine } = describe(error)
  const made = (to: ErrorCode, text: string): MillraceError =>
    new MillraceError(to, text, {
      ...(REMEDY[to] !== undefined && { remedy: REMEDY[to] }),
      ...(code !== undefined && { fields: { cause: code } }),
    })
  if (code !== undefined && SQLSTATE.test(code)) return made(byState(code, routine, doing), `Postgres said: ${message} (${code})`)
  if ((code !== undefined && TLS.test(code)) || /does not support SSL|establishing an SSL/.test(message))
    return made('MILLRACE_TLS', `the connection to Postgres could not be secured: ${message}`)
  if (doing === 'stream') return made('MILLRACE_STREAM_BROKEN', `the replication stream broke: ${message}`)
  if (/password|SASL|SCRAM/i.test(message) && code === undefined)
    return made('MILLRACE_SOURCE_AUTH', `Postgres did not let us in: ${message}`)
  return made('MILLRACE_SOURCE_UNREACHABLE', `Postgres cannot be reached: ${message}`)
}

function byState(state: string, routine: string | undefined, doing: Doing): ErrorCode {
  if (state.startsWith('28') || state === '42501') return 'MILLRACE_SOURCE_AUTH'
  if (doing === 'stream') {
    if (state === '55006') return 'MILLRACE_SLOT_IN_USE'
    // 58P01: the WAL segment it needs is gone
    if (state === '55000' || state === '58P01') return 'MILLRACE_SLOT_LOST'
    if (state === '42704')
      return routine !== undefined && /publication/i.test(routine) ? 'MILLRACE_PUBLICATION_MISSING' : 'MILLRACE_SLOT_MISSING'
    return 'MILLRACE_STREAM_BROKEN'
  }
  // connection exceptions, too many connections, starting up, shutting down; XX000 is what a full disk says at the connect
  if (/^(08|53|57P|58|XX000)/.test(state)) return 'MILLRACE_SOURCE_UNREACHABLE'
  return 'MILLRACE_SOURCE_NOT_READY'
}

function describe(error: unknown): ServerError {
  if (!(error instanceof Error)) return { message: String(error) }
  const { code, routine } = error as { code?: unknown; routine?: unknown }
  // several addresses were tried and each failed
  const message = error instanceof AggregateError && error.message === '' ? error.errors.map(String).join('; ') : error.message
  return {
    message,
    code: typeof code === 'string' ? code : undefined,
    routine: typeof routine === 'string' ? routine : undefined,
  }
}

/** The fields of an ErrorResponse frame: `(type byte, text, 0)…, 0`. */
export function parseServerError(buffer: Buffer, start: number, end: number): Error & ServerError {
  const fields = new Map<string, string>()
  let offset = start
  while (offset < end && buffer[offset] !== 0) {
    const zero = buffer.indexOf(0, offset)
    if (zero === -1 || zero >= end) break
    fields.set(String.fromCharCode(buffer[offset] as number), buffer.toString('utf8', offset + 1, zero))
    offset = zero + 1
  }
  return Object.assign(new Error(fields.get('M') ?? 'an error without a message'), {
    code: fields.get('C'),
    routine: fields.get('R'),
  }) as Error & ServerError
}
