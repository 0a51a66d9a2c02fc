import type { Clock } from '../../src/core/clock.ts'
import type { Log } from '../../src/core/connector.ts'
import type { Dice } from './dice.ts'
import type { Due, Scheduler } from './scheduler.ts'

/** the wall clock when a schedule begins: any will do */
const WALL = Date.UTC(2026, 0, 1)

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly fields: Readonly<Record<string, unknown>>
  readonly message: string
}

/**
 * One process of the pipeline. While it is stopped (SIGSTOP) nothing reaches it, and all of that does when it goes on:
 * a zombie. Once it has crashed nothing does, ever: what it waits for never comes, so no line of it runs again.
 */
export class Process {
  readonly name: string
  alive = true
  stopped = false
  /** to end: what it finds from then on it leaves to the next start */
  ending = false
  readonly clock: Clock
  readonly random: () => number
  readonly log: Log
  #held: (() => void)[] = []
  /** ms by which its wall clock is wrong */
  wallError = 0

  constructor(name: string, scheduler: Scheduler, dice: Dice, logged: (line: LogLine) => void) {
    this.name = name
    const booted = scheduler.now
    this.clock = {
      now: () => Math.floor(WALL + scheduler.now + this.wallError),
      elapsed: () => scheduler.now - booted,
      wait: (ms, signal) => {
        scheduler.counted(name)
        if (!this.alive) return new Promise(() => {})
        if (signal?.aborted) return Promise.resolve()
        return new Promise((resolve) => {
          let due: Due | null = null
          const end = (): void => {
            signal?.removeEventListener('abort', end)
            if (due !== null) due.run = null
            resolve()
          }
          due = scheduler.after(ms, name, () => this.reach(end))
          signal?.addEventListener('abort', end, { once: true })
        })
      },
    }
    this.random = () => dice.roll(`${name} random`)
    const logOf = (context: object): Log => {
      const at = (level: LogLine['level']) => (fields: object, message: string) => {
        if (this.alive) logged({ level, fields: { ...context, ...fields }, message })
      }
      return {
        debug: at('debug'),
        info: at('info'),
        warn: at('warn'),
        error: at('error'),
        child: (fields) => logOf({ ...context, ...fields }),
      }
    }
    this.log = logOf({})
  }

  /** Something comes in from outside: now, when the process goes on, or never. */
  reach(run: () => void): void {
    if (!this.alive) return
    if (this.stopped) this.#held.push(run)
    else run()
  }

  crash(): void {
    this.alive = false
    this.#held = []
  }

  goOn(): void {
    this.stopped = false
    const held = this.#held
    this.#held = []
    for (const run of held) if (this.alive) run()
  }
}
