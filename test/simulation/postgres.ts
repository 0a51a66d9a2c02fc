import type { Change, ChangeBatch } from '../../src/core/change.ts'
import { type Epoch, epochAt } from '../../src/core/epoch.ts'
import { MillraceError } from '../../src/core/errors.ts'
import { type Lsn, type Position, positionAt, positionPrefix } from '../../src/core/position.ts'
import type { Source, SourceIdentity, SourceSession } from '../../src/core/source.ts'
import type { Dice } from './dice.ts'
import { Bell, type Network, NOT_YET } from './network.ts'
import type { Process } from './process.ts'
import type { Row } from './schedule.ts'
import type { Scheduler } from './scheduler.ts'

export const SOURCE = 'shop'

/** A transaction as the WAL holds it. */
export interface Commit {
  readonly commitLsn: Lsn
  readonly endLsn: Lsn
  readonly committedAt: number
  readonly rows: readonly Row[]
}

interface Slot {
  /** what Postgres knows, and what of it a crash leaves */
  confirmed: Lsn
  persisted: Lsn
}

/** The server's end of a replication connection. It owns the slot while it lives. */
interface WalSender {
  readonly owner: Process
  alive: boolean
  /** the next change to send */
  commit: number
  row: number
}

/** ms */
const STATUS_INTERVAL = 1_000

/**
 * The source's server: a WAL of commits, one slot, and what the contract in `core/source.ts` says of them. A confirm is
 * durable only at the next checkpoint, and delivery begins with the first commit at or above the confirmed LSN.
 */
export class Postgres {
  readonly #scheduler: Scheduler
  readonly #network: Network
  readonly #dice: Dice
  readonly #confirmedTo: (lsn: Lsn) => void
  readonly wal: Commit[] = []
  insertLsn: Lsn = 0x1_5000_000n
  slot: Slot | null
  publication = 'publication 1'
  timeline = 1
  /** the timelines that were left, each with the LSN at which it was */
  readonly history: { readonly timeline: number; readonly end: Lsn }[] = []
  copy: string | null = null
  #timelines = 1
  #sender: WalSender | null = null
  readonly #news = new Bell()
  /** of one `next`, at most: a transaction often spans several */
  readonly #maxChanges: number

  constructor(options: {
    readonly scheduler: Scheduler
    readonly network: Network
    readonly dice: Dice
    readonly maxChanges: number
    readonly confirmed: (lsn: Lsn) => void
  }) {
    this.#scheduler = options.scheduler
    this.#network = options.network
    this.#dice = options.dice
    this.#confirmedTo = options.confirmed
    this.#maxChanges = options.maxChanges
    this.slot = { confirmed: this.insertLsn, persisted: this.insertLsn }
  }

  commit(rows: readonly Row[], backToBack: boolean): Commit {
    // the rows of a transaction that was open while another committed stand before that one's commit record
    if (!backToBack) this.insertLsn += BigInt(0x40 * rows.length + 0x18)
    const commit = {
      commitLsn: this.insertLsn,
      endLsn: this.insertLsn + 0x30n,
      committedAt: Math.floor(1_767_225_600_000 + this.#scheduler.now + this.#dice.between(-3_000, 3_000, 'commit clock')),
      rows,
    }
    this.insertLsn = commit.endLsn
    this.wal.push(commit)
    this.#news.ring()
    return commit
  }

  /** what the outbox's publication does not carry */
  write(bytes: number): void {
    this.insertLsn += BigInt(bytes)
    this.#news.ring()
  }

  checkpoint(): void {
    if (this.slot !== null) this.slot.persisted = this.slot.confirmed
  }

  /** immediate stop: what was confirmed since the last checkpoint is forgotten */
  crash(downMs: number): void {
    if (this.slot !== null) this.slot.confirmed = this.slot.persisted
    this.breakStream()
    this.#network.down('postgres', downMs)
  }

  restart(downMs: number): void {
    this.checkpoint()
    this.breakStream()
    this.#network.down('postgres', downMs)
  }

  /**
   * A standby takes over, on a timeline of its own: it has the slot as of the last checkpoint, and lacks the last commits
   * if it lagged. @returns what is lost with the old primary
   */
  promote(lagging: number, downMs: number): readonly Commit[] {
    this.breakStream()
    this.#network.down('postgres', downMs)
    const lost = lagging === 0 ? [] : this.wal.splice(-lagging)
    const end = lost[0]?.commitLsn ?? this.insertLsn
    // one that lagged so far that it has not heard of a former promotion branches off before it
    let left = this.timeline
    while (this.history.length > 0 && (this.history.at(-1)?.end as Lsn) > end) left = this.history.pop()?.timeline as number
    this.history.push({ timeline: left, end })
    this.timeline = ++this.#timelines
    this.insertLsn = end
    if (this.slot !== null) {
      let synced = this.slot.persisted
      if (synced > end) synced = end
      this.slot = { confirmed: synced, persisted: synced }
    }
    return lost
  }

  breakStream(): void {
    if (this.#sender !== null) this.#sender.alive = false
    this.#sender = null
    this.#news.ring()
  }

  /** the process that owned the slot fell silent: noticed at once, or by `wal_sender_timeout` */
  silent(owner: Process, afterMs: number): void {
    const sender = this.#sender
    if (sender?.owner !== owner) return
    this.#scheduler.after(afterMs, 'walsender ends', () => {
      if (sender === this.#sender && (!owner.alive || owner.stopped)) this.breakStream()
    })
  }

  holdsSlot(process: Process): boolean {
    return this.#sender?.owner === process
  }

  /** by somebody else: nothing may be lost without a word */
  dropSlot(): void {
    this.breakStream()
    this.slot = null
  }

  recreateSlot(): void {
    this.breakStream()
    this.slot = { confirmed: this.insertLsn, persisted: this.insertLsn }
  }

  source(of: Process): Source {
    const ask = <T>(op: string, serve: () => T): Promise<T> =>
      this.#network.request(of, { to: 'postgres', op, serve, unknown: unreachable })
    return {
      name: SOURCE,
      check: async () => [],
      open: async ({ signal }) => {
        const { sender, identity } = await this.#begin(of)
        return this.#session(of, sender, identity, signal)
      },
      stateCopy: {
        read: () => ask('copy read', () => this.copy),
        write: (state, over) =>
          ask('copy write', () => {
            if (over !== undefined && over !== this.copy) return false
            this.copy = state
            this.write(0x200)
            return true
          }),
      },
    }
  }

  identity({ confirmed }: { readonly confirmed: Lsn }): SourceIdentity {
    const { timeline, publication } = this
    return {
      systemId: '7000000000000000001',
      timeline,
      history: [...this.history],
      walEnd: this.insertLsn,
      slot: 'millrace_shop',
      publication,
      confirmed,
    }
  }

  async #begin(of: Process): Promise<{ readonly sender: WalSender; readonly identity: SourceIdentity }> {
    let opened: WalSender | null = null
    let gaveUp = false
    try {
      return await this.#network.request(of, {
        to: 'postgres',
        op: 'open',
        unknown: unreachable,
        serve: () => {
          const { slot } = this
          if (slot === null) throw new MillraceError('MILLRACE_SLOT_MISSING', 'the slot is gone')
          if (this.#sender !== null)
            throw new MillraceError('MILLRACE_SLOT_IN_USE', `the slot is in the hands of ${this.#sender.owner.name}`)
          const commit = this.wal.findIndex(({ commitLsn }) => commitLsn >= slot.confirmed)
          const sender = { owner: of, alive: true, commit: commit === -1 ? this.wal.length : commit, row: 0 }
          this.#sender = sender
          opened = sender
          // nobody is there any more to take what it sends
          if (gaveUp || !of.alive) this.#end(sender, 500)
          return { sender, identity: this.identity(slot) }
        },
      })
    } catch (error) {
      // its connection is closed with it
      gaveUp = true
      if (opened !== null) this.#end(opened, 0)
      throw error
    }
  }

  #end(sender: WalSender, afterMs: number): void {
    this.#scheduler.after(afterMs, 'walsender ends', () => {
      if (sender === this.#sender) this.breakStream()
    })
  }

  #session(of: Process, sender: WalSender, identity: SourceIdentity, signal: AbortSignal): SourceSession {
    let said = identity.confirmed
    let given = identity.confirmed
    let idleEndAt = Number.NEGATIVE_INFINITY
    let endOwed: Lsn | null = null
    let failed: Error | null = null
    let epochs: readonly Epoch[] = []
    const label = `${of.name} stream`

    const take = (): ChangeBatch | typeof NOT_YET => {
      if (!sender.alive) throw broken()
      const changes: Change[] = []
      let end = endOwed
      endOwed = null
      const most = 1 + this.#dice.below(this.#maxChanges, label)
      while (changes.length < most && sender.commit < this.wal.length) {
        const commit = this.wal[sender.commit] as Commit
        const prefix = positionPrefix(epochAt(epochs, commit.commitLsn), commit.commitLsn)
        while (changes.length < most && sender.row < commit.rows.length) {
          changes.push(changeOf(commit, commit.rows[sender.row] as Row, positionAt(prefix, sender.row + 1)))
          sender.row++
        }
        if (sender.row < commit.rows.length) break
        sender.commit++
        sender.row = 0
        // the last row may be read before the commit message that follows it
        if (changes.length > 0 && this.#dice.chance(0.1, label)) {
          endOwed = commit.endLsn
          break
        }
        end = commit.endLsn
      }
      if (changes.length === 0 && end === null) {
        if (endOwed !== null || this.insertLsn <= given || sender.commit < this.wal.length) return NOT_YET
        const due = idleEndAt + 1_000 - this.#scheduler.now
        if (due > 0) {
          this.#scheduler.after(due, label, () => this.#news.ring())
          return NOT_YET
        }
        idleEndAt = this.#scheduler.now
        end = this.insertLsn
      }
      if (end !== null) given = end
      return { changes, bytes: changes.length * 100, end }
    }

    return {
      identity,
      begin: (told) => {
        epochs = told
      },
      next: async () => {
        if (failed !== null) throw failed
        try {
          return await this.#network.request<ChangeBatch | null>(of, {
            to: 'postgres',
            op: 'next',
            serve: take,
            bell: () => this.#news,
            unknown: broken,
            signal,
            aborted: null,
          })
        } catch (error) {
          failed = error as Error
          throw error
        }
      },
      intact: () =>
        this.#network.request(of, {
          to: 'postgres',
          op: 'intact',
          unknown: broken,
          serve: () => {
            if (this.publication !== identity.publication) throw broken()
          },
        }),
      confirm: (lsn) => {
        if (lsn <= said) return
        said = lsn
        // the status timer says it, and a network brings it
        this.#scheduler.after(this.#dice.between(0, 200, label), `${label} status`, () =>
          of.reach(() => {
            this.#scheduler.after(this.#network.latency(label), `${label} confirm`, () => this.#told(sender, lsn, label))
          }),
        )
      },
      wantsConfirm: false,
      get walEnd() {
        return given
      },
      heardAt: of.clock.now(),
      close: () =>
        this.#network
          .request(of, {
            to: 'postgres',
            op: 'close',
            unknown: broken,
            serve: () => {
              this.#confirm(sender, said)
              if (sender === this.#sender) this.breakStream()
            },
          })
          .catch(() => {
            // the server sees the connection go, sooner or later
            this.#end(sender, this.#network.latency(label))
          }),
    }
  }

  /** What does not reach the server is said again by the next status. */
  #told(sender: WalSender, lsn: Lsn, label: string): void {
    if (sender.alive && this.#network.isDown('postgres'))
      this.#scheduler.after(STATUS_INTERVAL, `${label} status`, () => this.#told(sender, lsn, label))
    else this.#confirm(sender, lsn)
  }

  #confirm(sender: WalSender, lsn: Lsn): void {
    if (!sender.alive || this.slot === null || lsn <= this.slot.confirmed || this.#network.isDown('postgres')) return
    this.slot.confirmed = lsn
    if (this.#dice.chance(0.2, 'slot persisted')) this.slot.persisted = lsn
    this.#confirmedTo(lsn)
  }
}

function changeOf(commit: Commit, row: Row, position: Position): Change {
  return {
    position,
    committedAt: commit.committedAt,
    id: position,
    aggregateType: row.aggregate,
    aggregateId: utf8(row.key),
    type: row.type,
    payload: row.payload === null ? null : utf8(row.payload),
    headers: row.headers,
    orderingKey: row.orderingKey === null ? null : utf8(row.orderingKey),
    version: '1',
    fault: null,
    bytes: 100 + (row.payload?.length ?? 0),
  }
}

const encoder = new TextEncoder()
export const utf8 = (text: string): Uint8Array => encoder.encode(text)

const unreachable = () => new MillraceError('MILLRACE_SOURCE_UNREACHABLE', 'Postgres cannot be reached')
const broken = () => new MillraceError('MILLRACE_STREAM_BROKEN', 'the replication stream broke')
