import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { MillraceError } from '../core/errors.ts'
import { isLocal } from '../core/tls.ts'

/** What the endpoints show. */
export interface AdminSurface {
  /** false: a restart would help */
  live(): boolean
  /** false: not (yet, or no longer) at work; a standby is ready */
  ready(): boolean
  /** Prometheus' text format */
  metrics(): Promise<string>
  /** JSON; for local eyes only */
  status(): Promise<unknown>
}

export interface AdminServer {
  readonly url: string
  close(): Promise<void>
}

const TEXT = 'text/plain; charset=utf-8'
const METRICS = 'text/plain; version=0.0.4; charset=utf-8'

/**
 * /livez, /readyz, /metrics and /status. No CORS, nothing that changes anything. A request that comes over loopback must
 * name a loopback host, so that a web page cannot reach it by rebinding its DNS name; /status answers loopback only,
 * whatever address the server is bound to.
 * @throws MILLRACE_USAGE when the address cannot be had
 */
export async function startAdmin(
  surface: AdminSurface,
  listen: { readonly host: string; readonly port: number },
): Promise<AdminServer> {
  // time-outs hold only as often as Node looks, which is each 30 s by itself: so long a few slow ones could fill the server
  const limits = { requestTimeout: 10_000, headersTimeout: 5_000, connectionsCheckingInterval: 1_000, maxHeaderSize: 8_192 }
  const server = createServer(limits, (request, response) => {
    answer(surface, request, response).catch(() => {
      if (!response.headersSent) send(response, 500, TEXT, 'failed\n')
      else response.destroy()
    })
  })
  server.maxConnections = 64
  server.unref()
  server.listen(listen.port, listen.host)
  try {
    await once(server, 'listening')
  } catch (cause) {
    throw addressError(listen, cause as NodeJS.ErrnoException)
  }
  return { url: urlOf(server), close: () => close(server) }
}

async function answer(surface: AdminSurface, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const local = isLoopback(request.socket.remoteAddress)
  if (local && !isLocal(hostOf(request.headers.host))) return send(response, 403, TEXT, 'this host name is not served here\n')
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD')
    return send(response, 405, TEXT, 'only GET\n')
  }
  switch (request.url?.split('?')[0]) {
    case '/livez':
      return health(response, surface.live())
    case '/readyz':
      return health(response, surface.ready())
    case '/metrics':
      return send(response, 200, METRICS, await surface.metrics())
    case '/status':
      if (local) return send(response, 200, 'application/json', `${JSON.stringify(await surface.status(), null, 2)}\n`)
  }
  send(response, 404, TEXT, 'not found: /livez /readyz /metrics /status\n')
}

function health(response: ServerResponse, up: boolean): void {
  send(response, up ? 200 : 503, TEXT, up ? 'up\n' : 'down\n')
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  })
  response.end(response.req.method === 'HEAD' ? undefined : body)
}

/** the name in a Host header, without its port */
function hostOf(header: string | undefined): string {
  return (header ?? '').toLowerCase().replace(/:\d+$/, '')
}

function isLoopback(address: string | undefined): boolean {
  return address !== undefined && isLocal(address.replace(/^::ffff:/, ''))
}

function urlOf(server: Server): string {
  const { address, port, family } = server.address() as AddressInfo
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}

function addressError(listen: { readonly host: string; readonly port: number }, cause: NodeJS.ErrnoException): MillraceError {
  const where = `${listen.host}:${listen.port}`
  const reason: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is in use by another process`,
    EADDRNOTAVAIL: `${listen.host} is not an address of this machine`,
    EACCES: `${where} may not be listened on by this user`,
    ENOTFOUND: `${listen.host} is not known`,
  }
  return new MillraceError(
    'MILLRACE_USAGE',
    `http: ${reason[cause.code ?? ''] ?? `${where} cannot be listened on (${cause.code})`}`,
    {
      cause,
      remedy: 'set http.port to a free one, or http: false to serve nothing',
    },
  )
}

async function close(server: Server): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  server.closeAllConnections()
  await closed
}
