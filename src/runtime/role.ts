import { setTimeout as wait } from 'node:timers/promises'
import { backoff } from '../core/backoff.ts'
import type { Log } from '../core/connector.ts'
import { codeOf } from '../core/errors.ts'
import { policyFor } from '../core/policy.ts'
import type { Queue } from '../core/queue.ts'
import type { ParsedConfig } from './config-schema.ts'
import type { Surroundings } from './open.ts'

/** One thing that a process does: the relay, or one sink. */
export interface Role {
  ready(): boolean
  /** resolves when stopped, rejects when halted */
  readonly done: Promise<void>
}

/** What the roles of a process share. */
export interface RoleContext {
  readonly config: ParsedConfig
  readonly around: Surroundings
  /** opened once, by the role that needs it first */
  readonly queue: () => Promise<Queue>
  /** closes it once every role has ended */
  readonly keep: <T extends { close(): Promise<void> }>(opened: T) => T
  /** asks for a drain */
  readonly signal: AbortSignal
}

/** thrown where a role is asked to stop before it has begun */
const STOPPED = Symbol('stopped')

/**
 * Opens something, again and again while that can help: an unreachable store is waited for, for ever and with a word
 * about it; what a person must decide is thrown at once.
 */
export async function patiently<T>(
  what: string,
  { log, random, signal }: { readonly log: Log; readonly random: () => number; readonly signal: AbortSignal },
  open: () => Promise<T>,
): Promise<T> {
  for (let attempts = 1; ; attempts++) {
    if (signal.aborted) throw STOPPED
    try {
      return await open()
    } catch (error) {
      const policy = policyFor(error)
      if (policy === 'halt') throw error
      const delay = backoff(attempts, random, policy === 'retry-slowly' ? { base: 5_000, cap: 60_000 } : {})
      log.warn({ err: error, code: codeOf(error), attempts, delay }, `${what} cannot be opened; trying again`)
      await wait(delay, undefined, { signal }).catch(() => {})
    }
  }
}

/** A role's life: being asked to stop is no failure, and a halt is said once, aloud. */
export function live(name: string, log: Log, work: () => Promise<void>, halted: (error: Error) => void): Promise<void> {
  const done = work().catch((error: unknown) => {
    if (error === STOPPED) return
    halted(error as Error)
    log.error({ err: error, code: codeOf(error) }, `${name} is halted`)
    throw error
  })
  done.catch(() => {})
  return done
}
