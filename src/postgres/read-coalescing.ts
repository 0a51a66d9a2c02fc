/** consecutive turns that came without a wait before reading rests for the first time */
const STREAK = 64
/** a turn belongs to the streak when it came this soon after the one before (ms) */
const GAP = 0.3
/** a turn that brought this much is worth its wake-up: no rest (bytes) */
const ENOUGH = 1 << 20
const REST = 4

export interface CoalescingClock {
  /** ms, monotonic */
  now(): number
}

/**
 * Leaves the socket alone for 4 ms at a time while it is busy, so that the kernel gathers what the walsender sends row
 * by row: a reader that wakes for every send costs the *server* 2 to 5 µs a row (PERFORMANCE 1, 6.2). Latency does not
 * suffer: a streak of 64 waits shorter than 0.3 ms happens under load only.
 *
 * Decided once per turn of the event loop, not per 'data' event: over TLS there is one event per row.
 */
export class ReadCoalescing {
  private readonly rest: (resting: boolean) => void
  private readonly clock: CoalescingClock
  private streak = 0
  private turnOpen = false
  private turnBytes = 0
  private turnEndedAt = 0
  private timer: NodeJS.Timeout | undefined
  private stopped = false

  /** @param rest told to stop reading, and to read again */
  constructor(rest: (resting: boolean) => void, clock: CoalescingClock = performance) {
    this.rest = rest
    this.clock = clock
  }

  /** Call at every 'data' event. */
  read(bytes: number): void {
    this.turnBytes += bytes
    if (this.turnOpen) return
    this.turnOpen = true
    this.streak = this.clock.now() - this.turnEndedAt < GAP ? this.streak + 1 : 0
    setImmediate(this.endTurn)
  }

  stop(): void {
    this.stopped = true
    clearTimeout(this.timer)
  }

  private readonly endTurn = (): void => {
    const bytes = this.turnBytes
    this.turnOpen = false
    this.turnBytes = 0
    if (this.stopped) return
    this.turnEndedAt = this.clock.now()
    if (this.streak < STREAK || bytes >= ENOUGH || this.timer !== undefined) return
    this.rest(true)
    this.timer = setTimeout(this.wake, REST)
  }

  private readonly wake = (): void => {
    this.timer = undefined
    this.turnEndedAt = this.clock.now()
    if (!this.stopped) this.rest(false)
  }
}
