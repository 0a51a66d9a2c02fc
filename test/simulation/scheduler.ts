import { hashOf } from './dice.ts'

/**
 * Virtual time: what happens next is what is due next, and nothing else happens. Between two events every promise that
 * can go on does so, until all processes wait for something that only a later event gives.
 */
export class Scheduler {
  /** ms */
  now = 0
  /** of everything that happened, in order: two runs of one schedule must agree */
  hash = 0
  /** null: nobody reads it */
  readonly trace: string[] | null
  #sequence = 0
  #calls = 0
  readonly #heap: Due[] = []

  constructor(traced: boolean) {
    this.trace = traced ? [] : null
  }

  after(ms: number, what: string, run: () => void): Due {
    const due: Due = { at: this.now + ms, sequence: this.#sequence++, what, run }
    push(this.#heap, due)
    return due
  }

  /** Takes the next event; false when there is none up to the time. */
  async step(until: number): Promise<boolean> {
    for (;;) {
      const next = this.#heap[0]
      if (next === undefined || next.at > until) return false
      pop(this.#heap)
      const { run } = next
      if (run === null) continue
      this.now = next.at
      this.#calls = 0
      this.hash = hashOf(next.what, Math.imul(this.hash, 31) + Math.floor(next.at * 1_000))
      run()
      await quiet()
      return true
    }
  }

  /** a line for the reader of a failed schedule */
  say(line: string): void {
    this.trace?.push(`${(this.now / 1_000).toFixed(3).padStart(9)}  ${line}`)
  }

  /** A loop that never waits would hang us: called by whatever a process can wait for. */
  counted(who: string): void {
    if (++this.#calls > 20_000) throw new Error(`${who} spins: 20,000 calls and no time has passed`)
  }
}

export interface Due {
  readonly at: number
  readonly sequence: number
  readonly what: string
  /** null: cancelled */
  run: (() => void) | null
}

/** Node runs every microtask, and those that they queue, before the next immediate. */
export const quiet = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

const before = (a: Due, b: Due): boolean => a.at < b.at || (a.at === b.at && a.sequence < b.sequence)

function push(heap: Due[], due: Due): void {
  let i = heap.push(due) - 1
  while (i > 0) {
    const parent = (i - 1) >> 1
    if (before(heap[parent] as Due, due)) break
    heap[i] = heap[parent] as Due
    i = parent
  }
  heap[i] = due
}

function pop(heap: Due[]): void {
  const last = heap.pop() as Due
  if (heap.length === 0) return
  let i = 0
  for (;;) {
    let child = 2 * i + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && before(heap[child + 1] as Due, heap[child] as Due)) child++
    if (before(last, heap[child] as Due)) break
    heap[i] = heap[child] as Due
    i = child
  }
  heap[i] = last
}
