import type { ChangeBatch } from '../core/change.ts'
import type { Log } from '../core/connector.ts'
import type { Epoch, ServerIdentity } from '../core/epoch.ts'
import { MillraceError } from '../core/errors.ts'
import { formatLsn, type Lsn } from '../core/position.ts'
import type { SourceIdentity, SourceSession } from '../core/source.ts'
import { Capture } from './capture.ts'
import { ChangeBuffer } from './change-buffer.ts'
import type { SourceSettings } from './options.ts'
import { OutboxRows } from './outbox-row.ts'
import { ReadCoalescing } from './read-coalescing.ts'
import type { ReplicationHandler, ReplicationStream } from './replication.ts'
import { COPY_DONE, statusUpdate } from './status-update.ts'

/** an end that only keepalives moved is given out this often (ms): an idle database must not spin */
const IDLE_END_INTERVAL = 1_000
/** a reply that was asked for and that no confirm covers by then: the server may be shutting down, and we block it (ms) */
const UNCOVERED_DEADLINE = 5_000
const PING_AFTER = 10_000
const SILENT_DEADLINE = 30_000
/** how long a close waits for the slot to show what was confirmed, and to be free (ms) */
const CLOSE_DEADLINE = 2_000
const CLOSE_POLL = 20

export interface SessionDeps {
  readonly settings: SourceSettings
  readonly outboxOid: number | null
  /** as `SourceIdentity.publication` says it */
  readonly publication: string
  readonly log: Log
  /** ms since the Unix epoch */
  readonly now: () => number
  /** the same as it is now; null: it is gone */
  readonly publicationNow: () => Promise<string | null>
  /** what the slot says of itself; null: it is gone */
  readonly slot: () => Promise<{ readonly confirmed: Lsn; readonly active: boolean } | null>
}

interface Waiter {
  readonly limit: Limit
  resolve(batch: ChangeBatch | null): void
  reject(error: MillraceError): void
}

type Limit = Parameters<SourceSession['next']>[0]

/**
 * One session on the slot. It reads while there is room, says the confirmed LSN on a timer that nothing stops (a
 * walsender whose peer is silent is ended, also when the peer only takes its time: PROTOCOL fact 5), and hands out what
 * it read.
 *
 *     owned ──the epochs are known──▶ reading ──buffer full──▶ held ──half taken──▶ reading
 *        │  └──busy: 4 ms──▶ resting ──▶ reading
 *        ├──signal: we want no more──▶ draining (confirms still go out) ──close──▶ closed
 *        └──server, socket, bad bytes──▶ failed
 */
export class PostgresSession implements SourceSession, ReplicationHandler {
  private readonly deps: SessionDeps
  private readonly buffer = new ChangeBuffer()
  private readonly capture: Capture
  private readonly coalescing: ReadCoalescing
  private stream: ReplicationStream | undefined
  private said: SourceIdentity | undefined
  private timer: NodeJS.Timeout | undefined
  private readonly over = new AbortController()

  private confirmed: Lsn = 0n
  /** the highest end that was given out: nothing above it may be confirmed */
  private given: Lsn = 0n
  private waiter: Waiter | undefined
  private failure: MillraceError | undefined
  private draining = false
  private closing: Promise<void> | undefined
  /** what came before the epochs were known: the rest of the chunk that the stream began with; null: they are */
  private early: { readonly buffer: Buffer; readonly start: number; readonly end: number }[] | null = []
  private readonly passedOver = new Set<string>()
  private held = false
  private resting = false

  private heardAtWall: number
  /** monotonic times (ms) */
  private heard = performance.now()
  private pinged = this.heard
  private idleEndAt = -IDLE_END_INTERVAL
  private uncovered: { readonly lsn: Lsn; readonly since: number } | undefined

  constructor(deps: SessionDeps) {
    this.deps = deps
    this.heardAtWall = deps.now()
    const rows = new OutboxRows(deps.settings.table, deps.settings.columns, deps.outboxOid)
    this.capture = new Capture(
      rows,
      this.buffer,
      (walEnd) => this.replyRequested(walEnd),
      (what, { schema, name }) => this.passOver(`${what} of ${schema}.${name}`),
    )
    this.coalescing = new ReadCoalescing((resting) => {
      this.resting = resting
      this.applyReading()
    })
  }

  /** The slot is ours. Status updates begin: what it has confirmed is known now, and may be said again. */
  own(stream: ReplicationStream, server: ServerIdentity, confirmed: Lsn, signal: AbortSignal): void {
    this.stream = stream
    this.confirmed = confirmed
    const { settings, publication } = this.deps
    this.said = { ...server, slot: settings.slot, publication, confirmed }
    if (this.failure !== undefined) return
    this.timer = setInterval(() => this.tick(), this.deps.settings.statusIntervalMs)
    // the socket keeps the process alive, and this with it
    this.timer.unref()
    if (signal.aborted) this.drain()
    else signal.addEventListener('abort', () => this.drain(), { once: true, signal: this.over.signal })
  }

  begin(epochs: readonly Epoch[]): void {
    if (this.failure !== undefined) return
    this.capture.countEpochs(epochs)
    const { early } = this
    this.early = null
    // silence while nobody listened says nothing
    this.heard = performance.now()
    for (const { buffer, start, end } of early ?? []) this.capture.message(buffer, start, end)
    this.chunkEnd()
    this.applyReading()
  }

  get identity(): SourceIdentity {
    if (this.said === undefined) throw new MillraceError('MILLRACE_INTERNAL', 'the session has not begun')
    return this.said
  }

  get wantsConfirm(): boolean {
    return this.uncovered !== undefined
  }

  get walEnd(): Lsn {
    return this.capture.walEnd
  }

  get heardAt(): number {
    return this.heardAtWall
  }

  next(limit: Limit): Promise<ChangeBatch | null> {
    if (this.failure !== undefined) return Promise.reject(this.failure)
    if (this.draining) return Promise.resolve(null)
    if (this.waiter !== undefined) return Promise.reject(new MillraceError('MILLRACE_INTERNAL', 'two calls of next overlap'))
    if (this.isReady()) return Promise.resolve(this.take(limit))
    return new Promise((resolve, reject) => {
      this.waiter = { limit, resolve, reject }
    })
  }

  async intact(): Promise<void> {
    const { settings, publication, publicationNow } = this.deps
    const now = await publicationNow()
    if (now === publication) return
    throw new MillraceError(
      'MILLRACE_STREAM_BROKEN',
      `the publication ${settings.publication} ${now === null ? 'was dropped' : 'was altered'} while the relay ran`,
    )
  }

  confirm(lsn: Lsn): void {
    if (lsn <= this.confirmed) return
    if (lsn > this.given)
      throw new MillraceError(
        'MILLRACE_INTERNAL',
        `confirming ${formatLsn(lsn)}, and only ${formatLsn(this.given)} was given out`,
      )
    this.confirmed = lsn
    if (this.uncovered === undefined) return
    if (lsn >= this.uncovered.lsn) this.uncovered = undefined
    this.sayStatus(false)
  }

  close(): Promise<void> {
    this.closing ??= this.finish()
    return this.closing
  }

  // what the stream tells

  chunk(bytes: number): void {
    this.heard = performance.now()
    this.heardAtWall = this.deps.now()
    this.coalescing.read(bytes)
  }

  copyData(buffer: Buffer, start: number, end: number): void {
    if (this.closing !== undefined) return
    if (this.early === null) this.capture.message(buffer, start, end)
    else this.early.push({ buffer, start, end })
  }

  chunkEnd(): void {
    if (!this.held && this.buffer.bytes >= this.deps.settings.bufferBytes) {
      this.held = true
      this.applyReading()
    }
    this.give()
  }

  ended(error: MillraceError): void {
    if (this.failure !== undefined || this.closing !== undefined) return
    this.failure = error
    this.stop()
    this.waiter?.reject(error)
    this.waiter = undefined
  }

  private isReady(): boolean {
    if (this.buffer.hasChanges) return true
    const end = this.buffer.endWaiting
    if (end !== 'of a keepalive') return end !== null
    return this.wantsConfirm || performance.now() - this.idleEndAt >= IDLE_END_INTERVAL
  }

  private give(): void {
    const { waiter } = this
    if (waiter === undefined || !this.isReady()) return
    this.waiter = undefined
    waiter.resolve(this.take(waiter.limit))
  }

  private take(limit: Limit): ChangeBatch {
    const batch = this.buffer.take(limit)
    if (batch.end !== null) this.given = batch.end
    if (batch.changes.length === 0) this.idleEndAt = performance.now()
    if (this.held && this.buffer.bytes <= this.deps.settings.bufferBytes / 2) {
      this.held = false
      // silence while nobody listened says nothing
      this.heard = performance.now()
      this.applyReading()
    }
    return batch
  }

  private applyReading(): void {
    if (this.held || this.resting || this.draining) this.stream?.pause()
    else this.stream?.resume()
  }

  /**
   * The server asks whether we live, or shuts down and wants to hear that all it sent is durable. It asks again after
   * each answer, so only the first one is answered at once; the rest is the timer's. Inside a transaction nothing more
   * can be confirmed yet, so no deadline begins.
   */
  private replyRequested(walEnd: Lsn): void {
    if (this.uncovered === undefined) this.sayStatus(false)
    if (this.confirmed >= walEnd || this.capture.inTransaction) return
    this.uncovered = { lsn: walEnd, since: this.uncovered?.since ?? performance.now() }
  }

  private tick(): void {
    const now = performance.now()
    const silent = now - this.heard
    const late = this.lateness(now, silent)
    if (late !== null) {
      this.ended(new MillraceError('MILLRACE_STREAM_BROKEN', late))
      this.stream?.destroy()
      return
    }
    const ping = silent >= PING_AFTER && now - this.pinged >= PING_AFTER
    if (ping) this.pinged = now
    this.sayStatus(ping)
    this.give()
  }

  private sayStatus(ping: boolean): void {
    if (this.said !== undefined) this.stream?.write(statusUpdate(this.confirmed, this.deps.now(), ping))
  }

  /** Why the session should not go on, if it should not. */
  private lateness(now: number, silent: number): string | null {
    const { uncovered } = this
    if (uncovered !== undefined && now - uncovered.since >= UNCOVERED_DEADLINE)
      return `the server asked for a reply that covers ${formatLsn(uncovered.lsn)}, and nothing confirmed it in time: it may be shutting down`
    if (this.early === null && !this.held && !this.draining && silent >= SILENT_DEADLINE)
      return `nothing was heard of the server for ${Math.round(silent / 1_000)} s`
    return null
  }

  private passOver(what: string): void {
    if (this.passedOver.has(what)) return
    this.passedOver.add(what)
    const { log, settings } = this.deps
    log.warn(
      { publication: settings.publication },
      `the publication ${settings.publication} sends ${what}, which are no events and are passed over: it must publish nothing but inserts into the outbox (millrace check says how)`,
    )
  }

  private drain(): void {
    if (this.draining) return
    this.draining = true
    this.applyReading()
    this.waiter?.resolve(null)
    this.waiter = undefined
  }

  private stop(): void {
    this.coalescing.stop()
    clearInterval(this.timer)
    this.over.abort()
    this.buffer.clear()
  }

  /** Says the last confirmed LSN, waits until the slot shows it, ends the stream, waits until the slot is free. */
  private async finish(): Promise<void> {
    if (this.failure !== undefined) return
    this.drain()
    const { stream } = this
    if (stream === undefined) return
    this.sayStatus(false)
    const { confirmed } = this
    const shown = await this.slotShows((slot) => slot.confirmed >= confirmed)
    if (!shown)
      this.deps.log.warn(
        { confirmed: formatLsn(confirmed) },
        'the slot did not show the confirmed LSN before the stream was closed',
      )
    this.stop()
    await stream.end(COPY_DONE)
    await this.slotShows((slot) => !slot.active)
  }

  private async slotShows(condition: (slot: { readonly confirmed: Lsn; readonly active: boolean }) => boolean): Promise<boolean> {
    const deadline = performance.now() + CLOSE_DEADLINE
    try {
      do {
        const slot = await this.deps.slot()
        if (slot === null) return false
        if (condition(slot)) return true
        await new Promise((resolve) => setTimeout(resolve, CLOSE_POLL))
      } while (performance.now() < deadline)
    } catch (error) {
      this.deps.log.debug({ error: (error as Error).message }, 'the slot could not be looked at while closing')
    }
    return false
  }
}
