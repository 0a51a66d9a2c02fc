import { setTimeout as wait } from 'node:timers/promises'

/** @throws when the condition, asked ten times a second, is not met within 90 s */
export async function until(what: string, met: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 90_000
  while (!(await met())) {
    if (Date.now() > deadline) throw new Error(`not within 90 s: ${what}`)
    await wait(100)
  }
}
