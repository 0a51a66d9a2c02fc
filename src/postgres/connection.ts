import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import pg from 'pg'
import { postgresConnection, type TlsConnect } from '../core/tls.ts'
import type { SourceSettings } from './options.ts'

/** how long a connect may take (ms) */
const CONNECT_TIMEOUT = 10_000
const KEEPALIVE_AFTER = 10_000
/** how long a statement may stay unanswered (ms): as long as the stream may be silent, or a session would outlive its end */
const ANSWER_TIMEOUT = 30_000

/**
 * Settings that change how values are printed, pinned for the session: defaults of the role or the database must not
 * change the text of an event (PROTOCOL 2.3 rule 1). `pg` itself says client_encoding=UTF8.
 */
const PINNED = [
  '-c datestyle=ISO',
  '-c intervalstyle=postgres',
  '-c extra_float_digits=3',
  '-c timezone=UTC',
  '-c bytea_output=hex',
].join(' ')

export function clientConfig(settings: SourceSettings): pg.ClientConfig {
  const { password, ...connection } = postgresConnection(settings)
  return {
    ...connection,
    ssl: named(connection.ssl),
    ...(password !== undefined && { password }),
    application_name: `millrace_${settings.name}`,
    options: PINNED,
    connectionTimeoutMillis: CONNECT_TIMEOUT,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_AFTER,
  }
}

/** `pg` looks for the name that it dials, also where another is demanded. */
function named(ssl: TlsConnect): NonNullable<pg.ClientConfig['ssl']> {
  if (ssl === false || ssl.servername === undefined || ssl.checkServerIdentity !== undefined) return ssl
  const { servername } = ssl
  return { ...ssl, checkServerIdentity: (_dialled: string, shown: PeerCertificate) => checkServerIdentity(servername, shown) }
}

/** The connections for ordinary statements: state copy, slot status, checks. Opened when asked for, closed when idle. */
export function openPool(config: pg.ClientConfig): pg.Pool {
  const pool = new pg.Pool({ ...config, max: 2, idleTimeoutMillis: 10_000, allowExitOnIdle: true, query_timeout: ANSWER_TIMEOUT })
  // an idle connection that breaks is replaced by the next query; one in use that breaks fails its query, and its
  // own 'error' event would end the process if nobody heard it
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

/** Connections that were opened when the address led elsewhere. */
export async function dropIdle(pool: pg.Pool): Promise<void> {
  for (let left = pool.idleCount; left > 0; left--) (await pool.connect()).release(true)
}
