import { Dice } from './dice.ts'
import type { Mishap, Service } from './network.ts'
import { drawScenario } from './scenario.ts'

/** One outbox row. */
export interface Row {
  readonly aggregate: Aggregate
  readonly key: string
  /** `OrderPut`, `OrderGone`, … */
  readonly type: string
  /** null: a tombstone */
  readonly payload: string | null
  readonly headers: string | null
  readonly orderingKey: string | null
}

export type Aggregate = 'order' | 'customer'
export const AGGREGATES = ['order', 'customer'] as const
export const TOPIC_TEMPLATE = 'outbox.event.{aggregate_type}'
export const topicFor = (aggregate: Aggregate): string => `outbox.event.${aggregate}`

export type RelayName = 'relay A' | 'relay B'
export type ApplierName = 'applier P' | 'applier Q' | 'applier Z'
export type ProcessName = RelayName | ApplierName

/** What is done to the world at one time of the schedule. */
export type Action =
  // what people do
  | {
      readonly kind: 'transaction'
      readonly rows: readonly Row[]
      readonly backToBack: boolean
      readonly openMs: number
      readonly rollback: boolean
    }
  | { readonly kind: 'write elsewhere'; readonly bytes: number }
  | { readonly kind: 'foreign record'; readonly topic: string; readonly partition: number }
  | { readonly kind: 'other source'; readonly topic: string; readonly partition: number; readonly again: boolean }
  | { readonly kind: 'sink joins'; readonly start: 'earliest' | 'latest' }
  | { readonly kind: 'redrive' }
  // processes
  | { readonly kind: 'crash'; readonly process: ProcessName; readonly downMs: number; readonly noticedMs: number }
  | {
      readonly kind: 'crash at'
      readonly process: RelayName
      readonly failpoint: string
      readonly downMs: number
      readonly noticedMs: number
    }
  | { readonly kind: 'freeze'; readonly process: ProcessName; readonly ms: number; readonly noticedMs: number }
  | { readonly kind: 'stop'; readonly process: ProcessName; readonly downMs: number }
  | { readonly kind: 'wall clock'; readonly process: ProcessName; readonly ms: number }
  // what carries requests
  | { readonly kind: 'mishap'; readonly mishap: Mishap }
  | { readonly kind: 'outage'; readonly service: Service; readonly ms: number }
  // the source
  | { readonly kind: 'stream breaks' }
  | { readonly kind: 'postgres checkpoint' }
  | { readonly kind: 'postgres crash'; readonly ms: number }
  | { readonly kind: 'postgres restart'; readonly ms: number }
  | { readonly kind: 'promotion'; readonly lagging: number; readonly ms: number }
  // the queue
  | { readonly kind: 'rebalance'; readonly grudgingMs: number }
  | { readonly kind: 'consumers break'; readonly process: ApplierName }
  | { readonly kind: 'stale answers'; readonly ms: number }
  | { readonly kind: 'retention'; readonly topic: string; readonly partition: number; readonly keep: number }
  // what must end in a halt, if it took anything
  | { readonly kind: 'slot dropped' }
  | { readonly kind: 'slot recreated' }
  | { readonly kind: 'publication remade' }
  | { readonly kind: 'copy lost' }
  | { readonly kind: 'state lost' }
  | { readonly kind: 'fingerprint changed' }
  | { readonly kind: 'broker loss'; readonly topic: string; readonly partition: number; readonly count: number }
  | { readonly kind: 'topic recreated'; readonly topic: string }
  | { readonly kind: 'topic deleted'; readonly topic: string }
  | { readonly kind: 'partitions added'; readonly topic: string }
  /** with the relays stopped; then the mapping may change, and partitions that were added are taken */
  | { readonly kind: 'drain'; readonly mapping: boolean }
  /** in no schedule of ours: a row that nobody committed enters the WAL, so that the judge can be judged */
  | { readonly kind: 'sabotage' }

export interface Step {
  /** its number in the whole schedule: what `--keep` takes */
  readonly number: number
  /** virtual ms */
  readonly at: number
  readonly action: Action
}

/** What holds for a whole schedule. */
export interface Setup {
  readonly seed: number
  readonly partitions: number
  /** of one read of the stream, at most */
  readonly maxChanges: number
  readonly followsOthers: boolean
  /** whether the sinks park what they cannot apply */
  readonly parks: boolean
  /** at the end: the relays are started anew, or have to notice by themselves */
  readonly restartedAtEnd: boolean
}

export interface Schedule {
  readonly setup: Setup
  readonly steps: readonly Step[]
}

export const STEPS = 60

/** The schedule of a seed: the same, always. */
export function scheduleOf(seed: number, count = STEPS): Schedule {
  const dice = new Dice(seed)
  const setup: Setup = {
    seed,
    partitions: 1 + dice.below(3, 'partitions'),
    maxChanges: dice.pick([1, 2, 4, 12], 'max changes'),
    followsOthers: dice.chance(0.6, 'follows others'),
    parks: dice.chance(0.75, 'parks'),
    restartedAtEnd: dice.chance(0.7, 'restarted'),
  }
  const writers = new Writers(dice)
  const faults = faultsOf(dice, setup)
  const steps: Step[] = []
  let at = 0
  let burst = 0
  const add = (action: Action): void => {
    steps.push({ number: steps.length + 1, at: Math.round(at * 10) / 10, action })
  }
  const play = (): void => {
    for (const [afterMs, action] of scenario?.steps ?? []) {
      at += afterMs
      add(action)
    }
  }
  const scenario = dice.chance(0.3, 'scenario') ? drawScenario(dice, setup.partitions, () => writers.next()) : null
  const when = scenario?.last === false ? dice.below(count, 'when') : count
  while (steps.length < count) {
    if (burst-- > 0) at += dice.between(0, 15, 'gap')
    else {
      at += dice.chance(0.08, 'pause') ? dice.between(1_500, 14_000, 'gap') : dice.between(0, 450, 'gap')
      if (dice.chance(0.15, 'burst')) burst = dice.below(8, 'burst')
    }
    if (steps.length === when) play()
    add(dice.chance(0.5, 'workload') ? writers.next() : faults())
  }
  if (when === count) play()
  return { setup, steps }
}

/** What the writers do: several keys, deletes and re-creates, groups that share an order, unique handles that change hands. */
class Writers {
  readonly #dice: Dice
  readonly #poisonous: boolean
  #value = 0
  #handles = 0
  readonly #holder = new Map<string, string>()

  constructor(dice: Dice) {
    this.#dice = dice
    this.#poisonous = dice.chance(0.08, 'poisonous')
  }

  next(): Extract<Action, { kind: 'transaction' }> {
    const dice = this.#dice
    const rows: Row[] = []
    const size = dice.chance(0.1, 'large') ? 6 + dice.below(9, 'rows') : 1 + dice.below(4, 'rows')
    const rollback = dice.chance(0.08, 'rollback')
    if (!rollback && dice.chance(0.08, 'handle moves')) rows.push(...this.#moveHandle())
    else for (let i = 0; i < size; i++) rows.push(this.#row())
    return {
      kind: 'transaction',
      rows,
      backToBack: dice.chance(0.6, 'back to back'),
      openMs: dice.chance(0.3, 'open') ? dice.between(1, 900, 'open') : 0,
      rollback,
    }
  }

  #row(): Row {
    const dice = this.#dice
    const aggregate = dice.pick(AGGREGATES, 'aggregate')
    const n = dice.below(aggregate === 'order' ? 7 : 5, 'key')
    const key = `${aggregate[0]}${n}`
    // two keys of each aggregate are ordered together
    const orderingKey = n < 2 ? `${aggregate[0]}-together` : null
    if (dice.chance(0.22, 'delete'))
      return { aggregate, key, type: typeOf(aggregate, 'Gone'), payload: null, headers: null, orderingKey }
    const payload: Record<string, unknown> = { v: ++this.#value }
    if (this.#poisonous && dice.chance(0.03, 'poison')) payload['poison'] = true
    let headers = dice.chance(0.1, 'headers') ? `{"traceparent":"${this.#value}"}` : null
    const unpublishable = dice.roll('unpublishable')
    if (unpublishable < 0.002) headers = '["not", "an object"]'
    else if (unpublishable < 0.004) payload['long'] = 'x'.repeat(9_000)
    return { aggregate, key, type: typeOf(aggregate, 'Put'), payload: JSON.stringify(payload), headers, orderingKey }
  }

  /** A unique value is given up by one row and taken by another, each at most once: in commit order that always works. */
  #moveHandle(): readonly Row[] {
    const dice = this.#dice
    const put = (key: string, handle: string | null): Row => ({
      aggregate: 'customer',
      key,
      type: 'CustomerPut',
      payload: JSON.stringify({ v: ++this.#value, ...(handle !== null && { handle }) }),
      headers: null,
      orderingKey: null,
    })
    const [held] = this.#holder
    if (held === undefined || dice.chance(0.3, 'new handle')) {
      const handle = `h${++this.#handles}`
      // rows that hold handles are nobody else's
      this.#holder.set(handle, `holder${this.#handles}`)
      return [put(`holder${this.#handles}`, handle)]
    }
    const [handle, holder] = held
    this.#holder.delete(handle)
    return [put(holder, null), put(`taker${handle}`, handle)]
  }
}

const typeOf = (aggregate: Aggregate, what: 'Put' | 'Gone'): string => `${aggregate === 'order' ? 'Order' : 'Customer'}${what}`

/** How likely each kind of fault is beside the others, for one schedule: not all of them every time. */
function faultsOf(dice: Dice, setup: Setup): () => Action {
  const lossy = dice.chance(0.35, 'lossy')
  const between = (low: number, high: number): number => Math.round(dice.between(low, high, 'duration'))
  const topic = (): string => topicFor(dice.pick(AGGREGATES, 'topic'))
  const partition = (): number => dice.below(setup.partitions, 'partition')
  const relay = (): RelayName => (dice.chance(0.65, 'relay') ? 'relay A' : 'relay B')
  const applier = (): ApplierName => dice.pick(['applier P', 'applier Q', 'applier Z'] as const, 'applier')
  const anyone = (): ProcessName => (dice.chance(0.55, 'who') ? relay() : applier())
  let joined = false

  const kinds: readonly (readonly [weight: number, make: () => Action])[] = [
    [4, () => ({ kind: 'write elsewhere', bytes: 0x20 + dice.below(0x400, 'bytes') })],
    [2, () => ({ kind: 'foreign record', topic: topic(), partition: partition() })],
    [3, () => ({ kind: 'other source', topic: topic(), partition: partition(), again: dice.chance(0.2, 'again') })],
    [
      1,
      () => {
        if (joined) return { kind: 'postgres checkpoint' }
        joined = true
        return { kind: 'sink joins', start: dice.chance(0.75, 'start') ? 'earliest' : 'latest' }
      },
    ],
    [1, () => ({ kind: 'redrive' })],
    [4, () => ({ kind: 'crash', process: anyone(), downMs: between(10, 3_000), noticedMs: noticed() })],
    [
      6,
      () => ({
        kind: 'crash at',
        process: relay(),
        failpoint: dice.pick(['read', 'planned', 'sent', 'acked', 'topic-recorded', 'state-written', 'confirmed'], 'failpoint'),
        downMs: between(10, 3_000),
        noticedMs: noticed(),
      }),
    ],
    [5, () => ({ kind: 'freeze', process: anyone(), ms: between(100, 9_000), noticedMs: between(50, 4_000) })],
    [2, () => ({ kind: 'stop', process: anyone(), downMs: between(10, 3_000) })],
    [1, () => ({ kind: 'wall clock', process: anyone(), ms: between(-3_600_000, 3_600_000) })],
    [18, () => ({ kind: 'mishap', mishap: mishap() })],
    [2, () => ({ kind: 'outage', service: dice.pick(['postgres', 'queue', 'sink'], 'service'), ms: between(50, 5_000) })],
    [4, () => ({ kind: 'stream breaks' })],
    [2, () => ({ kind: 'postgres checkpoint' })],
    [3, () => ({ kind: 'postgres crash', ms: between(20, 2_000) })],
    [1, () => ({ kind: 'postgres restart', ms: between(20, 2_000) })],
    [
      2,
      () => ({
        kind: 'promotion',
        lagging: dice.chance(0.7, 'in sync') ? 0 : 1 + dice.below(3, 'lagging'),
        ms: between(20, 2_000),
      }),
    ],
    [4, () => ({ kind: 'rebalance', grudgingMs: dice.chance(0.5, 'grudging') ? between(100, 6_000) : 0 })],
    [1, () => ({ kind: 'consumers break', process: applier() })],
    [1, () => ({ kind: 'stale answers', ms: between(100, 1_500) })],
    [
      3,
      () => ({
        kind: 'retention',
        topic: topic(),
        partition: partition(),
        keep: dice.chance(0.5, 'empties') ? 0 : dice.below(6, 'keep'),
      }),
    ],
    // only in schedules where something may really be lost
    [lossy ? 5 : 0, () => ({ kind: 'broker loss', topic: topic(), partition: partition(), count: 1 + dice.below(5, 'lost') })],
    [lossy ? 1 : 0, () => ({ kind: 'topic recreated', topic: topic() })],
    [lossy ? 0.5 : 0, () => ({ kind: 'topic deleted', topic: topic() })],
    [lossy ? 0.7 : 0, () => ({ kind: 'slot dropped' })],
    [lossy ? 1.5 : 0, () => ({ kind: 'slot recreated' })],
    [lossy ? 0.4 : 0, () => ({ kind: 'publication remade' })],
    [lossy ? 0.4 : 0, () => ({ kind: 'copy lost' })],
    [lossy ? 0.7 : 0, () => ({ kind: 'state lost' })],
    [lossy ? 0.4 : 0, () => ({ kind: 'fingerprint changed' })],
    [lossy ? 0.5 : 0, () => ({ kind: 'partitions added', topic: topic() })],
  ]
  // a schedule has a taste: some faults often, others never
  const weights = kinds.map(([weight], i) => weight * (dice.chance(0.3, `taste ${i}`) ? 0 : dice.between(0.3, 2, `taste ${i}`)))
  const total = weights.reduce((sum, weight) => sum + weight, 0)

  const noticed = (): number => (dice.chance(0.7, 'noticed at once') ? between(1, 100) : between(200, 6_000))

  function mishap(): Mishap {
    const [to, op] = dice.pick(
      [
        ['queue', 'publish'],
        ['queue', 'publish'],
        ['queue', 'publish'],
        ['queue', 'publish'],
        ['queue', 'state write'],
        ['queue', 'state write'],
        ['queue', 'state remove'],
        ['queue', 'fetch'],
        ['queue', 'join'],
        ['queue', 'read'],
        ['queue', null],
        ['sink', 'apply'],
        ['sink', 'apply'],
        ['sink', 'apply'],
        ['sink', 'claim'],
        ['sink', 'reread'],
        ['sink', null],
        ['postgres', 'open'],
        ['postgres', 'next'],
        ['postgres', 'copy write'],
        ['postgres', 'close'],
        ['postgres', null],
      ] as const,
      'mishap',
    )
    const happens = dice.chance(0.75, 'happens')
    const late = dice.chance(0.5, 'late')
    const from = op === 'publish' && dice.chance(0.3, 'from') ? relay() : null
    if (!happens) return { to, op, from, delay: between(0, 200), happens, answer: dice.chance(0.6, 'answer') ? 'error' : 'none' }
    return {
      to,
      op,
      from,
      delay: late ? between(500, 9_000) : between(0, 300),
      happens,
      answer: dice.pick(['given', 'error', 'none', 'none'], 'answer'),
    }
  }

  return () => {
    let at = dice.roll('fault') * total
    for (const [i, [, make]] of kinds.entries()) {
      at -= weights[i] as number
      if (at < 0) return make()
    }
    return { kind: 'stream breaks' }
  }
}
