import type { Dice } from './dice.ts'
import type { Process } from './process.ts'
import type { Scheduler } from './scheduler.ts'

export type Service = 'postgres' | 'queue' | 'sink'

/** What becomes of one request. `happens` without an answer is the unknown outcome that everything turns on. */
export interface Mishap {
  readonly to: Service
  /** what is asked for; null: whatever comes first */
  readonly op: string | null
  /** the process that asks; null: whoever comes first */
  readonly from: string | null
  /** ms until it arrives */
  readonly delay: number
  readonly happens: boolean
  /** `none`: the asker gives up after its time-out; `error`: the connection breaks at once */
  readonly answer: 'given' | 'error' | 'none'
}

/** who waits for something to change at a service */
export class Bell {
  #waiting: (() => void)[] = []

  wait(run: () => void): void {
    this.#waiting.push(run)
  }

  ring(): void {
    if (this.#waiting.length === 0) return
    const waiting = this.#waiting
    this.#waiting = []
    for (const run of waiting) run()
  }
}

export const NOT_YET = Symbol('not yet')

interface Request<T> {
  readonly to: Service
  readonly op: string
  /** at the service, at once and whole; with a bell it may say that there is nothing to answer yet */
  readonly serve: () => T | typeof NOT_YET
  readonly bell?: () => Bell | undefined
  /** what the asker sees when no answer comes */
  readonly unknown: () => Error
  /** given up by the asker: resolves to this */
  readonly signal?: AbortSignal
  readonly aborted?: T
}

/** how long an asker waits for an answer (ms) */
export const PATIENCE = 3_000

export class Network {
  readonly #scheduler: Scheduler
  readonly #dice: Dice
  readonly #armed = new Set<Mishap>()
  readonly #downUntil = new Map<Service, number>()
  /** faults that struck */
  struck = 0

  constructor(scheduler: Scheduler, dice: Dice) {
    this.#scheduler = scheduler
    this.#dice = dice
  }

  arm(mishap: Mishap): void {
    this.#armed.add(mishap)
  }

  down(service: Service, ms: number): void {
    this.#downUntil.set(service, Math.max(this.#downUntil.get(service) ?? 0, this.#scheduler.now + ms))
  }

  isDown(service: Service): boolean {
    return (this.#downUntil.get(service) ?? 0) > this.#scheduler.now
  }

  heal(): void {
    this.#armed.clear()
    this.#downUntil.clear()
  }

  latency(label: string): number {
    const roll = this.#dice.roll(label)
    return roll < 0.9 ? 0.2 + roll * 8 : roll < 0.985 ? 20 + (roll - 0.9) * 1_500 : 200 + (roll - 0.985) * 60_000
  }

  request<T>(from: Process, request: Request<T>): Promise<T> {
    const scheduler = this.#scheduler
    const { op, to, signal } = request
    scheduler.counted(from.name)
    if (!from.alive) return new Promise(() => {})
    if (signal?.aborted) return Promise.resolve(request.aborted as T)
    const label = `${from.name} ${op}`
    return new Promise((resolve, reject) => {
      const mishap = this.#strike(from, request)
      let settled = false
      const settle = (run: () => void): void =>
        from.reach(() => {
          if (settled) return
          settled = true
          signal?.removeEventListener('abort', abort)
          run()
        })
      const abort = (): void => settle(() => resolve(request.aborted as T))
      signal?.addEventListener('abort', abort, { once: true })
      const refuse = (): void => settle(() => reject(request.unknown()))
      const answered = mishap?.answer ?? 'given'

      const arrive = (): void => {
        if (settled && request.bell !== undefined) return
        // what a process had not handed to its kernel when it died goes nowhere
        if (!from.alive && (request.bell !== undefined || this.#dice.chance(0.3, `${label} unsent`))) return
        if (this.isDown(to)) {
          scheduler.after(this.latency(label), `${label} refused`, refuse)
          return
        }
        if (mishap?.happens === false) {
          if (answered === 'error') scheduler.after(this.latency(label), `${label} refused`, refuse)
          return
        }
        let respond: () => void
        try {
          const value = request.serve()
          if (value === NOT_YET) {
            request.bell?.()?.wait(() => scheduler.after(0.1, label, arrive))
            return
          }
          respond = () => settle(() => resolve(value as T))
        } catch (error) {
          respond = () => settle(() => reject(error))
        }
        if (answered === 'none') return
        scheduler.after(this.latency(label), `${label} answered`, answered === 'error' ? refuse : respond)
      }
      if (mishap !== null) scheduler.after(PATIENCE, `${label} given up`, refuse)
      scheduler.after(mishap?.delay ?? this.latency(label), label, arrive)
    })
  }

  #strike<T>(from: Process, { to, op }: Request<T>): Mishap | null {
    for (const mishap of this.#armed) {
      if (mishap.to !== to || (mishap.op !== null && mishap.op !== op)) continue
      if (mishap.from !== null && mishap.from !== from.name) continue
      this.#armed.delete(mishap)
      this.struck++
      this.#scheduler.say(`fault: ${describeMishap(mishap)} strikes ${from.name}'s ${op}`)
      return mishap
    }
    return null
  }
}

export function describeMishap({ to, op, from, delay, happens, answer }: Mishap): string {
  const what = `the next ${op === null ? `request to ${to}` : `'${op}'`}${from === null ? '' : ` of ${from}`}`
  const when = delay > PATIENCE ? `arrives ${seconds(delay)} late, after it was given up` : `takes ${seconds(delay)}`
  if (!happens) return `${what} is ${answer === 'error' ? 'refused' : 'lost on the way'}`
  if (answer === 'given') return `${what} ${when}`
  return `${what} ${when}, its reply is ${answer === 'error' ? 'a broken connection' : 'lost'}`
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(2)} s`
