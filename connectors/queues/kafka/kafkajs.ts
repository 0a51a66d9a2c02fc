import net from 'node:net'
import tls from 'node:tls'
import type { Log } from '../../../src/core/connector.ts'
import { MillraceError } from '../../../src/core/errors.ts'
import type { TlsConnect } from '../../../src/core/tls.ts'
import type { Address, BearerToken, Sasl } from './options.ts'

/**
 * The one place that touches kafkajs. From it come the connection to one broker (TCP, TLS, SASL, the negotiation of
 * versions, framing, correlation, request timeouts) and the encoding of the requests that are not hot. Its producer,
 * consumer and cluster are not used: they retry and re-route by themselves, which hides outcomes (PROTOCOL 2.3 rule 3),
 * and encode records one by one.
 *
 * kafkajs is pinned to 2.2.4 and has no `exports` map. What is relied on beyond its public API is named by the interfaces
 * below, and `test/connectors/kafka-seam.test.ts` fails where a version differs.
 */
export interface Modules {
  readonly Broker: new (options: {
    connectionPool: ConnectionPool
    logger: unknown
    allowAutoTopicCreation: boolean
    authenticationTimeout: number
  }) => Broker
  readonly ConnectionPool: new (options: object) => ConnectionPool
  readonly createLogger: (options: { level: number; logCreator: () => (entry: LogEntry) => void }) => unknown
  readonly requests: Readonly<Record<string, unknown>>
  readonly apiKeys: Readonly<Record<string, number>>
  readonly MemberMetadata: {
    encode(metadata: { version: number; topics: readonly string[] }): Buffer
    decode(buffer: Buffer): { topics: string[] }
  }
  readonly MemberAssignment: {
    encode(assignment: { version: number; assignment: Record<string, number[]> }): Buffer
    decode(buffer: Buffer): { assignment: Record<string, number[]> } | null
  }
  readonly authenticators: Readonly<Record<'plain' | 'scram-sha-256' | 'scram-sha-512', Authenticator>>
}

interface Protocol {
  readonly request: object
  readonly response: { decode(payload: Buffer): Promise<unknown>; parse(decoded: unknown): Promise<unknown> }
  readonly requestTimeout?: number
  readonly logResponseError?: boolean
}

interface Broker {
  readonly versions: Readonly<Record<number, { readonly minVersion: number; readonly maxVersion: number }>> | null
  connect(): Promise<void>
  lookupRequest(apiKey: number, definition: unknown): (options: object) => Protocol
}

interface ConnectionPool {
  readonly pool: readonly Connection[]
  send(protocol: Protocol): Promise<unknown>
  /** connected, not necessarily logged in; Fetch has a connection of its own, everything else goes over the other */
  getConnectionByRequest(protocol: { readonly request: { readonly apiKey: number } }): Promise<Connection>
}

interface Connection {
  readonly socket: net.Socket
  readonly requestQueue: RequestQueue
  /** logs in where that is configured and due */
  authenticate(): Promise<void>
  failIfNotConnected(): void
  nextCorrelationId(): number
}

interface RequestQueue {
  /** calls `sendRequest` when throttling allows it; the entry is resolved by its answer, rejected by the connection's end */
  push(request: {
    readonly entry: {
      readonly apiKey: number
      readonly apiName: string
      readonly apiVersion: number
      readonly correlationId: number
      readonly resolve: (answer: { readonly payload: Buffer }) => void
      readonly reject: (error: unknown) => void
    }
    readonly expectResponse: boolean
    readonly sendRequest: () => void
  }): void
  maybeThrottle(ms: number): void
  readonly pending: readonly unknown[]
  readonly throttledUntil: number
  throttleCheckTimeoutId: unknown
  checkPendingRequests(): void
  scheduleCheckPendingRequests(): void
}

interface LogEntry {
  readonly namespace: string
  readonly log: { readonly message: string; readonly broker?: string }
}

type Authenticator = (sasl: { username: string; password: string }) => (context: SaslContext) => { authenticate(): Promise<void> }

/** What kafkajs gives to what logs in: bytes both ways begin with their length. */
interface SaslContext {
  saslAuthenticate(exchange: {
    readonly request: { encode(): Promise<Buffer> }
    readonly response: { decode(payload: Buffer): Promise<string>; parse(decoded: string): Promise<string> }
  }): Promise<string>
}

const WARN = 2
/** kafkajs re-authenticates this long before a session ends, in ms */
const REAUTHENTICATION_THRESHOLD = 10_000
/** kafkajs' own figure while a request waits for another to be answered, in ms */
const PENDING_CHECK = 10

let loading: Promise<Modules> | undefined

export function loadKafkajs(): Promise<Modules> {
  loading ??= (async () => {
    const [main, Broker, ConnectionPool, loggers, requests, apiKeys, plain, scram256, scram512] = await Promise.all(
      [
        'kafkajs',
        'kafkajs/src/broker/index.js',
        'kafkajs/src/network/connectionPool.js',
        'kafkajs/src/loggers/index.js',
        'kafkajs/src/protocol/requests/index.js',
        'kafkajs/src/protocol/requests/apiKeys.js',
        'kafkajs/src/broker/saslAuthenticator/plain.js',
        'kafkajs/src/broker/saslAuthenticator/scram256.js',
        'kafkajs/src/broker/saslAuthenticator/scram512.js',
      ].map(async (name) => ((await import(name)) as { default: unknown }).default),
    )
    return {
      Broker,
      ConnectionPool,
      ...(loggers as Pick<Modules, 'createLogger'>),
      ...(requests as Pick<Modules, 'requests'>),
      apiKeys,
      ...(main as { AssignerProtocol: Pick<Modules, 'MemberMetadata' | 'MemberAssignment'> }).AssignerProtocol,
      authenticators: { plain, 'scram-sha-256': scram256, 'scram-sha-512': scram512 },
    } as Modules
  })()
  return loading
}

export interface LinkOptions {
  readonly clientId: string
  readonly tls: TlsConnect
  /** without TLS: whether connections may leave this machine, to wherever the cluster sends us. Default: no */
  readonly clearAnywhere?: boolean
  readonly sasl: Sasl | undefined
  /** ms */
  readonly requestTimeout: number
  readonly log: Log
}

/** The connections to one broker. Nothing is sent twice by itself; what fails, fails. */
export class BrokerLink {
  readonly address: string
  readonly #kafkajs: Modules
  readonly #broker: Broker
  readonly #pool: ConnectionPool
  readonly #clientId: Buffer
  readonly #requestTimeout: number
  readonly #sockets = new Set<net.Socket>()
  #destroyed = false

  constructor(kafkajs: Modules, { host, port }: Address, { clientId, tls: ssl, sasl, requestTimeout, log }: LinkOptions) {
    this.address = `${host}:${port}`
    this.#kafkajs = kafkajs
    this.#clientId = Buffer.from(clientId)
    this.#requestTimeout = requestTimeout
    const logger = kafkajs.createLogger({ level: WARN, logCreator: () => bridge(log) })
    const connectionTimeout = Math.min(requestTimeout, 10_000)
    this.#pool = new kafkajs.ConnectionPool({
      host,
      port,
      ssl: ssl || null,
      sasl: sasl ? login(kafkajs, sasl) : null,
      clientId,
      connectionTimeout,
      requestTimeout,
      // by the wall clock, which may be set back; the time-outs are ours
      enforceRequestTimeout: false,
      reauthenticationThreshold: REAUTHENTICATION_THRESHOLD,
      logger,
      socketFactory: (to: Address & { ssl: tls.ConnectionOptions | null; onConnect: () => void }) => this.#socket(to),
    })
    for (const { requestQueue } of this.#pool.pool) requestQueue.scheduleCheckPendingRequests = () => checkLater(requestQueue)
    this.#broker = new kafkajs.Broker({
      connectionPool: this.#pool,
      logger,
      allowAutoTopicCreation: false,
      authenticationTimeout: connectionTimeout,
    })
  }

  get destroyed(): boolean {
    return this.#destroyed
  }

  connect(): Promise<void> {
    return this.#within(this.#requestTimeout, () => this.#connect())
  }

  /** A request that kafkajs encodes and decodes. Error codes within the answer are the caller's to read. */
  call<Answer>(api: string, options: object): Promise<Answer> {
    return this.#within(this.#requestTimeout, async (atLeast) => {
      await this.#connect()
      const { apiKeys, requests } = this.#kafkajs
      const protocol = this.#broker.lookupRequest(apiKeys[api] as number, requests[api])(options)
      // some wait by their nature: a JoinGroup for the other members
      if (protocol.requestTimeout) atLeast(protocol.requestTimeout)
      const response = {
        decode: (payload: Buffer) => protocol.response.decode(payload),
        parse: async (decoded: unknown) => decoded,
      }
      return (await this.#pool.send({ ...protocol, response, logResponseError: false })) as Answer
    })
  }

  /**
   * A request whose body is ours, written as it is: by kafkajs' own way it would be copied twice, into buffers that the
   * garbage collector then has to find, which cost a third of the CPU of publishing. The body must not change before the
   * answer is there.
   */
  send<Answer extends { readonly clientSideThrottleTime: number }>(
    apiName: string,
    apiVersion: number,
    body: Buffer,
    decode: (payload: Buffer) => Answer,
    timeout: number,
  ): Promise<Answer> {
    return this.#within(timeout, async () => {
      await this.#connect()
      const apiKey = this.#kafkajs.apiKeys[apiName] as number
      this.#refuseUnknown(apiKey, apiName, apiVersion)
      const connection = await this.#pool.getConnectionByRequest({ request: { apiKey } })
      await connection.authenticate()
      connection.failIfNotConnected()
      const { socket, requestQueue } = connection
      const correlationId = connection.nextCorrelationId()
      const { payload } = await new Promise<{ payload: Buffer }>((resolve, reject) => {
        requestQueue.push({
          entry: { apiKey, apiName, apiVersion, correlationId, resolve, reject },
          expectResponse: true,
          sendRequest: () => {
            socket.cork()
            socket.write(this.#header(apiKey, apiVersion, correlationId, body.length))
            socket.write(body)
            socket.uncork()
          },
        })
      })
      const answer = decode(payload)
      requestQueue.maybeThrottle(answer.clientSideThrottleTime)
      return answer
    })
  }

  /** Ends the connections now; requests under way fail. */
  destroy(): void {
    this.#destroyed = true
    for (const socket of this.#sockets) socket.destroy(new Error('the connection was closed by us'))
  }

  async #connect(): Promise<void> {
    if (this.#destroyed) throw new Error('the connection was closed by us')
    await this.#broker.connect()
  }

  /** What has no answer in time never has one: the connections end with it, so that no late one is taken for another's. */
  #within<Answer>(ms: number, work: (atLeast: (ms: number) => void) => Promise<Answer>): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const expire = (within: number) =>
        setTimeout(() => {
          reject(new Error(`no answer within ${within} ms`))
          this.destroy()
        }, within)
      let timer = expire(ms)
      const atLeast = (least: number): void => {
        clearTimeout(timer)
        timer = expire(Math.max(ms, least))
      }
      work(atLeast)
        .then(resolve, reject)
        .finally(() => clearTimeout(timer))
    })
  }

  #refuseUnknown(apiKey: number, apiName: string, apiVersion: number): void {
    const { minVersion, maxVersion } = this.#broker.versions?.[apiKey] ?? { minVersion: -1, maxVersion: -1 }
    if (apiVersion >= minVersion && apiVersion <= maxVersion) return
    throw new MillraceError(
      'MILLRACE_QUEUE_NOT_READY',
      `Kafka at ${this.address} takes ${apiName} of the versions ${minVersion} to ${maxVersion}, and we speak ${apiVersion}`,
      { fields: { broker: this.address }, remedy: 'use a Kafka from 2.3 to 4.x' },
    )
  }

  /** length of what follows i32, api i16, its version i16, correlation id i32, client id as a string */
  #header(apiKey: number, apiVersion: number, correlationId: number, bodyLength: number): Buffer {
    const header = Buffer.allocUnsafe(14 + this.#clientId.length)
    header.writeInt32BE(header.length - 4 + bodyLength, 0)
    header.writeInt16BE(apiKey, 4)
    header.writeInt16BE(apiVersion, 6)
    header.writeInt32BE(correlationId, 8)
    header.writeInt16BE(this.#clientId.length, 12)
    this.#clientId.copy(header, 14)
    return header
  }

  #socket({ host, port, ssl, onConnect }: Address & { ssl: tls.ConnectionOptions | null; onConnect: () => void }): net.Socket {
    // kafkajs dials again by itself where it finds a connection gone
    if (this.#destroyed) throw new Error('the connection was closed by us')
    const socket = ssl
      ? tls.connect({ host, port, ...(net.isIP(host) ? {} : { servername: host }), ...ssl }, onConnect)
      : net.connect({ host, port }, onConnect)
    // requests are written whole: waiting for more to send would only hold them back
    socket.setNoDelay(true)
    socket.setKeepAlive(true, 30_000)
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
    return socket
  }
}

/** kafkajs says of a failed connection what the error that we throw says again, so nothing of it is above debug. */
function bridge(log: Log): (entry: LogEntry) => void {
  return ({ namespace, log: { message, broker } }) => log.debug({ kafkajs: namespace, ...(broker && { broker }) }, message)
}

/**
 * kafkajs sets a timer for "the end of throttling" after each answer, also where nothing is throttled: 1.7e12 ms in the
 * past, of which Node 24 warns (tulios/kafkajs#1751). So only where something waits.
 */
function checkLater(queue: RequestQueue): void {
  if (queue.throttleCheckTimeoutId || queue.pending.length === 0) return
  queue.throttleCheckTimeoutId = setTimeout(
    () => {
      queue.throttleCheckTimeoutId = null
      queue.checkPendingRequests()
    },
    Math.max(PENDING_CHECK, queue.throttledUntil - Date.now()),
  )
}

/** kafkajs reads credentials once; as a provider of its own, each login asks for them anew. */
function login({ authenticators }: Modules, sasl: Sasl): object {
  return {
    mechanism: sasl.mechanism,
    authenticationProvider: (context: SaslContext) => ({
      async authenticate(): Promise<void> {
        if (sasl.mechanism === 'oauthbearer') return bearer(await sasl.token(), context)
        const { mechanism, username, password } = sasl
        const secret = typeof password === 'function' ? await password() : password
        await authenticators[mechanism]({ username, password: secret })(context).authenticate()
      },
    }),
  }
}

/** RFC 7628. kafkajs' own takes the broker's refusal, which is an answer too, for consent. */
async function bearer({ value, extensions = {} }: BearerToken, { saslAuthenticate }: SaslContext): Promise<void> {
  const pairs = Object.entries({ auth: `Bearer ${value}`, ...extensions }).map(([name, content]) => `${name}=${content}\u0001`)
  const refusal = await saslAuthenticate({
    request: { encode: async () => withLength(`n,,\u0001${pairs.join('')}\u0001`) },
    response: { decode: async (payload) => payload.toString('utf8', 4), parse: async (text) => text },
  })
  if (refusal)
    throw Object.assign(new Error(`the token is not accepted: ${refusal.slice(0, 200)}`), {
      name: 'KafkaJSSASLAuthenticationError',
    })
}

function withLength(text: string): Buffer {
  const bytes = Buffer.alloc(4 + Buffer.byteLength(text))
  bytes.writeInt32BE(bytes.length - 4)
  bytes.write(text, 4)
  return bytes
}
