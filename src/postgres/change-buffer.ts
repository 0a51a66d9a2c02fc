import type { Change, ChangeBatch } from '../core/change.ts'
import type { Lsn } from '../core/position.ts'

/** A place behind the n-th change ever added, up to which everything is complete. */
interface End {
  readonly after: number
  readonly lsn: Lsn
  /** whether changes came since the end before it: else only a keepalive moved it */
  readonly ofChanges: boolean
}

/**
 * Changes that were read and not yet taken, with the LSNs that may be confirmed once they are durable. An end is given
 * out with the batch that holds the last change before it, or by itself, never sooner.
 */
export class ChangeBuffer {
  private changes: Change[] = []
  private ends: End[] = []
  private added = 0
  private taken = 0
  private lastEnd: Lsn = 0n
  /** how many had been added at the last end */
  private ended = 0
  private held = 0

  /** of the changes that wait */
  get bytes(): number {
    return this.held
  }

  get hasChanges(): boolean {
    return this.changes.length > 0
  }

  /** what a batch without changes would have to say: the end of changes that were taken, a keepalive's, or nothing */
  get endWaiting(): 'of changes' | 'of a keepalive' | null {
    const first = this.ends[0]
    if (first === undefined || first.after > this.taken) return null
    return first.ofChanges ? 'of changes' : 'of a keepalive'
  }

  add(change: Change): void {
    this.changes.push(change)
    this.added++
    this.held += change.bytes
  }

  /** Everything added so far is complete up to `lsn`. One that does not advance is not news. */
  complete(lsn: Lsn): void {
    if (lsn <= this.lastEnd) return
    this.lastEnd = lsn
    const last = this.ends.at(-1)
    const ofChanges = this.added > this.ended
    this.ended = this.added
    if (last === undefined || last.after < this.added) this.ends.push({ after: this.added, lsn, ofChanges })
    else this.ends[this.ends.length - 1] = { ...last, lsn }
  }

  /** At most `maxChanges`, and of about `maxBytes`; one at least, where there is one. */
  take(limit: { readonly maxChanges: number; readonly maxBytes: number }): ChangeBatch {
    const { changes: waiting } = this
    let changes: Change[]
    let bytes = 0
    if (waiting.length <= limit.maxChanges && this.held <= limit.maxBytes) {
      changes = waiting
      bytes = this.held
      this.changes = []
    } else {
      let count = 0
      while (count < waiting.length && (count === 0 || (count < limit.maxChanges && bytes < limit.maxBytes)))
        bytes += (waiting[count++] as Change).bytes
      changes = waiting.splice(0, count)
    }
    this.taken += changes.length
    this.held -= bytes
    return { changes, bytes, end: this.takeEnd() }
  }

  clear(): void {
    this.changes = []
    this.ends = []
    this.held = 0
  }

  private takeEnd(): Lsn | null {
    let reached = 0
    while (reached < this.ends.length && (this.ends[reached] as End).after <= this.taken) reached++
    if (reached === 0) return null
    return (this.ends.splice(0, reached)[reached - 1] as End).lsn
  }
}
