import type { Clock } from '../core/clock.ts'
import type { Copy, Difference, DifferenceKind, MendOptions, Reach, Refused } from '../core/copy.ts'
import { codeOf } from '../core/errors.ts'
import type { Position } from '../core/position.ts'
import type { ParkReason } from '../core/sink.ts'
import type { Pace } from './pace.ts'

/**
 * Compares the keys of a sink with their folded states while live traffic goes on, and mends those that differ where that
 * is asked for: the second half of verify, rebuild and replay (PROTOCOL 2.5).
 *
 * One comparison is one snapshot, but the fold ended before it. So no difference counts before the fold has gone on to where
 * the sink stood then and the key was looked at again; a key that has gone on again each time is called hot.
 *
 * Memory is bounded by `limit` keys; whatever is told goes through `told`.
 */
export interface Comparing {
  readonly copy: Pick<Copy, 'targets' | 'compare' | 'recheck' | 'mend'>
  /** folds on to where the live sink stands now */
  readonly foldOn: () => Promise<void>
  /** null: only keys that are in the copy are looked at */
  readonly reach: Reach | null
  /** null: nothing is changed */
  readonly mend: MendOptions | null
  /** what is to be done with keys of which the fold does not tell the state; absent: nothing */
  readonly carry?: (keys: readonly Difference[]) => Promise<void>
  readonly pace: Pace
  readonly clock: Clock
  readonly signal: AbortSignal
  /** the keys that are not equal, as soon as that is settled; those of one `limit` again after a crash */
  readonly told: (verdicts: readonly KeyVerdict[]) => void
  /** Remembers that all before the place is settled. Throws when the signal is aborted, which ends the comparison. */
  readonly keep: (place: ComparePlace) => Promise<void>
  /** Between two comparisons as long as one took, a second at most: the store has other work. Default: true */
  readonly rests?: boolean
  /** keys of one statement. Default: 5,000 */
  readonly limit?: number
  /** how often a key that is newer than its fold is looked at again before it is called hot. Default: 8 */
  readonly rechecks?: number
}

/** `hot`: it was newer than the fold each time it was looked at. The others: see `DifferenceKind`. */
export type VerdictKind = Exclude<DifferenceKind, 'newer'> | 'hot'

export interface KeyVerdict {
  readonly target: string
  /** as the sink's guards and markers write it */
  readonly key: string
  readonly kind: VerdictKind
  /** where the folded state stands, and what the replica showed; null: no such row, or none shown */
  readonly folded: Position | null
  readonly shown: Position | null
  /** it was found so, and is equal now */
  readonly mended: boolean
  /** why the store does not take it as it should be; null: nobody tried, or nothing is wrong with that */
  readonly refused: ParkReason | null
}

export interface TargetCounts {
  readonly target: string
  /** that were compared */
  readonly keys: number
  /** of those that are not equal; what was mended is counted here too */
  readonly kinds: Readonly<Record<VerdictKind, number>>
  readonly mended: number
}

/** Where a comparison stands: JSON as it is. */
export interface ComparePlace {
  /** of targets that are done, then of the one under way */
  readonly counts: readonly TargetCounts[]
  /** null: every target is done */
  readonly target: string | null
  readonly after: string | null
}

const LIMIT = 5_000
const RECHECKS = 8
/** how often a mend is tried that came too late for a row, or whose fold was not far enough */
const MENDS = 5
/** keys that are named, of each table and kind */
const NAMED = 10
/** ms */
const MAX_REST = 1_000
/** keys that are mended in one transaction, for which every lane of the table waits */
const MEND_LIMIT = 1_000

export function firstPlace(targets: readonly string[]): ComparePlace {
  return { counts: [], target: targets[0] ?? null, after: null }
}

/** Goes on from the place; resolves when every target is done. @throws whatever the sink does: nothing beyond the last place that was kept counts */
export async function compareAll(comparing: Comparing, from: ComparePlace): Promise<readonly TargetCounts[]> {
  const { copy, pace, told, keep, clock, signal } = comparing
  const limit = Math.min(comparing.limit ?? LIMIT, pace.piece)
  let place = from
  while (place.target !== null) {
    const { target } = place
    let pending: Difference[] = []
    let keys = 0
    let after = place.after
    for (let ended = false; !ended; ) {
      const begun = clock.elapsed()
      const chunk = await copy.compare(target, after, { limit, reach: comparing.reach })
      pending.push(...chunk.differences)
      keys += chunk.keys
      after = chunk.next
      ended = after === null
      if (comparing.rests !== false) await clock.wait(Math.min(clock.elapsed() - begun, MAX_REST), signal)
      await pace.take(chunk.keys, signal)
      if (signal.aborted) await keep(place)
      if (!ended && pending.length > 0 && pending.length < limit) continue
      const verdicts = await settle(comparing, pending)
      if (verdicts.length > 0) told(verdicts)
      place = nextPlace(copy.targets, place, target, after, keys, verdicts)
      await keep(place)
      pending = []
      keys = 0
    }
  }
  return place.counts
}

/** Which of the keys are not equal, once the fold has gone on; mended, and looked at once more, where that is wanted. */
async function settle(comparing: Comparing, pending: readonly Difference[]): Promise<readonly KeyVerdict[]> {
  const { mend, carry } = comparing
  const found = await settled(comparing, pending)
  const untold = found.filter(({ kind }) => kind === 'parked' || kind === 'partial' || kind === 'unverifiable')
  if (carry !== undefined && untold.length > 0) await carry(untold)
  if (mend === null) return found.map((one) => verdictOf(one, false, null))
  const left = new Map<string, Difference>()
  const refused = new Map<string, ParkReason>()
  let wrong = found.filter((one) => isMended(one, mend))
  // a row that goes on before it is mended is left alone, and is wrong still when some of it was written by parts
  for (let attempt = 1; wrong.length > 0; attempt++) {
    refused.clear()
    for (const { key, reason } of await mendAll(comparing, wrong, mend)) refused.set(key.key, reason)
    const again = await settled(comparing, wrong)
    const last = attempt === MENDS
    for (const one of again) if (last || !isMended(one, mend)) left.set(one.key, one)
    wrong = last ? [] : again.filter((one) => isMended(one, mend))
  }
  return found.map((one) => {
    const now = left.get(one.key)
    return now === undefined ? verdictOf(one, isMended(one, mend), null) : verdictOf(now, false, refused.get(one.key) ?? null)
  })
}

/** what was deleted stays deleted, whatever is done about rows that never were in the stream */
const isMended = ({ kind, folded }: Difference, { extras }: MendOptions): boolean =>
  kind === 'missing' || kind === 'different' || (kind === 'extra' && (extras || folded !== null))

async function settled(comparing: Comparing, pending: readonly Difference[]): Promise<readonly Difference[]> {
  const { copy, foldOn, limit = LIMIT, rechecks = RECHECKS } = comparing
  const done = pending.filter(({ kind }) => !mayPass(kind))
  let open = pending.filter(({ kind }) => mayPass(kind))
  for (let round = 1; open.length > 0; round++) {
    const before = new Map(open.map((one) => [one.key, one]))
    await foldOn()
    const again = await copy.recheck(open, { limit, reach: comparing.reach })
    const passes = (one: Difference): boolean => round < rechecks && !isSettled(one, before.get(one.key))
    done.push(...again.filter((one) => !passes(one)))
    open = again.filter(passes)
  }
  return done
}

/**
 * Whether it says the same after the fold went on to where the sink stood at the look before. A row that is missing may
 * have been made, deleted and forgotten since, so its state must be the one it had then.
 */
function isSettled({ kind, folded }: Difference, before: Difference | undefined): boolean {
  if (kind === 'missing') return before?.kind === 'missing' && before.folded === folded
  return kind !== 'newer'
}

/** whether the fold, going on, may find the key equal */
const mayPass = (kind: DifferenceKind): boolean =>
  kind === 'missing' || kind === 'extra' || kind === 'different' || kind === 'newer'

async function mendAll(
  { copy, foldOn }: Comparing,
  wrong: readonly Difference[],
  options: MendOptions,
): Promise<readonly Refused[]> {
  const refused: Refused[] = []
  for (let from = 0, attempt = 1; from < wrong.length; )
    try {
      refused.push(...(await copy.mend(wrong.slice(from, from + MEND_LIMIT), options)).refused)
      from += MEND_LIMIT
      attempt = 1
    } catch (error) {
      if (codeOf(error) !== 'MILLRACE_COPY_BEHIND' || attempt++ === MENDS) throw error
      await foldOn()
    }
  return refused
}

function verdictOf({ kind, ...key }: Difference, mended: boolean, refused: ParkReason | null): KeyVerdict {
  return { ...key, kind: kind === 'newer' ? 'hot' : kind, mended, refused }
}

function nextPlace(
  targets: readonly string[],
  { counts }: ComparePlace,
  target: string,
  after: string | null,
  keys: number,
  verdicts: readonly KeyVerdict[],
): ComparePlace {
  const before = counts.find((one) => one.target === target) ?? { target, keys: 0, kinds: NO_KEYS, mended: 0 }
  const kinds = { ...before.kinds }
  for (const { kind } of verdicts) kinds[kind]++
  const mended = before.mended + verdicts.filter((one) => one.mended).length
  return {
    counts: [...counts.filter((one) => one.target !== target), { target, keys: before.keys + keys, kinds, mended }],
    target: after === null ? (targets[targets.indexOf(target) + 1] ?? null) : target,
    after,
  }
}

export const NO_KEYS: TargetCounts['kinds'] = {
  missing: 0,
  extra: 0,
  different: 0,
  hot: 0,
  parked: 0,
  partial: 0,
  unverifiable: 0,
}

/** The first of each table and kind: those that are known already, and what is new. */
export function named(known: readonly KeyVerdict[], verdicts: readonly KeyVerdict[]): readonly KeyVerdict[] {
  const groupOf = ({ target, kind }: KeyVerdict): string => `${kind} ${target}`
  const counts = new Map<string, number>()
  for (const one of known) counts.set(groupOf(one), (counts.get(groupOf(one)) ?? 0) + 1)
  const more = verdicts.filter((one) => {
    const count = counts.get(groupOf(one)) ?? 0
    counts.set(groupOf(one), count + 1)
    return count < NAMED && !known.some(({ target, key }) => target === one.target && key === one.key)
  })
  return more.length === 0 ? known : [...known, ...more]
}
