import { Socket } from 'node:net'
import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import pg from 'pg'
import { postgresConnection, type TlsConnect } from '../../../src/core/tls.ts'
import type { PostgresSinkSettings } from './options.ts'

/** how long a connect may take (ms) */
const CONNECT_TIMEOUT = 10_000
/** beyond the server's own statement time-out (ms): then the connection is taken for dead */
const ANSWER_GRACE = 5_000
/** what `application_name` holds */
const NAME_BYTES = 63

/**
 * Pinned for the session, so that defaults of the role or the database change nothing. Texts of values: keys in guards
 * and markers are compared as text. The planner's switches: every statement here looks rows up by key. A table that
 * just began to fill has no statistics, and for a small one the planner takes a plan that reads all of it, which a prepared
 * statement then keeps while the table grows.
 */
const PINNED = [
  'datestyle=ISO',
  'intervalstyle=postgres',
  'extra_float_digits=3',
  'timezone=UTC',
  'bytea_output=hex',
  'default_transaction_isolation=read\\ committed',
  'random_page_cost=0.1',
  'enable_seqscan=off',
  'enable_hashjoin=off',
  'enable_mergejoin=off',
  'jit=off',
]

export function openPool(settings: PostgresSinkSettings, applicationName: string): pg.Pool {
  const pool = new pg.Pool({
    ...sessionConfig(settings, applicationName),
    max: settings.poolSize,
    idleTimeoutMillis: 60_000,
    allowExitOnIdle: true,
  })
  // an idle connection that breaks is replaced by the next query; one in use tells its query, and would end the process
  // with an error that nobody listens to
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

/** A session of its own, for what belongs to a session: such as the hold on a copy. Who opens it listens to its errors. */
export async function openSession(settings: PostgresSinkSettings, applicationName: string): Promise<pg.Client> {
  const client = new pg.Client(sessionConfig(settings, applicationName))
  await client.connect()
  return client
}

function sessionConfig(settings: PostgresSinkSettings, applicationName: string): pg.ClientConfig {
  const { password, ...connection } = postgresConnection(settings)
  const { statementTimeout, lockTimeout, idleInTransactionTimeout } = settings
  const timeouts = [
    `statement_timeout=${statementTimeout}`,
    `lock_timeout=${lockTimeout}`,
    `idle_in_transaction_session_timeout=${idleInTransactionTimeout}`,
  ]
  return {
    ...connection,
    ssl: named(connection.ssl),
    ...(password !== undefined && { password }),
    application_name: applicationName.slice(0, NAME_BYTES),
    options: [...PINNED, ...timeouts].map((setting) => `-c ${setting}`).join(' '),
    connectionTimeoutMillis: CONNECT_TIMEOUT,
    stream: () => socketOf(answerTimeout(settings)),
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  }
}

/** `pg` looks for the name that it dials, also where another is demanded. */
function named(ssl: TlsConnect): NonNullable<pg.ClientConfig['ssl']> {
  if (ssl === false || ssl.servername === undefined || ssl.checkServerIdentity !== undefined) return ssl
  const { servername } = ssl
  return { ...ssl, checkServerIdentity: (_dialled: string, shown: PeerCertificate) => checkServerIdentity(servername, shown) }
}

/**
 * A connection on which nothing passes for so long is over. `pg`'s own `query_timeout` gives up the query only: a client
 * whose `begin` got no answer went back into the pool, the next query waited behind it, and the one after that again.
 */
function socketOf(silence: number): Socket {
  const socket = new Socket()
  return socket.setTimeout(silence, () => socket.destroy())
}

/** how long to wait for the server's answer before the connection is taken for dead (ms) */
function answerTimeout(settings: PostgresSinkSettings): number {
  return settings.statementTimeout + ANSWER_GRACE
}
