// One file and over 400 lines, because its rules share what they remember of each event. When they are asked is judge.ts.
import { partitionOf } from '../../src/core/murmur2.ts'
import { type Lsn, type Position, position } from '../../src/core/position.ts'
import type { StoredRecord, TopicPartition } from '../../src/core/queue.ts'
import { HEADER } from '../../src/core/record.ts'
import { type Commit, SOURCE, utf8 } from './postgres.ts'
import { MAX_RECORD_BYTES } from './queue.ts'
import { type Applied, handlesOf, type Replica, rowKey } from './replica.ts'
import { type Row, topicFor } from './schedule.ts'

/** A promise of PROTOCOL 2.6 that was broken. */
export class Violation extends Error {
  /** `I1` … `I8`, `I10`, `false halt`, `silent loss`: what a shorter schedule must break too */
  readonly promise: string

  constructor(promise: string, what: string) {
    super(what)
    this.promise = promise
  }
}

/** What was committed, as the writers remember it: the pipeline's own reckoning has no part in it. */
export interface Committed {
  readonly position: Position
  readonly row: Row
  place: string
  /** the place of it in its partition, from 0 */
  index: number
  readonly end: Lsn
  /** takes a unique value that is another row's: no store could take it */
  readonly contradicts: boolean
  /** when it stood in the queue for the first time, among all events: 0 before */
  published: number
}

interface Partition {
  readonly events: Committed[]
  /** how many of them have stood in the queue: always the first ones */
  published: number
}

/** How far a replica is in one partition. */
interface Following {
  /** the next to be applied */
  next: number
  /** it began in the midst of the log: its chain may be founded, also anew, as long as what it passes over stood there before */
  founding: boolean
  first: number | null
  /** how many events had been published when it began */
  before: number
  readonly applied: Set<number>
  readonly parked: Set<number>
}

const decoder = new TextDecoder()

export class Ledger {
  readonly partitions = new Map<string, Partition>()
  readonly #byPosition = new Map<string, Committed>()
  readonly #commits: { readonly commitLsn: Lsn; readonly events: readonly Committed[] }[] = []
  readonly #handles = new Map<string, string>()
  readonly #state = new Map<string, { readonly value: string | null; readonly event: Committed }>()
  readonly #followed = new Map<Replica, Map<string, Following>>()
  readonly #partitionsPerTopic: number
  /** of those that have grown */
  readonly #grown = new Map<string, number>()
  /**
   * Events in the queue whose commits were lost with their server. From the first on the pipeline has to halt, and what else
   * it does is nobody's measure.
   */
  readonly phantoms: { readonly place: string; readonly position: Position }[] = []
  /** the queue has lost records, or retention has taken some: the giver of a value may be among them */
  lossy = false
  /** … lost them: the log may have grown again to where it was */
  regrown = false
  drained = false
  /** those that the last drain waited for; one that begins later meets the events of a moved key in two partitions, and has the guard */
  waitedFor: ReadonlySet<Replica> = new Set()
  /** a drained stream goes on without a topic that is gone (PROTOCOL 2.2): its chains begin anew, and sinks that had begun halt */
  readonly deleted = new Set<string>()
  readonly #vanished = new Set<string>()
  /** the highest position that ever stood in a place: counted on when what is published is nobody's measure any more */
  readonly #highest = new Map<string, Position>()
  #published = 0
  /** commits below it are published, and may be confirmed */
  #covered = 0

  constructor(partitionsPerTopic: number) {
    this.#partitionsPerTopic = partitionsPerTopic
  }

  commit(commit: Commit, epoch: number): void {
    const events = commit.rows.map((row, i) => {
      const place = this.#placeOf(row)
      const partition = this.#partition(place)
      const key = rowKey(SOURCE, row.type, row.key)
      const handles = handlesOf(row.payload)
      const contradicts = handles.some((handle) => (this.#handles.get(handle) ?? key) !== key)
      for (const [handle, owner] of this.#handles) if (owner === key) this.#handles.delete(handle)
      for (const handle of handles) this.#handles.set(handle, key)
      const event: Committed = {
        position: position(epoch, commit.commitLsn, i + 1),
        row,
        place,
        index: partition.events.length,
        end: commit.endLsn,
        contradicts,
        published: 0,
      }
      partition.events.push(event)
      this.#byPosition.set(event.position, event)
      // two standbys promoted apart may give one position twice: who relayed the one refuses the other
      this.#vanished.delete(event.position)
      this.#state.set(key, { value: row.payload, event })
      return event
    })
    this.#commits.push({ commitLsn: commit.commitLsn, events })
  }

  /**
   * A relay has taken the partitions that were added to the topic: what was not published yet goes where its key is now. No
   * event may be under way in a sink then, or the next one of its key could overtake it.
   */
  grow(topic: string, count: number): void {
    if (count <= this.partitionsOf(topic)) return
    this.#grown.set(topic, count)
    const waiting: Committed[] = []
    for (const [place, { events, published }] of this.partitions) {
      if (!place.startsWith(`${topic}/`)) continue
      waiting.push(...events.splice(published))
      for (const [replica, followed] of this.#followed) {
        const following = followed.get(place)
        if (!this.waitedFor.has(replica)) continue
        if (following !== undefined && following.next < published && !following.founding && !this.lossy)
          throw new Violation('I3', `keys of ${place} move, and ${replica.name} has not applied all that was published there`)
      }
    }
    for (const event of waiting.sort((a, b) => (a.position < b.position ? -1 : 1))) {
      event.place = this.#placeOf(event.row)
      const { events } = this.#partition(event.place)
      event.index = events.length
      events.push(event)
    }
  }

  /** by which keys are placed now */
  partitionsOf(topic: string): number {
    return this.#grown.get(topic) ?? this.#partitionsPerTopic
  }

  #placeOf({ aggregate, orderingKey, key }: Row): string {
    const topic = topicFor(aggregate)
    return `${topic}/${partitionOf(utf8(orderingKey ?? key), this.partitionsOf(topic))}`
  }

  /** Commits that nobody will ever see again, unless they are in the queue already. */
  vanish(commits: readonly Commit[]): void {
    const first = commits[0]?.commitLsn
    if (first === undefined) return
    for (const { events } of this.#commits.splice(this.#commits.findIndex(({ commitLsn }) => commitLsn === first)))
      for (const event of events) {
        const { events: all, published } = this.#partition(event.place)
        if (event.index < published) this.phantoms.push(event)
        else {
          all.length = Math.min(all.length, event.index)
          this.#byPosition.delete(event.position)
          this.#vanished.add(event.position)
        }
      }
    this.#covered = Math.min(this.#covered, this.#commits.length)
  }

  /** I3 and I4, at every append. */
  appended({ topic, partition }: TopicPartition, records: readonly StoredRecord[], by: string): void {
    const place = `${topic}/${partition}`
    for (const record of records) {
      const headers = new Map(record.headers.map(([name, value]) => [name, decoder.decode(value)]))
      if (headers.get(HEADER.source) !== SOURCE) continue
      const at = headers.get(HEADER.position) as Position
      const highest = this.#highest.get(place)
      if (highest === undefined || at > highest) this.#highest.set(place, at)
      if (this.#vanished.has(at)) {
        // behind an event of a later epoch it is a stale record to all that read the log: no chain takes it
        if (highest !== undefined && at < highest) continue
        this.phantoms.push({ place, position: at })
      }
      if (this.phantoms.length > 0) return
      const event = this.#byPosition.get(at)
      if (event === undefined) throw new Violation('I4', `${by} published ${at}, which nobody committed`)
      if (event.place !== place)
        throw new Violation('I3', `${by} published ${at} to ${place}, and its key belongs to ${event.place}`)
      if (record.key !== null && decoder.decode(record.key) !== event.row.key)
        throw new Violation('I4', `${at} has another key than was written`)
      const value = record.value === null ? null : decoder.decode(record.value)
      if (!headers.has(HEADER.placeholder) && value !== event.row.payload)
        throw new Violation('I4', `${at} has another payload than was written`)
      const log = this.#partition(place)
      const prev = log.events[event.index - 1]?.position ?? null
      const beginsAnew = !headers.has(HEADER.prev) && this.drained && this.deleted.has(topic)
      if ((headers.get(HEADER.prev) ?? null) !== prev && !beginsAnew)
        throw new Violation(
          'I3',
          `${by} published ${at} to ${place} as what follows ${headers.get(HEADER.prev) ?? 'nothing'}, and it follows ${prev}`,
        )
      if (event.index > log.published)
        throw new Violation(
          'I3',
          `${by} published ${at} to ${place} while ${log.events[log.published]?.position}, committed before it, is not there`,
        )
      if (event.index === log.published) {
        log.published++
        event.published = ++this.#published
      }
    }
  }

  /** I1: whatever is below a confirmed LSN, Postgres will not send again. */
  confirmed(lsn: Lsn, intent: Lsn | null): void {
    if (this.phantoms.length > 0) return
    if (intent !== null && lsn > intent)
      throw new Violation(
        'I1',
        `the slot was confirmed up to ${lsn.toString(16)}, and the intent that is durable is ${intent.toString(16)}`,
      )
    for (
      let commit = this.#commits[this.#covered];
      commit !== undefined && commit.commitLsn < lsn;
      commit = this.#commits[this.#covered]
    ) {
      const missing = commit.events.find((event) => event.index >= this.#partition(event.place).published)
      if (missing !== undefined)
        throw new Violation(
          'I1',
          `the slot was confirmed up to ${lsn.toString(16)}, and ${missing.position} has never stood in the queue`,
        )
      this.#covered++
    }
  }

  /** I5, I6 and the order of effects, at every commit of a replica. */
  applied({ replica, place: { topic, partition }, batch, offsetBefore }: Applied): void {
    if (this.phantoms.length > 0) return
    const place = `${topic}/${partition}`
    const following = this.following(replica, place)
    if (offsetBefore !== null && batch.offset < offsetBefore)
      throw new Violation('I5', `${replica.name} went back from offset ${offsetBefore} to ${batch.offset} in ${place}`)
    if (offsetBefore === null && (batch.offset > 0n || replica.startsLate)) {
      following.founding = true
      following.before = this.#partition(place).published
    }
    const parked = new Map(batch.parked.map(({ event, reason }) => [event.position, reason]))
    const ours = [...batch.events, ...batch.parked.map(({ event }) => event)]
      .filter(({ source }) => source === SOURCE)
      .sort((a, b) => (a.position < b.position ? -1 : 1))
    for (const event of ours) {
      const committed = this.#byPosition.get(event.position)
      if (replica.startsLate && (following.first ?? -1) === -1 && this.#vanished.has(event.position)) {
        // who begins at the end of the log cannot tell lost events that stand behind later ones; what follows is a gap to it
        following.first = -1
        continue
      }
      if (committed === undefined || committed.place !== place)
        throw new Violation('I4', `${replica.name} applied ${event.position} in ${place}, where it does not belong`)
      const jumps = committed.index !== following.next
      // it knows of no more than an offset up to which it may jump: a log that was lost and has grown again is as any other
      const before = this.regrown ? Number.POSITIVE_INFINITY : following.before
      const founds = following.founding && committed.index > following.next && committed.index <= before
      if (jumps && !founds)
        throw new Violation(
          committed.index < following.next ? 'I6' : 'I3',
          `${replica.name} applied ${event.position} in ${place}, and ${this.#partition(place).events[following.next]?.position} was next`,
        )
      if (jumps || following.first === null) following.first = committed.index
      following.next = committed.index + 1
      const reason = parked.get(event.position)
      if (reason !== undefined) {
        if (reason !== null && !isUnfit(committed, reason.code) && !this.overtook(replica, committed, reason.code))
          throw new Violation(
            'false park',
            `${replica.name} parked ${event.position} in ${place}, which it could have applied: ${reason.code}`,
          )
        following.parked.add(committed.index)
      } else {
        const order = orderOfRow(committed.row)
        const overtaken = [...following.parked].find(
          (index) => orderOfRow((this.#partition(place).events[index] as Committed).row) === order,
        )
        if (overtaken !== undefined)
          throw new Violation('I6', `${replica.name} applied ${event.position} although its key is parked`)
        following.applied.add(committed.index)
      }
    }
    const to = batch.moves.find(({ source }) => source === SOURCE)?.to
    if (to !== ours.at(-1)?.position)
      throw new Violation(
        'I6',
        `${replica.name} moved its checkpoint in ${place} to ${to}, and the last event it took is ${ours.at(-1)?.position}`,
      )
  }

  /** the first `count` parked events of the order were applied by a person */
  redriven(replica: Replica, order: string, count: number): void {
    for (const [place, following] of this.#followed.get(replica) ?? []) {
      const { events } = this.#partition(place)
      const waiting = [...following.parked].filter(
        (index) => `${SOURCE}/${orderOfRow((events[index] as Committed).row)}` === order,
      )
      for (const index of waiting.slice(0, count)) {
        following.parked.delete(index)
        following.applied.add(index)
      }
    }
  }

  following(replica: Replica, place: string): Following {
    const of = this.#followed.get(replica) ?? new Map<string, Following>()
    this.#followed.set(replica, of)
    const following = of.get(place) ?? {
      next: 0,
      founding: false,
      first: null,
      before: 0,
      applied: new Set(),
      parked: new Set(),
    }
    of.set(place, following)
    return following
  }

  isOf(record: StoredRecord, at: Position): boolean {
    return positionOf(record) === at
  }

  at(position: string): Committed | undefined {
    return this.#byPosition.get(position as Position)
  }

  /**
   * A sink that begins at the end of the log, or where retention has emptied it, cannot know that the first event it sees is
   * a late duplicate, and takes what follows for a gap (PROTOCOL 2.4 knows this only of those that came before it).
   */
  foundedOnDuplicate(replica: Replica, place: string): boolean {
    const { founding, first, before } = this.following(replica, place)
    return founding && first !== null && first < before
  }

  /**
   * Partitions flow apart, so a unique value may be taken before it is given up in another one. Whoever looks before the
   * giver's event stands in the queue cannot tell it from a contradiction; and where a replica applied the taker before it
   * ever saw the giver, it is one, in that replica.
   */
  overtook(replica: Replica, event: Committed, code: string): boolean {
    if (code !== 'MILLRACE_EVENT_CONFLICT') return false
    if (this.lossy) return true
    const [handle] = handlesOf(event.row.payload)
    for (const row of replica.rows.values())
      if (row.position > event.position && handlesOf(row.value).some((other) => other === handle)) return true
    for (const { events } of this.partitions.values())
      if (events.some((other) => other.position < event.position && (other.published === 0 || other.published > event.published)))
        return true
    return false
  }

  /** I2 */
  get unpublished(): string | null {
    for (const [place, { events, published }] of this.partitions) {
      const event = events[published]
      if (event !== undefined) return `${event.position} was committed and has never stood in ${place}`
    }
    return null
  }

  /** I7 and I8: each row is what the last event of its key made it, of those that the replica took. */
  checkRows(replica: Replica): void {
    // a replica that began in the middle knows of a key what it has seen of it; a key may have moved to another partition
    const fold = new Map<string, Committed>()
    for (const [place, { events }] of this.partitions)
      for (const index of this.following(replica, place).applied) {
        const event = events[index] as Committed
        const key = rowKey(SOURCE, event.row.type, event.row.key)
        const last = fold.get(key)
        if (last === undefined || event.position > last.position) fold.set(key, event)
      }
    for (const [key, event] of fold) {
      const row = replica.rows.get(key)
      if (row?.position === event.position && row.value === event.row.payload) continue
      throw new Violation(
        event.row.payload === null ? 'I8' : 'I7',
        `${replica.name} shows ${key} as of ${row?.position ?? 'nothing'}, and its last event is ${event.position}`,
      )
    }
    for (const key of replica.rows.keys())
      if (key.startsWith(`${SOURCE}/`) && !this.#state.has(key))
        throw new Violation('I4', `${replica.name} has a row ${key} that nobody wrote`)
  }

  #partition(place: string): Partition {
    let partition = this.partitions.get(place)
    if (partition === undefined) {
      partition = { events: [], published: 0 }
      this.partitions.set(place, partition)
    }
    return partition
  }
}

/** whether the event is at fault for what is said of it */
export function isUnfit({ row, contradicts }: Committed, code: string): boolean {
  if (code === 'MILLRACE_EVENT_REJECTED') return row.payload?.includes('"poison"') === true
  if (code === 'MILLRACE_EVENT_CONFLICT') return contradicts
  if (code === 'MILLRACE_EVENT_TOO_LARGE') return (row.payload?.length ?? 0) > MAX_RECORD_BYTES
  return code === 'MILLRACE_OUTBOX_ROW_INVALID' && row.headers?.startsWith('[') === true
}

const orderOfRow = (row: Row): string => row.orderingKey ?? row.key

function positionOf(record: StoredRecord): string | null {
  let source: string | null = null
  let at: string | null = null
  for (const [name, value] of record.headers) {
    if (name === HEADER.source) source = decoder.decode(value)
    if (name === HEADER.position) at = decoder.decode(value)
  }
  return source === SOURCE ? at : null
}
