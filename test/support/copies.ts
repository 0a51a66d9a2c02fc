import type {
  CompareOptions,
  Comparison,
  Copies,
  Copy,
  CopyRecord,
  CopyWish,
  Difference,
  DifferenceKind,
  RowTraits,
} from '../../src/core/copy.ts'
import { MillraceError } from '../../src/core/errors.ts'
import { type Event, orderOf } from '../../src/core/event.ts'
import type { Position } from '../../src/core/position.ts'
import type { TopicPartition } from '../../src/core/queue.ts'
import type { Lane, LaneBatch, PartitionCheckpoint } from '../../src/core/sink.ts'

/**
 * A sink's store in memory, with copies: one table, one row a key, columns as JSON. Events of type `Put` write a row whole,
 * `Part` writes some columns (a merge), `Gone` deletes. Honest to the contracts of `core/sink.ts` and `core/copy.ts`; nothing
 * of it waits, so every call is one transaction, and whoever tests decides what comes between two of them.
 */
export interface MemoryStore {
  readonly traits: RowTraits
  readonly live: Rows
  readonly copies: Copies
  claim(place: TopicPartition): Lane
  checkpoints(): readonly PartitionCheckpoint[]
  /** applies the events that wait, as far as there are any: the key is parked no more */
  redrive(place: TopicPartition, order: string): void
  /** the latest delete is forgotten with all before it: what a sink does with markers whose time is over */
  forgetMarkers(): void
  /** whoever works on the copy is no more; the copy stays */
  die(): void
  /** the store's server crashed: an unlogged copy is empty then, its checkpoints with it; the selection stays */
  crash(): void
}

export interface Row {
  readonly columns: Readonly<Record<string, string>>
  /** null: damaged */
  readonly position: Position | null
}

export interface Rows {
  readonly rows: Map<string, Row>
  readonly markers: Map<string, Position>
}

export const TARGET = 'table'

interface Kept extends Rows {
  readonly checkpoints: Map<string, PartitionCheckpoint>
  readonly waiting: Map<string, Event[]>
  /** rows of keys that are folded apart */
  readonly apart: Set<string>
  /** rows whose first known event was a part */
  readonly partial: Set<string>
  /** partitions that were read from their very first record on: no key of theirs began before */
  readonly whole: Set<string>
}

const keyOf = (event: Event): string => new TextDecoder().decode(event.key)
const placeOf = ({ topic, partition }: TopicPartition): string => `${topic}/${partition}`
const empty = (): Kept => ({
  rows: new Map(),
  markers: new Map(),
  checkpoints: new Map(),
  waiting: new Map(),
  apart: new Set(),
  partial: new Set(),
  whole: new Set(),
})

/** @param refuses events that the store cannot take now */
export function memoryStore(traits: RowTraits, refuses: (event: Event) => boolean = () => false): MemoryStore {
  const live = empty()
  let forgottenBelow: Position | null = null
  let copy: { job: string; wish: CopyWish | null; holder: object | null; kept: Kept; selection: Set<string> | null } | null = null

  function apply(kept: Kept, event: Event, whole: boolean): void {
    const key = keyOf(event)
    const shown = kept.rows.get(key)?.position ?? kept.markers.get(key) ?? null
    if (shown !== null && shown > event.position) return
    if (event.type === 'Gone') {
      kept.rows.delete(key)
      kept.markers.set(key, event.position)
      kept.partial.delete(key)
      return
    }
    const columns = JSON.parse(new TextDecoder().decode(event.value as Uint8Array)) as Record<string, string>
    const before = kept.rows.get(key)
    if (event.type === 'Part' && !whole && before === undefined && !kept.markers.has(key)) kept.partial.add(key)
    if (event.type === 'Put') kept.partial.delete(key)
    kept.rows.set(key, {
      columns: event.type === 'Part' ? { ...before?.columns, ...columns } : columns,
      position: event.position,
    })
    kept.markers.delete(key)
  }

  function openLane(kept: () => Kept, place: TopicPartition, isCopy: boolean): Lane {
    const at = placeOf(place)
    const none: PartitionCheckpoint = { ...place, positions: new Map(), offset: null, parked: new Set(), beginning: null }
    const standing = (): PartitionCheckpoint => kept().checkpoints.get(at) ?? none
    return {
      checkpoint: standing(),
      async apply({ moves, offset, events, parked, beginning }: LaneBatch) {
        const own = kept()
        const checkpoint = standing()
        for (const { source, from } of moves)
          if ((checkpoint.positions.get(source) ?? null) !== from)
            throw new MillraceError('MILLRACE_SINK_FENCED', `${at} stands at ${checkpoint.positions.get(source)}, not at ${from}`)
        const refused = events.find(refuses)
        if (refused !== undefined)
          throw new MillraceError('MILLRACE_EVENT_REJECTED', 'it does not fit', {
            fields: { position: refused.position, source: refused.source },
          })
        if (checkpoint.offset === null && offset === 0n) own.whole.add(at)
        for (const event of events) apply(own, event, !isCopy || own.whole.has(at))
        const orders = new Set(checkpoint.parked)
        for (const { event } of parked) {
          orders.add(orderOf(event))
          own.waiting.set(orderOf(event), [...(own.waiting.get(orderOf(event)) ?? []), event])
          if (isCopy) own.apart.add(keyOf(event))
        }
        own.checkpoints.set(at, {
          ...place,
          positions: new Map([...checkpoint.positions, ...moves.map(({ source, to }) => [source, to] as const)]),
          offset,
          parked: orders,
          beginning: beginning ?? checkpoint.beginning,
        })
      },
      reread: async () => standing(),
      release: async () => {},
    }
  }

  /** whether the replica may rightly show a position that was not folded */
  function mayBe(kept: Kept, at: Position): boolean {
    for (const [place, { positions, offset }] of live.checkpoints) {
      const folded = kept.checkpoints.get(place)
      if (folded?.offset != null && offset !== null && folded.offset >= offset) continue
      for (const [source, applied] of positions) if (at <= applied && at > (folded?.positions.get(source) ?? '')) return true
    }
    return false
  }

  function differenceOf(kept: Kept, key: string, { reach }: Pick<CompareOptions, 'reach'>): Difference | null {
    const row = kept.rows.get(key)
    const marker = kept.markers.get(key) ?? null
    const folded = row?.position ?? marker
    const replica = live.rows.get(key)
    const deleted = live.markers.get(key) ?? null
    const shown = replica === undefined ? null : replica.position
    const told = (kind: DifferenceKind): Difference => ({ target: TARGET, key, kind, folded, shown })
    const beyond = (at: Position | null): boolean => at !== null && (folded === null || at > folded) && mayBe(kept, at)
    if (kept.apart.has(key)) return told('parked')
    if (kept.partial.has(key)) return told('partial')
    if (row !== undefined) {
      if (replica === undefined) return told(beyond(deleted) ? 'newer' : 'missing')
      if (beyond(shown)) return told('newer')
      return shown === folded && same(replica, row) ? null : told('different')
    }
    if (replica === undefined) return null
    if (beyond(shown)) return told('newer')
    if (marker !== null) return told('extra')
    if (reach === null) return null
    const since = [...reach.since.values()].reduce<Position | null>((most, at) => (most === null || at > most ? at : most), null)
    return told(reach.whole || (shown !== null && since !== null && shown >= since) ? 'extra' : 'unverifiable')
  }

  function held(holder: object) {
    if (copy === null || copy.holder !== holder) throw new MillraceError('MILLRACE_SINK_FENCED', 'the copy was lost')
    return copy
  }

  function openCopy(): Copy {
    if (copy === null) throw new MillraceError('MILLRACE_REPLAY_UNKNOWN', 'there is none')
    if (copy.holder !== null) throw new MillraceError('MILLRACE_REPLAY_RUNNING', 'another one works on it')
    const holder = {}
    copy.holder = holder
    const differ = (key: string, options: Pick<CompareOptions, 'reach'>): Difference | null =>
      differenceOf(held(holder).kept, key, options)
    return {
      job: copy.job,
      async keep(job) {
        held(holder).job = job
        return held(holder).wish
      },
      fold: async (place) => openLane(() => held(holder).kept, place, true),
      async select() {
        const { kept } = held(holder)
        held(holder).selection = new Set([...kept.rows.keys(), ...kept.markers.keys(), ...kept.apart])
        return (held(holder).selection as Set<string>).size
      },
      async restart() {
        held(holder).kept = empty()
      },
      targets: [TARGET],
      async compare(_, after, { limit, reach }): Promise<Comparison> {
        const { kept, selection } = held(holder)
        const folded = [...kept.rows.keys(), ...kept.markers.keys(), ...kept.apart]
        const all = new Set(reach === null ? folded : [...folded, ...live.rows.keys()])
        const keys = [...all].filter((key) => (selection?.has(key) ?? true) && (after === null || key > after)).sort()
        const looked = keys.slice(0, limit)
        return {
          next: keys.length > limit ? (looked.at(-1) as string) : null,
          keys: looked.length,
          differences: looked.flatMap((key) => differ(key, { reach }) ?? []),
        }
      },
      recheck: async (keys, options) => keys.flatMap(({ key }) => differ(key, options) ?? []),
      async mend(keys, { extras }) {
        const { kept } = held(holder)
        let written = 0
        let removed = 0
        const now = keys.flatMap(({ key }) => differ(key, { reach: { whole: true, since: new Map() } }) ?? [])
        const behind = [...live.checkpoints].some(([place, { offset }]) => {
          const folded = kept.checkpoints.get(place)
          if (folded?.offset != null && offset !== null && folded.offset >= offset) return false
          return (
            forgottenBelow !== null && [...(folded?.positions.values() ?? [''])].every((at) => at < (forgottenBelow as string))
          )
        })
        if (behind && now.some(({ kind }) => kind === 'missing')) throw new MillraceError('MILLRACE_COPY_BEHIND', 'fold on')
        for (const { key, kind, folded } of now) {
          if (kind === 'missing' || kind === 'different') {
            live.rows.set(key, kept.rows.get(key) as Row)
            live.markers.delete(key)
            written++
          } else if (kind === 'extra' && (folded !== null || extras)) {
            live.rows.delete(key)
            if (folded !== null) live.markers.set(key, folded)
            removed++
          }
        }
        return { written, removed, left: keys.length - written - removed, refused: [] }
      },
      async close() {
        if (copy?.holder === holder) copy.holder = null
      },
      async drop() {
        held(holder)
        copy = null
      },
    } satisfies Partial<Copy> as unknown as Copy
  }

  return {
    traits,
    live,
    claim: (place) => openLane(() => live, place, false),
    checkpoints: () => [...live.checkpoints.values()],
    redrive(place, order) {
      const checkpoint = live.checkpoints.get(placeOf(place)) as PartitionCheckpoint
      for (const event of live.waiting.get(order) ?? []) apply(live, event, true)
      live.waiting.delete(order)
      const parked = new Set([...checkpoint.parked].filter((one) => one !== order))
      live.checkpoints.set(placeOf(place), { ...checkpoint, parked })
    },
    forgetMarkers() {
      for (const at of live.markers.values()) if (forgottenBelow === null || at > forgottenBelow) forgottenBelow = at
      live.markers.clear()
    },
    die() {
      if (copy !== null) copy.holder = null
    },
    crash() {
      if (copy !== null) Object.assign(copy, { holder: null, kept: empty() })
    },
    copies: {
      rows: traits,
      async find(): Promise<CopyRecord | null> {
        const at = new Date(0)
        return copy && { job: copy.job, wish: copy.wish, held: copy.holder !== null, createdAt: at, updatedAt: at }
      },
      async create(job) {
        if (copy !== null) throw new MillraceError('MILLRACE_REPLAY_RUNNING', 'there is one')
        copy = { job, wish: null, holder: null, kept: empty(), selection: null }
        return openCopy()
      },
      take: async () => openCopy(),
      async ask(wish) {
        if (copy === null) throw new MillraceError('MILLRACE_REPLAY_UNKNOWN', 'there is none')
        copy.wish = wish
      },
    } satisfies Partial<Copies> as unknown as Copies,
  }
}

const same = (a: Row, b: Row): boolean =>
  JSON.stringify(Object.entries(a.columns).sort()) === JSON.stringify(Object.entries(b.columns).sort())
