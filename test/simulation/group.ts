import { MillraceError } from '../../src/core/errors.ts'
import type { Assignment, ConsumeOptions, Consumer, OffsetRange, StoredRecord, TopicPartition } from '../../src/core/queue.ts'
import type { Broker } from './broker.ts'
import type { Dice } from './dice.ts'
import type { Process } from './process.ts'
import type { Scheduler } from './scheduler.ts'

/** ms without a heartbeat */
const SESSION_TIMEOUT = 4_000

/** what an assignment asks of the queue in its process's name */
export interface Reading {
  join<T>(serve: () => T): Promise<T>
  range(place: TopicPartition): Promise<OffsetRange>
  read(place: TopicPartition, from: bigint, signal: AbortSignal): AsyncIterable<readonly StoredRecord[]>
}

/**
 * The coordinator of consumer groups. What it decides reaches each member in its own time, so two of them may hold one
 * partition for a while; a member that is stopped does not hear at all, and goes on with what it had when it wakes.
 */
export class Groups {
  readonly #scheduler: Scheduler
  readonly #dice: Dice
  readonly #broker: Broker
  readonly #groups = new Map<string, Member[]>()
  readonly #planned = new Set<string>()
  #turn = 0
  #turns = 0

  constructor(scheduler: Scheduler, dice: Dice, broker: Broker) {
    this.#scheduler = scheduler
    this.#dice = dice
    this.#broker = broker
  }

  async join(of: Process, options: ConsumeOptions, reading: Reading): Promise<Consumer> {
    const member = new Member(of, options.topics, reading)
    const leave = (): void => {
      member.end()
      this.#leave(options.group, member)
    }
    let gaveUp = false
    try {
      await reading.join(() => {
        // one that was taken in without hearing of it sends no heartbeats
        if (gaveUp || !of.alive) this.#scheduler.after(SESSION_TIMEOUT, 'group session ends', leave)
        const members = this.#groups.get(options.group) ?? []
        this.#groups.set(options.group, [...members, member])
        this.#plan(options.group)
      })
    } catch (error) {
      gaveUp = true
      this.#scheduler.after(SESSION_TIMEOUT, 'group session ends', leave)
      throw error
    }
    if (options.signal.aborted) leave()
    else options.signal.addEventListener('abort', leave, { once: true })
    return {
      [Symbol.asyncIterator]: () => ({
        next: () => member.next(),
        return: async () => {
          leave()
          return { done: true, value: undefined }
        },
      }),
      close: async () => leave(),
    }
  }

  /** Partitions change hands, now. `grudging`: who had them hears of it only later. */
  rebalance(grudgingMs = 0): void {
    this.#turn++
    for (const group of this.#groups.keys()) this.#assign(group, grudgingMs)
  }

  /** The process has not been heard: after the session time-out it is no longer a member, whether it knows or not. */
  silent(process: Process, afterMs: number): void {
    this.#scheduler.after(afterMs, 'group session ends', () => {
      if (process.alive && !process.stopped) return
      for (const [group, members] of this.#groups)
        for (const member of members)
          if (member.process === process) {
            this.#leave(group, member)
            process.reach(() => {
              // it hears so at its next heartbeat
              this.#scheduler.after(this.#dice.between(50, 3_000, 'heartbeat'), 'member hears', () =>
                process.reach(() => member.fail(new MillraceError('MILLRACE_QUEUE_UNREACHABLE', 'the group went on without us'))),
              )
            })
          }
    })
  }

  breakConsumers(process: Process): void {
    for (const members of this.#groups.values())
      for (const member of members)
        if (member.process === process)
          process.reach(() => member.fail(new MillraceError('MILLRACE_QUEUE_UNREACHABLE', 'the consumer lost its connection')))
  }

  #leave(group: string, member: Member): void {
    const members = this.#groups.get(group) ?? []
    if (!members.includes(member)) return
    this.#groups.set(
      group,
      members.filter((other) => other !== member),
    )
    this.#plan(group)
  }

  #plan(group: string): void {
    if (this.#planned.has(group)) return
    this.#planned.add(group)
    this.#scheduler.after(this.#dice.between(20, 800, 'rebalance'), `${group} rebalances`, () => {
      this.#planned.delete(group)
      this.#assign(group, 0)
    })
  }

  #assign(group: string, grudgingMs: number): void {
    const members = this.#groups.get(group) ?? []
    if (members.length === 0) return
    const topics = [...new Set(members.flatMap(({ topics }) => topics))].sort()
    const eager = this.#dice.chance(0.4, 'eager')
    const wanted = new Map<Member, TopicPartition[]>()
    let i = this.#turn
    for (const topic of topics)
      for (let partition = 0; partition < (this.#broker.topics.get(topic)?.partitions.length ?? 0); partition++) {
        const able = members.filter((member) => member.topics.includes(topic))
        const owner = able[i++ % able.length]
        if (owner !== undefined) wanted.set(owner, [...(wanted.get(owner) ?? []), { topic, partition }])
      }
    for (const member of members) {
      const turn = ++this.#turns
      const delay = this.#dice.between(1, 300, 'assignment')
      const places = wanted.get(member) ?? []
      const keep = new Set(eager ? [] : places.map(keyOf))
      this.#scheduler.after(delay + grudgingMs, `${group} revokes`, () => member.process.reach(() => member.revoke(keep, turn)))
      this.#scheduler.after(delay + (eager ? grudgingMs : 0) + 0.1, `${group} assigns`, () =>
        member.process.reach(() => {
          for (const place of places) member.assign(place, turn)
        }),
      )
    }
  }
}

class Member {
  readonly process: Process
  readonly topics: readonly string[]
  readonly #reading: Reading
  readonly #held = new Map<string, { readonly control: AbortController; turn: number }>()
  #turn = 0
  #inbox: Assignment[] = []
  #waiting: { resolve(result: IteratorResult<Assignment>): void; reject(error: Error): void } | null = null
  #ended = false
  #failure: Error | null = null

  constructor(process: Process, topics: readonly string[], reading: Reading) {
    this.process = process
    this.topics = topics
    this.#reading = reading
  }

  next(): Promise<IteratorResult<Assignment>> {
    if (!this.process.alive) return new Promise(() => {})
    if (this.#failure !== null) return Promise.reject(this.#failure)
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    const value = this.#inbox.shift()
    if (value !== undefined) return Promise.resolve({ done: false, value })
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
  }

  assign(place: TopicPartition, turn: number): void {
    if (this.#ended || turn < this.#turn) return
    this.#turn = turn
    const held = this.#held.get(keyOf(place))
    if (held !== undefined) {
      held.turn = turn
      return
    }
    const control = new AbortController()
    const { signal } = control
    this.#held.set(keyOf(place), { control, turn })
    this.#inbox.push({
      ...place,
      signal,
      range: () => this.#reading.range(place),
      read: (from) => this.#reading.read(place, from, signal),
      report: () => {},
    })
    const waiting = this.#waiting
    this.#waiting = null
    if (waiting !== null) waiting.resolve({ done: false, value: this.#inbox.shift() as Assignment })
  }

  /** What it held before that turn; news of an older turn than it has heard of takes nothing from it. */
  revoke(keep: ReadonlySet<string>, turn: number): void {
    for (const [key, held] of this.#held)
      if (!keep.has(key) && held.turn < turn) {
        this.#held.delete(key)
        this.#inbox = this.#inbox.filter((assignment) => keyOf(assignment) !== key)
        held.control.abort()
      }
  }

  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.revoke(new Set(), Number.POSITIVE_INFINITY)
    this.#waiting?.resolve({ done: true, value: undefined })
    this.#waiting = null
  }

  fail(error: Error): void {
    if (this.#ended) return
    this.#failure = error
    this.#ended = true
    this.revoke(new Set(), Number.POSITIVE_INFINITY)
    this.#waiting?.reject(error)
    this.#waiting = null
  }
}

const keyOf = ({ topic, partition }: TopicPartition): string => `${topic}/${partition}`
