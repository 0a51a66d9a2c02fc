import type { Duplex } from 'node:stream'
import type pg from 'pg'
import logicalReplication from 'pg-logical-replication'
import type { ServerIdentity } from '../core/epoch.ts'
import { MillraceError } from '../core/errors.ts'
import { FrameReader } from './frames.ts'
import { identifyServer } from './server-identity.ts'
import { parseServerError, sourceError } from './source-error.ts'

/** What the session hears of the stream. After `ended` nothing more comes. */
export interface ReplicationHandler {
  /** a chunk came in; its frames are handed on before the next call */
  chunk(bytes: number): void
  /** the content of a CopyData frame, a view into the chunk */
  copyData(buffer: Buffer, start: number, end: number): void
  /** after the last frame of a chunk */
  chunkEnd(): void
  ended(error: MillraceError): void
}

export interface ReplicationStream {
  readonly server: ServerIdentity
  /** the server's process that sends it, as itself says */
  readonly backendPid: number
  pause(): void
  resume(): void
  /** false: the server does not take what we write; nothing was sent */
  write(frame: Buffer): boolean
  /** Sends the last frames and closes; resolves when the connection is gone. */
  end(...frames: readonly Buffer[]): Promise<void>
  /** Cuts the connection. */
  destroy(): void
}

export interface ReplicationOptions {
  readonly config: pg.ClientConfig
  /** `^[a-z0-9_]{1,63}$`: it stands in the command as it is */
  readonly slot: string
  readonly publication: string
  readonly handler: ReplicationHandler
  readonly signal: AbortSignal
}

const MESSAGE = {
  copyBothResponse: 0x57,
  copyDone: 0x63,
  commandComplete: 0x43,
  error: 0x45,
  notice: 0x4e,
  parameterStatus: 0x53,
  readyForQuery: 0x5a,
} as const
const KNOWN = new Set<number>(Object.values(MESSAGE))
/** status updates that the server has not taken; it reads none while it is gone (bytes) */
const MAX_UNSENT = 64 * 1024
const END_TIMEOUT = 1_000
/** from the first packet to the server's word that it streams (ms) */
const START_TIMEOUT = 30_000

/** the parts of `pg.Client` that its types leave out */
interface ClientInternals {
  readonly connection: { readonly stream: Duplex; query(text: string): void }
}

/**
 * Opens the replication connection and starts the stream, with pg-logical-replication (2.5.0), whose part ends there:
 * it acknowledges `lsn + 1`, on a timer also what was only received, and parses what we pass on unparsed (PERFORMANCE
 * 7). So our output plugin takes the socket from `pg`'s parser before the command is written (later, the first frames
 * could share a chunk with the reply and be lost), and from then on every frame and every status update is ours.
 *
 * Resolves when the server has begun to stream, paused: what shares a chunk with the reply is handed on all the same.
 * It starts at 0/0: at what the slot has confirmed, never at an LSN that
 * somebody remembers.
 */
export async function startReplication(options: ReplicationOptions): Promise<ReplicationStream> {
  const { config, slot, publication, handler, signal } = options
  signal.throwIfAborted()
  const service = new logicalReplication.LogicalReplicationService(config, { acknowledge: { auto: false, timeoutSeconds: 0 } })
  let stream: Duplex | undefined
  let begun = false
  let over: MillraceError | undefined

  return new Promise((resolve, reject) => {
    const end = (error: MillraceError): void => {
      if (over !== undefined) return
      over = error
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
      stream?.destroy()
      service.destroy().catch(() => {})
      if (begun) handler.ended(error)
      else reject(error)
    }
    const abort = (): void => {
      if (!begun) end(new MillraceError('MILLRACE_STREAM_BROKEN', 'opening the replication stream was given up'))
    }
    const timer = setTimeout(
      () =>
        end(new MillraceError('MILLRACE_SOURCE_UNREACHABLE', `the server did not begin to stream in ${START_TIMEOUT / 1_000} s`)),
      START_TIMEOUT,
    )
    signal.addEventListener('abort', abort, { once: true })
    service.on('error', (error) => end(sourceError(error, stream === undefined ? 'connect' : 'stream')))

    const start = async (client: pg.Client): Promise<void> => {
      const server = await identifyServer(client)
      const { rows } = await client.query('select pg_backend_pid() as pid')
      const { connection } = client as unknown as ClientInternals
      const socket = connection.stream
      stream = socket
      const frames = new FrameReader({
        copyData: (buffer, from, to) => handler.copyData(buffer, from, to),
        message(type, buffer, from, to) {
          if (type === MESSAGE.error) throw sourceError(parseServerError(buffer, from, to), 'stream')
          if (type === MESSAGE.copyBothResponse && !begun) {
            begun = true
            clearTimeout(timer)
            socket.pause()
            resolve(replicationStream(socket, server, Number(rows[0].pid), () => over !== undefined))
          } else if (type === MESSAGE.copyDone || type === MESSAGE.commandComplete)
            throw new MillraceError('MILLRACE_STREAM_BROKEN', 'the server ended the replication stream')
          else if (!KNOWN.has(type))
            throw new MillraceError(
              'MILLRACE_STREAM_INVALID',
              `the replication stream holds a frame of the unknown kind 0x${type.toString(16).padStart(2, '0')}`,
            )
        },
      })
      socket.removeAllListeners('data')
      socket.on('data', (chunk: Buffer) => {
        if (over !== undefined) return
        try {
          handler.chunk(chunk.length)
          frames.push(chunk)
          handler.chunkEnd()
        } catch (error) {
          // everything that a stream can hold has its code; the rest is a fault of ours, which no retry mends
          end(error instanceof MillraceError ? error : new MillraceError('MILLRACE_INTERNAL', String(error), { cause: error }))
        }
      })
      socket.once('close', () => end(new MillraceError('MILLRACE_STREAM_BROKEN', 'the server closed the replication connection')))
      connection.query(startCommand(slot, publication))
      await new Promise((closed) => socket.once('close', closed))
    }
    const plugin = { name: 'pgoutput', options: {}, start, parse: () => undefined }
    service
      .subscribe(plugin, slot, '0/0')
      .catch((error: unknown) => end(sourceError(error, stream === undefined ? 'connect' : 'stream')))
  })
}

function replicationStream(socket: Duplex, server: ServerIdentity, backendPid: number, isOver: () => boolean): ReplicationStream {
  return {
    server,
    backendPid,
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    write(frame) {
      if (isOver() || !socket.writable || socket.writableLength > MAX_UNSENT) return false
      socket.write(frame)
      return true
    },
    async end(...frames) {
      if (socket.destroyed) return
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
      const timer = setTimeout(() => socket.destroy(), END_TIMEOUT)
      for (const frame of frames) if (socket.writable) socket.write(frame)
      socket.end()
      // the end of the other side is seen only by a socket that is read to it
      socket.resume()
      await closed
      clearTimeout(timer)
    },
    destroy: () => void socket.destroy(),
  }
}

/** The publication's name is a list of identifiers inside a literal: quoted as both. */
function startCommand(slot: string, publication: string): string {
  const list = `"${publication.replaceAll('"', '""')}"`.replaceAll("'", "''")
  return `START_REPLICATION SLOT "${slot}" LOGICAL 0/0 (proto_version '1', publication_names '${list}')`
}
