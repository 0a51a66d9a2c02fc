// One file and over 400 lines, because it is the table of what each step does. What each verdict takes of it is judge.ts.
import { codeOf } from '../../src/core/errors.ts'
import { partitionOf } from '../../src/core/murmur2.ts'
import type { Position } from '../../src/core/position.ts'
import { position } from '../../src/core/position.ts'
import { toRecord } from '../../src/core/record.ts'
import { latestState } from '../../src/core/relay-state.ts'
import { decodeState } from '../../src/core/state-text.ts'
import { CONFLICT_PATIENCE, startApplier } from '../../src/pipeline/applier.ts'
import { initRelayState } from '../../src/pipeline/init-state.ts'
import { type Relay, startRelay } from '../../src/pipeline/relay.ts'
import { Broker } from './broker.ts'
import { Dice } from './dice.ts'
import { drain } from './drain.ts'
import { Groups } from './group.ts'
import { type Harm, Judge, type Running } from './judge.ts'
import { Ledger, Violation } from './ledger.ts'
import { Network } from './network.ts'
import { Postgres, SOURCE, utf8 } from './postgres.ts'
import { type LogLine, Process } from './process.ts'
import { type QueueServers, simulatedQueue } from './queue.ts'
import { Replica } from './replica.ts'
import {
  type Action,
  AGGREGATES,
  type ProcessName,
  type RelayName,
  type Row,
  type Schedule,
  TOPIC_TEMPLATE,
  topicFor,
} from './schedule.ts'
import { quiet, Scheduler } from './scheduler.ts'
import { describeAction } from './story.ts'

export interface Outcome {
  /** null: every promise was kept */
  readonly violation: Violation | null
  /** equal for two runs of one schedule, or the simulation is not one */
  readonly hash: number
  /** why what was halted was halted, rightly */
  readonly halts: readonly string[]
  readonly committed: number
  readonly faults: number
  readonly virtualMs: number
  /** only of a run that is told to keep it */
  readonly trace: readonly string[]
}

/** after the last step, until everything must have been applied (virtual ms) */
const HEALED_WITHIN = 120_000
/** a running relay looks at the ends of its logs once a minute, and asks again for a while */
const NOTICED_WITHIN = 80_000
const RESTARTED_WITHIN = 20_000
/** until a person gives up on relays that do not stop */
const DRAIN_PATIENCE = 30_000
/** one waits for another, and that for a third */
const CONFLICTS_END_WITHIN = 3 * CONFLICT_PATIENCE

/** Runs a schedule from its first step to the verdict. */
export async function simulate(schedule: Schedule, options: { readonly trace?: boolean } = {}): Promise<Outcome> {
  const world = new World(schedule, options.trace === true)
  await world.run()
  return world.outcome()
}

class World {
  readonly #schedule: Schedule
  readonly #scheduler: Scheduler
  readonly #dice: Dice
  readonly #network: Network
  readonly #postgres: Postgres
  readonly #broker: Broker
  readonly #groups: Groups
  readonly #ledger: Ledger
  readonly #queue: QueueServers
  /** one from the start, and perhaps one that came late */
  readonly #replicas: Replica[]
  readonly #running = new Map<ProcessName, Running>()
  /** crash the relay when it gets to this failpoint */
  readonly #ambushes = new Map<RelayName, { readonly failpoint: string; readonly downMs: number; readonly noticedMs: number }>()
  readonly #harm = new Set<Harm>()
  readonly #halts: string[] = []
  readonly #judge: Judge
  /** topics that got more partitions */
  readonly #added = new Set<string>()
  /** somebody drains: no relay is started meanwhile */
  #draining = false
  readonly #otherTails = new Map<string, Position>()
  #otherCount = 0
  #fingerprint = 'mapping 1'
  #violation: Violation | null = null
  #faults = 0

  constructor(schedule: Schedule, traced: boolean) {
    const { setup } = schedule
    this.#schedule = schedule
    this.#scheduler = new Scheduler(traced)
    this.#dice = new Dice(setup.seed ^ 0x5bd1e995)
    this.#network = new Network(this.#scheduler, this.#dice)
    this.#broker = new Broker(setup.partitions)
    this.#groups = new Groups(this.#scheduler, this.#dice, this.#broker)
    this.#ledger = new Ledger(setup.partitions)
    this.#postgres = new Postgres({
      scheduler: this.#scheduler,
      network: this.#network,
      dice: this.#dice,
      maxChanges: setup.maxChanges,
      confirmed: (lsn) => this.#guard(() => this.#ledger.confirmed(lsn, latestState(this.#broker.state)?.intent ?? null)),
    })
    this.#queue = {
      scheduler: this.#scheduler,
      network: this.#network,
      dice: this.#dice,
      broker: this.#broker,
      groups: this.#groups,
      acknowledgedAgain: (place, offset) => {
        this.#judge.acknowledgedAgain = `${place} acknowledged offset ${offset} twice, and no relay has halted`
      },
      recorded: (text) => {
        // a drain whose last write fails has marked the stream all the same
        if (text.includes('"drained":{')) this.#ledger.drained = true
        const state = decodeState(text)
        this.#guard(() => this.#judge.recorded(state))
        if (this.#added.size === 0) return
        // not what this record says: a zombie's late one does not count
        const topics = latestState(this.#broker.state)?.topics
        for (const topic of this.#added) this.#guard(() => this.#ledger.grow(topic, topics?.get(topic)?.length ?? 0))
      },
      appended: (place, records, by) => this.#guard(() => this.#ledger.appended(place, records, by.name)),
    }
    this.#replicas = [this.#newReplica('replica', 'earliest')]
    this.#judge = new Judge({
      setup,
      postgres: this.#postgres,
      broker: this.#broker,
      ledger: this.#ledger,
      running: this.#running,
      replicas: this.#replicas,
      harm: this.#harm,
      halts: this.#halts,
      fingerprint: () => this.#fingerprint,
    })
  }

  outcome(): Outcome {
    return {
      violation: this.#violation,
      hash: this.#scheduler.hash,
      halts: this.#halts,
      committed: this.#postgres.wal.reduce((sum, { rows }) => sum + rows.length, 0),
      faults: this.#faults,
      virtualMs: this.#scheduler.now,
      trace: this.#scheduler.trace ?? [],
    }
  }

  async run(): Promise<void> {
    await this.#found()
    const { steps, setup } = this.#schedule
    let last = this.#scheduler.now
    for (const { at, number, action } of steps) {
      last = Math.max(last, this.#scheduler.now + at)
      this.#scheduler.after(at, `step ${number}`, () => {
        this.#scheduler.say(`step ${number}: ${describeAction(action)}`)
        this.#do(action)
      })
    }
    for (const name of ['relay A', 'relay B', 'applier P', 'applier Q'] as const) this.#start(name)
    await this.#until(last + 0.1, () => false)
    this.#heal()
    // one that was stopped learns only now what it missed: until then it takes partitions for its own, and halted, that it has lost
    await quiet()
    await this.#settle()
    if (this.#violation === null && !this.#judge.isSettled)
      this.#fail(new Violation('I10', `long after all was well: ${this.#judge.unsettled}`))
    if (setup.restartedAtEnd) {
      const phantoms = this.#ledger.phantoms.length
      await this.#restartAll()
      // one that was still on its way then is met by the session after
      if (this.#ledger.phantoms.length > phantoms) await this.#restartAll()
    } else if (this.#harm.size > 0) await this.#until(this.#scheduler.now + NOTICED_WITHIN, () => false)
    await this.#tellTheLost()
    if (this.#violation === null) this.#guard(() => this.#judge.judge())
  }

  /** Until all is well, or it is late. A conflict between partitions is final only when none of them moves any more. */
  async #settle(): Promise<void> {
    // what the source has lost is told by the next event: a partition in a conflict has yet to come to it
    const mayTell = (): boolean => this.#ledger.phantoms.length > 0 && this.#judge.hasConflict
    const settled = (): boolean => !this.#draining && this.#judge.isSettled && !mayTell()
    await this.#until(this.#scheduler.now + HEALED_WITHIN, settled)
    if (!settled() && this.#judge.hasConflict) await this.#until(this.#scheduler.now + CONFLICTS_END_WITHIN, settled)
  }

  /** What was lost and overwritten is told by the next event of its partition: there is one. */
  async #tellTheLost(): Promise<void> {
    const places = new Set(this.#judge.lacking.map(({ place }) => place))
    if (places.size === 0 || !this.#harm.has('queue')) return
    this.#scheduler.say(`one more event for ${[...places].join(', ')}`)
    this.#commit({
      rows: [...places].map((place) => rowFor(place, (topic) => this.#ledger.partitionsOf(topic))),
      backToBack: false,
    })
    await this.#until(
      this.#scheduler.now + HEALED_WITHIN,
      () => this.#judge.areRelaysHalted || (this.#judge.isSettled && this.#judge.lacking.length === 0),
    )
  }

  /** `millrace init`, before anything can go wrong */
  async #found(): Promise<void> {
    const operator = this.#process('operator')
    let done = false
    initRelayState({
      source: this.#postgres.source(operator),
      queue: simulatedQueue(this.#queue, operator),
      identify: async () => this.#postgres.identity(this.#postgres.slot as { readonly confirmed: bigint }),
      fingerprint: this.#fingerprint,
      newStreamId: () => 'stream 1',
    }).then(() => {
      done = true
    })
    await this.#until(Number.POSITIVE_INFINITY, () => done)
  }

  async #until(at: number, over: () => boolean): Promise<void> {
    let looked = this.#scheduler.now
    while (this.#violation === null) {
      // what is settled is settled for a moment: looking once in a while is enough
      if ((this.#scheduler.now === looked || this.#scheduler.now - looked > 200) && over()) return
      if (this.#scheduler.now - looked > 200) looked = this.#scheduler.now
      if (!(await this.#scheduler.step(at))) return
    }
  }

  #process(name: string): Process {
    return new Process(name, this.#scheduler, this.#dice, (line) => this.#logged(name, line))
  }

  #newReplica(name: string, start: 'earliest' | 'latest'): Replica {
    const traits = { parks: this.#schedule.setup.parks, startsLate: start === 'latest' }
    return new Replica(name, traits, this.#network, (applied) => this.#guard(() => this.#ledger.applied(applied)))
  }

  #start(name: ProcessName): void {
    if (this.#running.get(name)?.process.alive || (this.#draining && isRelay(name))) return
    const process = this.#process(name)
    const queue = simulatedQueue(this.#queue, process)
    const { log, clock, random } = process
    if (isRelay(name)) {
      const relay = this.#relay(process, (at) => this.#failpoint(name, at, process))
      const running: Running = { role: 'relay', process, relay, halted: null }
      this.#running.set(name, running)
      relay.done.catch((error: unknown) => {
        running.halted = codeOf(error)
        this.#halted(name, error)
      })
      return
    }
    const replica = this.#replicas[name === 'applier Z' ? 1 : 0]
    if (replica === undefined) return
    const applier = startApplier({
      name: replica.name,
      pipeline: SOURCE,
      sink: replica.sink(process),
      queue,
      topics: ['outbox.event.*'],
      start: replica.startsLate ? 'latest' : 'earliest',
      sources: this.#schedule.setup.followsOthers ? null : [SOURCE],
      log,
      clock,
      random,
    })
    const running: Running = { role: 'applier', process, applier, replica, halted: null }
    this.#running.set(name, running)
    applier.done.catch((error: unknown) => {
      running.halted = codeOf(error)
      this.#halted(name, error)
    })
  }

  #relay(process: Process, failpoint: (at: string) => Promise<void> | void, fingerprint = this.#fingerprint): Relay {
    const { log, clock, random } = process
    return startRelay({
      source: this.#postgres.source(process),
      queue: simulatedQueue(this.#queue, process),
      topicTemplate: TOPIC_TEMPLATE,
      fingerprint,
      sinkTopics: AGGREGATES.map(topicFor),
      log,
      clock,
      random,
      failpoint,
    })
  }

  /** A person stops the relays and drains; what was committed meanwhile is relayed with the new settings. */
  async #drain(mapping: boolean): Promise<void> {
    if (this.#draining) return
    this.#draining = true
    const process = this.#process('drain')
    // it reads its settings once, whatever becomes of them while it waits
    const fingerprint = this.#fingerprint
    for (const name of RELAYS) this.#stop(name, 0)
    const isStopped = (): boolean => RELAYS.every((name) => this.#running.get(name)?.process.alive !== true)
    while (!isStopped() && process.clock.elapsed() < DRAIN_PATIENCE) await process.clock.wait(100)
    let drained = false
    if (isStopped()) {
      this.#ledger.waitedFor = new Set(this.#replicas)
      drained = await drain({
        process,
        source: this.#postgres.source(process),
        queue: simulatedQueue(this.#queue, process),
        sinks: this.#replicas.map((replica) => replica.sink(process)),
        target: () => {
          this.#postgres.write(0x40)
          return this.#postgres.insertLsn
        },
        startRelay: () => {
          const relay = this.#relay(process, () => {}, fingerprint)
          relay.done.catch((error: unknown) => this.#halted('relay of the drain', error))
          return relay
        },
      }).catch(() => false)
    }
    process.crash()
    this.#postgres.silent(process, 0)
    this.#scheduler.say(drained ? 'the stream is drained' : 'the drain is given up')
    if (drained && mapping) this.#fingerprint += ' of another kind'
    this.#draining = false
    for (const name of RELAYS) this.#start(name)
  }

  #failpoint(name: RelayName, at: string, process: Process): Promise<void> | void {
    const ambush = this.#ambushes.get(name)
    if (ambush?.failpoint !== at || !process.alive) return
    this.#ambushes.delete(name)
    this.#scheduler.say(`fault: ${name} crashes at the failpoint ${at}`)
    this.#crash(name, ambush.downMs, ambush.noticedMs)
    return new Promise(() => {})
  }

  #crash(name: ProcessName, downMs: number, noticedMs: number): void {
    const running = this.#running.get(name)
    if (running === undefined || !running.process.alive) return
    running.process.crash()
    this.#postgres.silent(running.process, noticedMs)
    this.#groups.silent(running.process, noticedMs)
    this.#scheduler.after(downMs, `${name} starts`, () => {
      this.#scheduler.say(`${name} starts again`)
      this.#start(name)
    })
  }

  #freeze(name: ProcessName, ms: number, noticedMs: number): void {
    const process = this.#running.get(name)?.process
    if (process === undefined || !process.alive || process.stopped) return
    process.stopped = true
    this.#postgres.silent(process, noticedMs)
    this.#groups.silent(process, noticedMs)
    this.#scheduler.after(ms, `${name} goes on`, () => {
      if (!process.stopped) return
      this.#scheduler.say(`${name} goes on`)
      process.goOn()
    })
  }

  #stop(name: ProcessName, downMs: number): void {
    const running = this.#running.get(name)
    if (running === undefined || !running.process.alive) return
    const { process } = running
    process.reach(() => {
      process.ending = true
      const stopping = running.role === 'relay' ? running.relay.stop() : running.applier.stop()
      stopping.then(() => {
        process.alive = false
        this.#scheduler.after(downMs, `${name} starts`, () => this.#start(name))
      })
    })
  }

  #do(action: Action): void {
    if (action.kind !== 'transaction') this.#faults++
    switch (action.kind) {
      case 'transaction':
        if (!action.rollback) this.#scheduler.after(action.openMs, 'commit', () => this.#commit(action))
        return
      case 'write elsewhere':
        return this.#postgres.write(action.bytes)
      case 'foreign record': {
        const log = this.#broker.log(action.topic, action.partition)
        // a transaction's marker, say
        if (this.#dice.chance(0.3, 'offset skipped')) log?.skip()
        log?.append([{ key: utf8('foreign'), value: utf8('?'), headers: [['id', 'somebody']] }], 0)
        return
      }
      case 'other source':
        return this.#publishOther(action)
      case 'sink joins':
        if (this.#replicas.length > 1) return
        this.#replicas.push(this.#newReplica('late', action.start))
        return this.#start('applier Z')
      case 'redrive':
        return this.#redrive()
      case 'crash':
        return this.#crash(action.process, action.downMs, action.noticedMs)
      case 'crash at':
        this.#ambushes.set(action.process, action)
        return
      case 'freeze':
        return this.#freeze(action.process, action.ms, action.noticedMs)
      case 'stop':
        return this.#stop(action.process, action.downMs)
      case 'wall clock': {
        const process = this.#running.get(action.process)?.process
        if (process !== undefined) process.wallError += action.ms
        return
      }
      case 'mishap':
        return this.#network.arm(action.mishap)
      case 'outage':
        return this.#network.down(action.service, action.ms)
      case 'stream breaks':
        return this.#postgres.breakStream()
      case 'postgres checkpoint':
        return this.#postgres.checkpoint()
      case 'postgres crash':
        return this.#postgres.crash(action.ms)
      case 'postgres restart':
        return this.#postgres.restart(action.ms)
      case 'promotion': {
        const before = this.#postgres.history.length
        const lost = this.#postgres.promote(action.lagging, action.ms)
        if (this.#postgres.history.length <= before) this.#harm.add('timeline')
        return this.#ledger.vanish(lost)
      }
      case 'rebalance':
        return this.#groups.rebalance(action.grudgingMs)
      case 'consumers break': {
        const process = this.#running.get(action.process)?.process
        if (process !== undefined) this.#groups.breakConsumers(process)
        return
      }
      case 'stale answers':
        this.#broker.staleUntil = this.#scheduler.now + action.ms
        return
      case 'retention': {
        const log = this.#broker.log(action.topic, action.partition)
        if (log === undefined) return
        // far longer than the state interval: what no state covers yet, it does not reach
        const recorded = latestState(this.#broker.state)?.topics.get(action.topic)?.[action.partition]
        if (recorded == null || recorded.position === null) return
        const kept = action.keep === 0 ? undefined : log.records.at(-action.keep)
        log.trim(action.keep === 0 ? log.end : (kept?.offset ?? log.start))
        this.#harm.add('retention')
        this.#ledger.lossy = true
        return
      }
      case 'slot dropped':
        this.#harm.add('slot')
        return this.#postgres.dropSlot()
      case 'slot recreated':
        this.#harm.add('slot')
        return this.#postgres.recreateSlot()
      case 'publication remade':
        this.#harm.add('publication')
        this.#postgres.publication += '!'
        return
      case 'copy lost':
        this.#harm.add('copy')
        this.#postgres.copy = null
        return
      case 'state lost':
        this.#harm.add('state')
        this.#broker.state.clear()
        return
      case 'fingerprint changed':
        this.#harm.add('fingerprint')
        this.#fingerprint += '!'
        return
      case 'broker loss': {
        const log = this.#broker.log(action.topic, action.partition)
        const from = log?.records.at(-action.count) ?? log?.records[0]
        if (log === undefined || from === undefined) return
        log.truncate(from.offset)
        this.#harm.add('queue')
        this.#ledger.lossy = true
        this.#ledger.regrown = true
        return
      }
      case 'topic recreated':
      case 'topic deleted': {
        const topic = this.#broker.delete(action.topic)
        if (topic === undefined) return
        this.#harm.add('queue')
        this.#ledger.lossy = true
        this.#ledger.regrown = true
        if (action.kind === 'topic recreated') this.#broker.create(action.topic)
        else this.#ledger.deleted.add(action.topic)
        return
      }
      case 'sabotage':
        this.#postgres.commit(
          [{ aggregate: 'order', key: 'o1', type: 'OrderPut', payload: '{}', headers: null, orderingKey: null }],
          true,
        )
        return
      case 'partitions added':
        // before the relay knows the topic, any number is as good
        if (!latestState(this.#broker.state)?.topics.has(action.topic) || !this.#broker.addPartition(action.topic)) return
        this.#added.add(action.topic)
        return this.#groups.rebalance()
      case 'drain':
        void this.#drain(action.mapping)
    }
  }

  #commit({ rows, backToBack }: Pick<Extract<Action, { kind: 'transaction' }>, 'rows' | 'backToBack'>): void {
    if (this.#network.isDown('postgres')) return
    this.#ledger.commit(this.#postgres.commit(rows, backToBack), this.#postgres.history.length + 1)
  }

  /** a second source that feeds the same topics, with a chain of its own */
  #publishOther({ topic, partition, again }: Extract<Action, { kind: 'other source' }>): void {
    const log = this.#broker.log(topic, partition)
    if (log === undefined) return
    const place = `${topic}/${partition}`
    const prev = this.#otherTails.get(place) ?? null
    if (again && prev === null) return
    const at = again ? (prev as Position) : position(1, BigInt(++this.#otherCount), 1)
    const record = toRecord({
      source: 'billing',
      position: at,
      prev: again ? at : prev,
      id: at,
      type: 'OrderPut',
      key: utf8(`b${this.#otherCount % 3}`),
      value: utf8(`{"v":${this.#otherCount}}`),
      headers: [],
      committedAt: 0,
      version: '1',
      orderingKey: null,
      placeholder: null,
    })
    log.append([record], 0)
    this.#otherTails.set(place, at)
  }

  #redrive(): void {
    for (const replica of this.#replicas) {
      replica.mended = true
      const redriven = replica.redrive()
      if (redriven === null) continue
      this.#scheduler.say(
        `${replica.name}: ${redriven.applied} parked events of ${redriven.order} were applied, ${redriven.remaining} remain`,
      )
      this.#ledger.redriven(replica, redriven.order, redriven.applied)
    }
  }

  #logged(name: string, { level, fields, message }: LogLine): void {
    const { code, topic, partition, err } = fields as { code?: string; topic?: string; partition?: number; err?: Error }
    const where = topic === undefined ? '' : ` ${topic}/${partition}`
    this.#scheduler.say(`${name}${where}: ${message}${code === undefined ? '' : ` (${code})`}`)
    if (level === 'error' && topic !== undefined) this.#halted(`${name}${where}`, err, `${topic}/${partition}`)
  }

  /** A halt is for a person: it must have a reason that a person can find. */
  #halted(who: string, error: unknown, place?: string): void {
    const code = codeOf(error)
    const { message } = error as Error
    this.#scheduler.say(`${who} HALTS: ${code}: ${message}`)
    if (this.#judge.deserves(who, error, place)) this.#halts.push(`${who}: ${code}`)
    else
      this.#fail(
        new Violation(`false halt ${code}`, `${who} halted and nothing had happened that deserves it: ${code}: ${message}`),
      )
  }

  #heal(): void {
    this.#scheduler.say('everything is well again')
    this.#network.heal()
    this.#broker.staleUntil = 0
    this.#ambushes.clear()
    for (const { process } of this.#running.values()) if (process.stopped) process.goOn()
  }

  async #restartAll(): Promise<void> {
    this.#scheduler.say('every process starts anew')
    for (const name of this.#running.keys()) this.#crash(name, 100, 20)
    await this.#until(this.#scheduler.now + RESTARTED_WITHIN, () => false)
    await this.#settle()
  }

  #guard(check: () => void): void {
    try {
      check()
    } catch (error) {
      this.#fail(error instanceof Violation ? error : new Violation('simulation', String((error as Error).stack)))
    }
  }

  #fail(violation: Violation): void {
    if (this.#violation !== null) return
    this.#scheduler.say(`BROKEN: ${violation.promise}: ${violation.message}`)
    this.#violation = violation
  }
}

const RELAYS = ['relay A', 'relay B'] as const
const isRelay = (name: ProcessName): name is RelayName => name.startsWith('relay')

/** A row whose key belongs to the place. */
function rowFor(place: string, partitionsOf: (topic: string) => number): Row {
  const [topic = '', partition] = place.split('/')
  const partitions = partitionsOf(topic)
  const aggregate = topic === topicFor('order') ? 'order' : 'customer'
  let n = 0
  while (partitionOf(utf8(`last${n}`), partitions) !== Number(partition)) n++
  const type = aggregate === 'order' ? 'OrderPut' : 'CustomerPut'
  return { aggregate, key: `last${n}`, type, payload: '{"v":0}', headers: null, orderingKey: null }
}
