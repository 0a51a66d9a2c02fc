import { setTimeout as wait } from 'node:timers/promises'

export interface Patience {
  /** ms */
  readonly within?: number
  /** completes the sentence "it was expected that …" */
  readonly what: string
}

/**
 * Waits until the check gives something other than undefined or false, and resolves with it. A check that throws has not
 * succeeded yet; what it threw last is the failure's cause. For conditions that tell nobody of themselves: where there is
 * an event or a promise, wait for that.
 */
export async function eventually<T>(
  check: () => Promise<T | undefined | false> | T | undefined | false,
  { within = 10_000, what }: Patience,
): Promise<T> {
  const deadline = performance.now() + within
  for (;;) {
    let cause: unknown
    try {
      const found = await check()
      if (found !== undefined && found !== false) return found
    } catch (error) {
      cause = error
    }
    if (performance.now() > deadline)
      throw new Error(`it was expected that ${what} within ${within} ms`, cause === undefined ? undefined : { cause })
    await wait(15)
  }
}
