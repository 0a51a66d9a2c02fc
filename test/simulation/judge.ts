import { codeOf, MillraceError } from '../../src/core/errors.ts'
import { latestState, type RelayState } from '../../src/core/relay-state.ts'
import type { Applier } from '../../src/pipeline/applier.ts'
import type { Relay } from '../../src/pipeline/relay.ts'
import type { Broker } from './broker.ts'
import { isUnfit, type Ledger, Violation } from './ledger.ts'
import type { Postgres } from './postgres.ts'
import type { Process } from './process.ts'
import type { Replica } from './replica.ts'
import type { ProcessName, Setup } from './schedule.ts'

export type Running =
  | { readonly role: 'relay'; readonly process: Process; readonly relay: Relay; halted: string | null }
  | {
      readonly role: 'applier'
      readonly process: Process
      readonly applier: Applier
      readonly replica: Replica
      halted: string | null
    }

/** What was done that may end in a halt. */
export type Harm = 'queue' | 'retention' | 'slot' | 'publication' | 'state' | 'copy' | 'fingerprint' | 'timeline'

/** The world as its judge sees it. */
export interface Scene {
  readonly setup: Setup
  readonly postgres: Postgres
  readonly broker: Broker
  readonly ledger: Ledger
  readonly running: ReadonlyMap<ProcessName, Running>
  readonly replicas: readonly Replica[]
  readonly harm: ReadonlySet<Harm>
  /** those that were deserved */
  readonly halts: readonly string[]
  /** with which a relay would start now */
  readonly fingerprint: () => string
}

/** What events a replica lacks, though it has read its partition to the end and is not halted in it. */
export interface Lacking {
  readonly place: string
  readonly what: string
}

interface Lane extends Lacking {
  /** it has read all that its log holds */
  readonly atEnd: boolean
}

/** Tells a deserved halt from a false one, when all is settled, and at the end whether every promise was kept. */
export class Judge {
  readonly #scene: Scene
  /** a publisher heard of one offset twice: what stood there was lost */
  acknowledgedAgain: string | null = null
  /** by session: the fingerprints with which the next one may begin; null: any, since the stream was drained */
  readonly #fingerprints = new Map<number, Set<string | null>>()
  /** which session's record a drain wrote: one that goes on saying so has no leave */
  readonly #marks = new Map<number, number>()

  constructor(scene: Scene) {
    this.#scene = scene
  }

  /** A halt is for a person: it must have a reason that a person can find. */
  deserves(who: string, error: unknown, place: string | undefined): boolean {
    const { ledger, harm, halts, running } = this.#scene
    const code = codeOf(error)
    const reasons = (who.startsWith('relay') ? RELAY_HALTS : APPLIER_HALTS)[code] ?? []
    if (ledger.phantoms.length > 0 || reasons.some((reason) => harm.has(reason))) return true
    const halted = [...running].find(([name]) => who.startsWith(name))?.[1]
    if (place === undefined || halted?.role !== 'applier' || !(error instanceof MillraceError)) return false
    if (code === 'MILLRACE_GAP') return ledger.foundedOnDuplicate(halted.replica, place)
    // a value whose giver stands in a partition that is halted comes no more
    if (code === 'MILLRACE_EVENT_CONFLICT' && halts.some((halt) => halt.startsWith('applier'))) return true
    const event = ledger.at(String(error.fields['position']))
    return event !== undefined && (isUnfit(event, code) || ledger.overtook(halted.replica, event, code))
  }

  /** Only of a drained stream may a session change the settings. @throws Violation */
  recorded({ session, fingerprint, drained }: RelayState): void {
    const before = this.#fingerprints.get(session - 1)
    if (before !== undefined && !before.has(fingerprint) && !before.has(null))
      throw new Violation('silent loss', `session ${session} began with another fingerprint, and the stream was not drained`)
    if (drained !== null && !this.#marks.has(drained.at)) this.#marks.set(drained.at, session)
    const isMark = drained !== null && this.#marks.get(drained.at) === session
    const own = this.#fingerprints.get(session) ?? new Set()
    this.#fingerprints.set(session, own.add(isMark ? null : fingerprint))
  }

  get isSettled(): boolean {
    // one that came late shows itself with the next event, or to the next session
    if (this.#scene.ledger.phantoms.length > 0) return true
    return this.#unrelayed === null && this.#behind === null
  }

  /** what keeps it from being settled */
  get unsettled(): string {
    return this.#unrelayed ?? this.#behind ?? 'nothing is amiss now'
  }

  /** a partition waits for what others may yet give up */
  get hasConflict(): boolean {
    return [...this.#scene.running.values()].some(
      (one) =>
        one.role === 'applier' &&
        one.applier.status().partitions.some(({ error }) => codeOf(error) === 'MILLRACE_EVENT_CONFLICT'),
    )
  }

  get areRelaysHalted(): boolean {
    return [...this.#scene.running.values()].filter(({ role }) => role === 'relay').every(({ halted }) => halted !== null)
  }

  /** what nobody has told of yet: the next event of each place must */
  get lacking(): readonly Lacking[] {
    return this.#scene.ledger.phantoms.length > 0 ? [] : this.#lanesBehind().filter(({ atEnd }) => atEnd)
  }

  /** @throws Violation */
  judge(): void {
    const { ledger, setup, halts, harm, replicas } = this.#scene
    const relaysHalted = this.areRelaysHalted
    if (ledger.phantoms.length > 0) {
      const untold = relaysHalted || !setup.restartedAtEnd ? undefined : ledger.phantoms.find((one) => this.#isUntold(one))
      if (untold !== undefined) {
        const { position, place } = untold
        throw new Violation('silent loss', `${place} holds ${position}, which the source has lost, and nothing has halted there`)
      }
      return
    }
    const { unpublished } = ledger
    if (unpublished !== null && !relaysHalted) throw new Violation('I2', unpublished)
    const [behind] = this.#lanesBehind()
    // no event can come that would tell
    if (behind !== undefined && !(behind.atEnd && harm.has('queue') && relaysHalted))
      throw new Violation('silent loss', behind.what)
    if (this.acknowledgedAgain !== null && !halts.some((halt) => halt.startsWith('relay')))
      throw new Violation('silent loss', this.acknowledgedAgain)
    const unnoticed = relaysHalted ? null : this.#unnoticed()
    if (unnoticed !== null) throw new Violation('silent loss', unnoticed)
    const mustRefuse = [...harm].find((one) => one === 'publication' || (one === 'fingerprint' && this.#isFingerprintForeign))
    if (mustRefuse !== undefined && setup.restartedAtEnd && !relaysHalted)
      throw new Violation('silent loss', `the ${mustRefuse} changed under the stream, and a relay that started since goes on`)
    for (const replica of replicas) ledger.checkRows(replica)
  }

  /**
   * Whether a relay that starts now must refuse. Not when the change came while somebody drained, or before a session followed
   * the mark: the session that accepted it has recorded it, as `recorded` saw.
   */
  get #isFingerprintForeign(): boolean {
    const { broker, fingerprint } = this.#scene
    const state = latestState(broker.state)
    if (state === null) return true
    const isMarked = state.drained !== null && this.#fingerprints.get(state.session)?.has(null) === true
    return state.fingerprint !== fingerprint() && !isMarked
  }

  /** One that retention has taken is told by the next event to the sinks that applied it. */
  #isUntold({ place, position }: Ledger['phantoms'][number]): boolean {
    const { broker, ledger, running } = this.#scene
    const [topic = '', partition = ''] = place.split('/')
    const log = broker.log(topic, Number(partition))
    if (!log?.records.some((record) => ledger.isOf(record, position))) return false
    return ![...running.values()].some(
      (one) => one.role === 'applier' && (one.halted !== null || haltedPlaces(one).includes(place)),
    )
  }

  get #unrelayed(): string | null {
    if (this.areRelaysHalted) return null
    const { unpublished } = this.#scene.ledger
    if (unpublished !== null) return unpublished
    const { slot, wal } = this.#scene.postgres
    const last = wal.at(-1)
    if (slot === null) return 'there is no slot'
    if (last === undefined || slot.confirmed >= last.endLsn) return null
    return `the slot is confirmed up to ${slot.confirmed.toString(16)}, and the last commit ends at ${last.endLsn.toString(16)}`
  }

  /** while it is not settled: what was lost comes no more, and is told with the next event, or by the next session */
  get #behind(): string | null {
    const lossy = this.#scene.harm.has('queue')
    return this.#lanesBehind().find(({ atEnd }) => !(atEnd && lossy))?.what ?? null
  }

  /** where a replica has not applied its partition to the end, and is not halted in it */
  #lanesBehind(): readonly Lane[] {
    const { running, replicas, ledger, broker } = this.#scene
    const behind: Lane[] = []
    for (const replica of replicas) {
      const appliers = [...running.values()].flatMap((one) => (one.role === 'applier' && one.replica === replica ? [one] : []))
      if (appliers.every(({ halted }) => halted !== null)) continue
      const halted = new Set(appliers.flatMap(haltedPlaces))
      for (const [place, { published }] of ledger.partitions) {
        if (halted.has(place)) continue
        const [topic = '', partition = ''] = place.split('/')
        const log = broker.log(topic, Number(partition))
        const checkpoint = replica.checkpoints.get(place)
        const following = ledger.following(replica, place)
        if (log === undefined || (log.end === 0n && published === 0)) continue
        if (checkpoint?.offset == null || log.from(checkpoint.offset, 1).length > 0) {
          const what = `${replica.name} stands at offset ${checkpoint?.offset} of ${place}, which ends at ${log.end}`
          behind.push({ place, what, atEnd: false })
        } else if (following.next < published && !following.founding) {
          const what = `${replica.name} has applied ${following.next} events of ${place}, where ${published} were published`
          behind.push({ place, what, atEnd: true })
        }
      }
    }
    return behind
  }

  /**
   * PROTOCOL 2.3 rule 2: what a relay has recorded of a log, and the log no longer has. (What was lost and overwritten under a
   * running relay is not seen by it, and is a gap for every sink that lacks it.)
   */
  #unnoticed(): string | null {
    const { broker, ledger, setup } = this.#scene
    for (const [topic, tails] of latestState(broker.state)?.topics ?? [])
      for (const [partition, tail] of tails.entries()) {
        const log = broker.log(topic, partition)
        const place = `${topic}/${partition}`
        if (log === undefined) return `the topic of ${place} is gone, and a relay goes on`
        if (log.end <= tail.offset)
          return `${place} ends at ${log.end}, offset ${tail.offset} was acknowledged, and a relay goes on`
        if (!setup.restartedAtEnd || tail.position === null || log.start > tail.offset) continue
        const [record] = log.from(tail.offset, 1)
        if (record?.offset !== tail.offset || !ledger.isOf(record, tail.position))
          return `${place} has another record at offset ${tail.offset} than was acknowledged, and a relay that started since goes on`
      }
    return null
  }
}

function haltedPlaces({ applier, process }: Extract<Running, { role: 'applier' }>): readonly string[] {
  if (!process.alive) return []
  const halted = applier.status().partitions.filter(({ phase }) => phase === 'halted')
  return halted.map(({ topic, partition }) => `${topic}/${partition}`)
}

/** by code: the harm that deserves it */
const RELAY_HALTS: Readonly<Record<string, readonly Harm[]>> = {
  MILLRACE_QUEUE_LOST_END: ['queue', 'state'],
  // a topic that had grown, and was made again as it began
  MILLRACE_PARTITIONS_CHANGED: ['queue'],
  MILLRACE_QUEUE_NOT_READY: ['queue'],
  MILLRACE_QUEUE_OFFSET_GONE: ['queue', 'retention'],
  MILLRACE_STATE_MISSING: ['state', 'copy'],
  MILLRACE_SLOT_MISSING: ['slot'],
  // what a former session wrote of its state, arriving when the queue has lost all later ones, is an earlier state of the queue's
  MILLRACE_SLOT_MOVED: ['slot', 'state'],
  MILLRACE_PUBLICATION_MISSING: ['publication'],
  MILLRACE_SOURCE_CHANGED: ['timeline'],
  MILLRACE_FINGERPRINT_CHANGED: ['fingerprint'],
}
const APPLIER_HALTS: Readonly<Record<string, readonly Harm[]>> = {
  MILLRACE_GAP: ['queue'],
  MILLRACE_QUEUE_OFFSET_GONE: ['queue', 'retention'],
  // a broker that has just come back may have the last word on a partition that retention had emptied
  MILLRACE_QUEUE_NOT_READY: ['queue', 'retention'],
  MILLRACE_EVENT_CONFLICT: ['queue', 'retention'],
}
