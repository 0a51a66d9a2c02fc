import { setTimeout as wait } from 'node:timers/promises'
import { MillraceError } from '../core/errors.ts'
import type { Queue } from '../core/queue.ts'
import type { Failpoint } from '../pipeline/failpoint.ts'
import type { ParsedConfig } from './config-schema.ts'
import { openQueue, type Surroundings } from './open.ts'
import { startRelayRole } from './relay-role.ts'
import { patiently, type RoleContext } from './role.ts'
import { startSinkRole } from './sink-role.ts'
import { watchSlot } from './slot-watch.ts'
import { emptyStatus, relayReport, type StatusReport } from './status.ts'

/** Which roles a process plays. */
export interface Roles {
  readonly relay: boolean
  readonly sinks: readonly string[]
}

/** A pipeline at work in this process. */
export interface Running {
  status(): Promise<StatusReport>
  /** every role is at work: a standby is, and so is a sink of which some partitions are halted */
  ready(): boolean
  /** whether `done` is settled */
  readonly ended: boolean
  /**
   * Resolves when stopped. Rejects when the relay, or every role there is, is halted: nothing goes on here before a
   * person has decided. A halted sink beside others that flow stays as it is, and shows in status and metrics.
   */
  readonly done: Promise<void>
  /**
   * Drains: what is under way is published, applied and recorded, then the slot and the partitions are given back.
   * @param deadline ms
   * @throws MILLRACE_DRAIN_TIMEOUT when the deadline passed first; nothing is lost then either
   */
  stop(deadline?: number): Promise<void>
}

/** below the 30 s that Kubernetes gives a process to end */
export const DRAIN_DEADLINE = 25_000

export function startRoles(
  config: ParsedConfig,
  roles: Roles,
  around: Surroundings,
  failpoint?: (name: Failpoint) => Promise<void> | void,
): Running {
  const stopping = new AbortController()
  const { signal } = stopping
  const opened: { close(): Promise<void> }[] = []
  let queue: Promise<Queue> | undefined
  const context: RoleContext = {
    config,
    around,
    signal,
    keep(one) {
      opened.push(one)
      return one
    },
    queue() {
      queue ??= patiently('the queue', { ...around, signal }, () => openQueue(config, around)).then(context.keep)
      return queue
    },
  }
  const relay = roles.relay ? startRelayRole({ ...context, failpoint }) : null
  const sinks = roles.sinks.map((name) => startSinkRole(name, context))

  const slots = watchSlot(() => relay?.source() ?? null, around.clock.now)

  async function untilHalted(): Promise<void> {
    const ends = await Promise.allSettled([...(relay === null ? [] : [relay]), ...sinks].map((role) => role.done))
    const halted = ends.filter((end) => end.status === 'rejected')
    if (halted.length > 0 && halted.length === ends.length) throw halted[0]?.reason
  }

  async function run(): Promise<void> {
    try {
      await Promise.all([relay?.done, untilHalted()])
    } finally {
      stopping.abort()
      // after a halt nobody else bounds the drain of the others
      await Promise.race([ended(), wait(DRAIN_DEADLINE, undefined, { ref: false })])
    }
  }

  async function ended(): Promise<void> {
    await Promise.allSettled([relay?.done, ...sinks.map((sink) => sink.done)])
    await Promise.allSettled(opened.map((one) => one.close()))
  }

  let settled = false
  const done = run().finally(() => {
    settled = true
  })
  done.catch(() => {})
  return {
    done,
    get ended() {
      return settled
    },
    ready: () => !signal.aborted && (relay?.ready() ?? true) && sinks.every((sink) => sink.ready()),
    async status() {
      const { slot, gaps, problem } = await slots.look()
      return {
        ...emptyStatus(config.name),
        slot,
        gaps,
        problems: problem === null ? [] : [problem],
        relay: relay === null ? null : relayReport(relay.status()),
        sinks: await Promise.all(sinks.map((sink) => sink.report(relay?.status() ?? null))),
      }
    },
    async stop(deadline = DRAIN_DEADLINE) {
      stopping.abort()
      const timer = new AbortController()
      const late = wait(deadline, true, { signal: timer.signal }).catch(() => false)
      const drained = done.then(
        () => false,
        () => false,
      )
      if (await Promise.race([drained, late]))
        throw new MillraceError(
          'MILLRACE_DRAIN_TIMEOUT',
          `the pipeline ${config.name} had not drained after ${Math.round(deadline)} ms`,
          {
            remedy: 'nothing is lost: what was under way comes again at the next start',
          },
        )
      timer.abort()
    },
  }
}
