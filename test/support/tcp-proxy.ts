import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'

/**
 * Stands between a client and a server on loopback and breaks their connection in the ways that networks do. Faults hold for
 * the connections there are and for those to come, until `restore()`.
 */
export interface TcpProxy {
  readonly port: number
  /** `host:port` */
  readonly address: string
  /** how many are open now */
  connections(): number
  /** resets every connection, once: the next dial gets through */
  cut(): void
  /** resets one of them, chosen by a number from 0 to below 1; false when there is none */
  cutOne(chosen: number): boolean
  /** resets every connection, and each new one as soon as it is made */
  refuse(): void
  /** nothing passes and nothing closes, as where packets are swallowed; what was held back goes on after `restore()` */
  hold(direction?: Direction): void
  /**
   * half-open: what is connected now stays so and hears nothing more, for ever, `restore()` or not; new connections get
   * through. Tells how many there were
   */
  strand(): number
  /** every piece waits so long; the order stays */
  delay(ms: number, direction?: Direction): void
  /** lets so many bytes more pass, over all connections, then holds; resolves at the last of them */
  holdAfter(bytes: number, direction: OneDirection): Promise<void>
  /** lets so many bytes more pass, over all connections, then closes them; resolves at the last of them */
  cutAfter(bytes: number, direction: OneDirection): Promise<void>
  restore(): void
  /** ends all connections and the proxy */
  remove(): Promise<void>
}

export type OneDirection = 'to-server' | 'to-client'
export type Direction = OneDirection | 'both'

/**
 * Looks at one connection's bytes as they arrive, in pieces of any size, and says what becomes of each: it goes on, it is
 * lost while the connection stays, or it is lost with the connection, which is reset.
 */
export type Tap = (direction: OneDirection, bytes: Buffer) => 'pass' | 'lose' | 'cut'

export async function startTcpProxy(
  target: { readonly host?: string; readonly port: number },
  options: {
    /** asked for each new connection */
    readonly tap?: () => Tap | null
    /** default: 127.0.0.1 and a free port */
    readonly listen?: { readonly host: string; readonly port?: number }
  } = {},
): Promise<TcpProxy> {
  const lanes = { 'to-server': new Lane(), 'to-client': new Lane() }
  const open = new Set<Socket>()
  const stranded = new Set<Socket>()
  let refusing = false

  const server = createServer({ allowHalfOpen: true }, (client) => {
    if (refusing) {
      client.resetAndDestroy()
      return
    }
    const upstream = connect({ host: target.host ?? '127.0.0.1', port: target.port, allowHalfOpen: true })
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      socket.setNoDelay(true)
      socket.on('error', () => {
        if (!stranded.has(socket)) other.resetAndDestroy()
      })
      socket.once('close', () => {
        open.delete(socket)
        stranded.delete(socket)
      })
      open.add(socket)
    }
    const tap = options.tap?.() ?? null
    const look = (direction: OneDirection) => (bytes: Buffer | null) => {
      if (stranded.has(client) || stranded.has(upstream)) return false
      if (bytes === null) return true
      const verdict = tap?.(direction, bytes) ?? 'pass'
      if (verdict === 'cut') for (const socket of [client, upstream]) socket.resetAndDestroy()
      return verdict === 'pass'
    }
    void lanes['to-server'].carry(client, upstream, look('to-server'))
    void lanes['to-client'].carry(upstream, client, look('to-client'))
  })
  await once(server.listen(options.listen?.port ?? 0, options.listen?.host ?? '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo

  const chosen = (direction: Direction): Lane[] => (direction === 'both' ? Object.values(lanes) : [lanes[direction]])
  const proxy: TcpProxy = {
    port,
    address: `${options.listen?.host ?? '127.0.0.1'}:${port}`,
    connections: () => open.size / 2,
    cut() {
      for (const socket of open) socket.resetAndDestroy()
    },
    cutOne(chosen) {
      const socket = [...open][Math.floor(chosen * open.size)]
      socket?.resetAndDestroy()
      return socket !== undefined
    },
    refuse() {
      refusing = true
      proxy.cut()
    },
    strand() {
      const before = open.size - stranded.size
      for (const socket of open) stranded.add(socket)
      return before / 2
    },
    hold(direction = 'both') {
      for (const lane of chosen(direction)) lane.hold()
    },
    delay(ms, direction = 'both') {
      for (const lane of chosen(direction)) lane.delayMs = ms
    },
    holdAfter: (bytes, direction) => lanes[direction].after(bytes, () => lanes[direction].hold()),
    cutAfter: (bytes, direction) =>
      lanes[direction].after(bytes, () => {
        // an orderly end: a reset could overtake the last bytes
        for (const socket of open) if (!socket.writableEnded) socket.destroySoon()
      }),
    restore() {
      refusing = false
      for (const lane of Object.values(lanes)) lane.restore()
    },
    async remove() {
      proxy.restore()
      const closed = once(server, 'close')
      server.close()
      for (const socket of open) socket.destroy()
      await closed
    },
  }
  return proxy
}

/** One direction of all connections. */
class Lane {
  delayMs = 0
  #gate: { readonly opened: Promise<void>; readonly open: () => void } | null = null
  #limit: { left: number; readonly reached: () => void } | null = null

  hold(): void {
    if (this.#gate) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#gate = { opened: promise, open: resolve }
  }

  after(bytes: number, then: () => void): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const reached = (): void => {
      then()
      resolve()
    }
    if (bytes <= 0) reached()
    else this.#limit = { left: bytes, reached }
    return promise
  }

  restore(): void {
    this.delayMs = 0
    this.#limit = null
    this.#gate?.open()
    this.#gate = null
  }

  /** `passes` is asked of every piece, and with null of the end. Reads no further than it writes: a side that is held back feels it, as it would. */
  async carry(from: Socket, to: Socket, passes: (bytes: Buffer | null) => boolean): Promise<void> {
    try {
      for await (const chunk of from) {
        if (!passes(chunk)) continue
        let rest: Buffer = chunk
        while (rest.length > 0) {
          if (this.delayMs > 0) await wait(this.delayMs)
          await this.#gate?.opened
          // stranded while it was held
          if (!passes(null)) break
          const part = rest.subarray(0, this.#limit?.left ?? rest.length)
          rest = rest.subarray(part.length)
          await write(to, part)
          this.#count(part.length)
        }
      }
      await this.#gate?.opened
      if (passes(null)) to.end()
    } catch {
      if (passes(null)) to.destroy()
    }
  }

  #count(bytes: number): void {
    const limit = this.#limit
    if (!limit) return
    limit.left -= bytes
    if (limit.left > 0) return
    this.#limit = null
    limit.reached()
  }
}

const write = (socket: Socket, bytes: Buffer): Promise<void> =>
  new Promise((resolve, reject) => socket.write(bytes, (error) => (error ? reject(error) : resolve())))
