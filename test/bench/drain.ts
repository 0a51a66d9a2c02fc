import { setTimeout as wait } from 'node:timers/promises'
import { type ProcessUsage, processUsage } from './process-usage.ts'

/** A process under test, by what it does. */
export interface Tested {
  readonly role: string
  readonly pid: number
}

export interface Drain {
  readonly perSecond: number
  /** of the second half alone: compilers, ours and the JVM's, are through with most of their work by then */
  readonly warmPerSecond: number
  /** by role */
  readonly used: ReadonlyMap<string, RoleUsage>
}

export interface RoleUsage {
  readonly cpuSecondsPerMillion: number
  readonly peakRssBytes: number
}

export interface DrainWatch {
  readonly tested: readonly Tested[]
  /** how many are in the queue; 0 before the first. Asked each 5 ms until then */
  readonly begun: () => Promise<number>
  /** how many are where they belong, at the least; `total` only when all are. Asked each 25 ms */
  readonly through: () => Promise<number>
  readonly total: number
  /** throws when a process under test has failed */
  readonly assertAlive: () => Promise<void>
}

const PATIENCE_MS = 120_000

/**
 * Times a drain from the first record in the queue to the last where it belongs, so that no start-up counts, neither a
 * JVM's nor ours. CPU counts over the same span; memory is the peak since the process began.
 */
export async function timeDrain(watch: DrainWatch): Promise<Drain> {
  const { tested, total } = watch
  const patience = new Patience(watch)
  while ((await watch.begun()) === 0) {
    await patience.spend(0)
    await wait(5)
  }
  const start = performance.now()
  const before = await watch.through()
  const usedBefore = tested.map(({ pid }) => processUsage(pid))
  let half: { readonly at: number; readonly count: number } | undefined
  for (let count = before; count < total; count = await watch.through()) {
    if (count >= total / 2) half ??= { at: performance.now(), count }
    await patience.spend(count)
    await wait(25)
  }
  const end = performance.now()
  const events = total - before
  const perSecond = (events / (end - start)) * 1_000
  return {
    perSecond,
    warmPerSecond: half === undefined ? perSecond : ((total - half.count) / (end - half.at)) * 1_000,
    used: new Map(tested.map(({ role, pid }, index) => [role, roleUsage(usedBefore[index], processUsage(pid), events)])),
  }
}

/** Lasts as long as the count grows and the processes live. */
class Patience {
  readonly #watch: DrainWatch
  #last = 0
  #grewAt = Date.now()
  #askedAt = Date.now()

  constructor(watch: DrainWatch) {
    this.#watch = watch
  }

  async spend(count: number): Promise<void> {
    const now = Date.now()
    if (count > this.#last) this.#grewAt = now
    this.#last = count
    if (now - this.#askedAt > 2_000) {
      this.#askedAt = now
      await this.#watch.assertAlive()
    }
    if (now - this.#grewAt > PATIENCE_MS)
      throw new Error(`for ${PATIENCE_MS / 1_000} s it has stood at ${count} of ${this.#watch.total}`)
  }
}

function roleUsage(before: ProcessUsage | undefined, after: ProcessUsage, events: number): RoleUsage {
  const cpuSeconds = after.cpuSeconds - (before?.cpuSeconds ?? 0)
  return { cpuSecondsPerMillion: (cpuSeconds / events) * 1e6, peakRssBytes: after.peakRssBytes }
}
