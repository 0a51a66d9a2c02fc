import { MillraceError } from './errors.ts'

/** How a connection is secured. The same words for Postgres and Kafka; `verify-full` wherever nothing is said. */
export interface TlsOptions {
  readonly mode?: 'verify-full' | 'verify-ca' | 'disable' | undefined
  /** PEM */
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly servername?: string | undefined
}

/** What node:tls takes; false is a plain connection. */
export type TlsConnect =
  | false
  | {
      rejectUnauthorized: true
      ca?: string
      cert?: string
      key?: string
      servername?: string
      checkServerIdentity?: () => undefined
    }

/** A loopback address or a Unix socket: the only places where an unsecured connection is the default. */
export function isLocal(host: string): boolean {
  return host.startsWith('/') || host === 'localhost' || host === '::1' || host === '[::1]' || /^127(\.\d{1,3}){3}$/.test(host)
}

export function tlsFor(host: string, tls: TlsOptions | undefined): TlsConnect {
  const mode = tls?.mode ?? (tls === undefined && isLocal(host) ? 'disable' : 'verify-full')
  if (mode === 'disable') return false
  return {
    rejectUnauthorized: true,
    ...(tls?.ca !== undefined && { ca: tls.ca }),
    ...(tls?.cert !== undefined && { cert: tls.cert }),
    ...(tls?.key !== undefined && { key: tls.key }),
    ...(tls?.servername !== undefined && { servername: tls.servername }),
    ...(mode === 'verify-ca' && { checkServerIdentity: () => undefined }),
  }
}

export interface PostgresConnection {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly database: string
  readonly password: string | (() => string | Promise<string>) | undefined
  readonly ssl: TlsConnect
}

const SSLMODE: Readonly<Record<string, string>> = {
  disable: 'disable',
  'verify-ca': 'verify-ca',
  'verify-full': 'verify-full',
}

/**
 * A Postgres URL (`postgres://user:password@host:port/database`, `?host=/socket/folder`) with its TLS rule, as the
 * fields of a `pg` client. Parameters other than `host`, `port` and `sslmode` are refused: what they would change must
 * be said in the config.
 * @throws MILLRACE_CONFIG_INVALID; the message never holds the password
 */
export function postgresConnection(options: {
  readonly url: string
  readonly password?: string | (() => string | Promise<string>) | undefined
  readonly tls?: TlsOptions | undefined
}): PostgresConnection {
  const invalid = (message: string): MillraceError => new MillraceError('MILLRACE_CONFIG_INVALID', message)
  let url: URL
  let parts: Readonly<Record<'hostname' | 'username' | 'password' | 'pathname', string>>
  try {
    // a socket folder in the authority's place has no host, which URL refuses for nothing but special schemes
    url = new URL(options.url)
    const { hostname, username, password, pathname } = url
    parts = {
      hostname: decodeURIComponent(hostname),
      username: decodeURIComponent(username),
      password: decodeURIComponent(password),
      pathname: decodeURIComponent(pathname),
    }
  } catch {
    throw invalid(
      'the url is not a Postgres URL: expected postgres://user:password@host:port/database, each part percent-encoded',
    )
  }
  if (url.protocol !== 'postgres:' && url.protocol !== 'postgresql:')
    throw invalid(`the url begins with ${url.protocol}//, expected postgres://`)
  for (const name of url.searchParams.keys())
    if (name !== 'host' && name !== 'port' && name !== 'sslmode')
      throw invalid(`the url has the parameter ${name}, which is not understood: expected host, port or sslmode`)
  const host = url.searchParams.get('host') ?? (parts.hostname || 'localhost')
  const sslmode = url.searchParams.get('sslmode')
  let tls = options.tls
  if (sslmode !== null) {
    const mode = SSLMODE[sslmode]
    if (mode === undefined)
      throw invalid(
        `the url says sslmode=${sslmode}, which does not verify the server: expected verify-full, verify-ca or disable`,
      )
    if (tls !== undefined && (tls.mode ?? 'verify-full') !== mode)
      throw invalid(`the url says sslmode=${sslmode}, tls.mode says ${tls.mode ?? 'verify-full'}: say one of them`)
    tls = { ...tls, mode: mode as TlsOptions['mode'] }
  }
  const user = parts.username || 'postgres'
  const port = Number(url.searchParams.get('port') ?? (url.port || '5432'))
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw invalid('the url has a port that is none: expected 1 to 65535')
  for (const text of [host, user, parts.pathname]) if (text.includes('\0')) throw invalid('the url holds a null character')
  return {
    host: host.replace(/^\[(.*)\]$/, '$1'),
    port,
    user,
    database: parts.pathname.slice(1) || user,
    password: options.password ?? (parts.password === '' ? undefined : parts.password),
    ssl: tlsFor(host, tls),
  }
}
