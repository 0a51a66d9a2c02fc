import type { Tested } from './drain.ts'

/** Somebody who carries events from an outbox to the queue and, when there is a replica, on to it. */
export interface Contender {
  readonly who: string
  /** before the backlog is written: whatever keeps the WAL for it, and what it needs in the replica */
  prepare(): Promise<void>
  /** in processes of its own; those that follow the queue do so before the source begins */
  start(): Promise<Running>
}

export interface Running {
  /** where the events go */
  readonly topic: string
  readonly tested: readonly Tested[]
  assertAlive(): Promise<void>
  /** @returns the CPU profiles that were asked for, by role */
  stop(): Promise<ReadonlyMap<string, string>>
}

/** What every contender is given. */
export interface Course {
  /** names its slot, its topics and whatever else is its own */
  readonly name: string
  /** the database of the outbox */
  readonly source: string
  /** the database to follow into; without it the queue is the end */
  readonly replica?: string
}
