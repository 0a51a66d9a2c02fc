import { decodeBeginning } from '../core/chain.ts'
import type { Clock } from '../core/clock.ts'
import type { Log } from '../core/connector.ts'
import type { Copy, MendOptions, Reach } from '../core/copy.ts'
import { orderOf } from '../core/event.ts'
import { murmur2 } from '../core/murmur2.ts'
import type { Queue } from '../core/queue.ts'
import type { Sink } from '../core/sink.ts'
import {
  type ComparePlace,
  type Comparing,
  compareAll,
  firstPlace,
  type KeyVerdict,
  named,
  type TargetCounts,
} from './compare.ts'
import { catchUp, type Folded, foldOn, logStart } from './fold.ts'
import type { Desk, Progress } from './job.ts'
import { paceOf } from './pace.ts'
import { LOWEST } from './replay-log.ts'

/**
 * Verify, for a sink with rows: everything that the queue retains is folded, up to where the sink stands, and every key of
 * the sink is compared with that, beside the live traffic (PROTOCOL 2.5). What differs is mended where that is asked
 * for: then this is a repair, and with the rows that are in no event a rebuild in place.
 *
 * What is remembered of it: JSON as it is.
 */
export interface VerifyState {
  /** records that were read */
  readonly read: number
  /** null: all is folded first */
  readonly place: ComparePlace | null
  /** keys that wait in the sink, and those of which the copy could not take an event: they are left alone */
  readonly parked: number
  readonly refused: readonly string[]
  /** of each table and kind the first keys that are not equal */
  readonly first: readonly KeyVerdict[]
  /** what the comparison with the stream came to; null: it is under way. The copy then serves `--against source` */
  readonly verified: Verified | null
}

export const BEGIN_VERIFY: VerifyState = { read: 0, place: null, parked: 0, refused: [], first: [], verified: null }

export interface VerifyWork {
  readonly sink: Pick<Sink, 'checkpoints' | 'parking'>
  readonly copy: Copy
  readonly queue: Pick<Queue, 'read' | 'ranges'>
  readonly desk: Desk<VerifyState>
  /** null: every source */
  readonly sources: ReadonlySet<string> | null
  /** of the topics that the sink has checkpoints in, those that it follows now */
  readonly follows: (topic: string) => boolean
  /** the share of the keys that is looked at, by a hash of the ordering key; null: all. Rows must have one key each. */
  readonly sample: number | null
  /** events and keys a second; null: as fast as it goes */
  readonly rate: number | null
  /** null: nothing is changed */
  readonly mend: MendOptions | null
  /** see `Comparing` */
  readonly carry?: Comparing['carry']
  /** every key that is not equal, once it is known; some again after an interruption */
  readonly told: (verdicts: readonly KeyVerdict[]) => void
  readonly log: Log
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly failpoint: (name: VerifyFailpoint) => Promise<void> | void
}

/** Where tests kill the process. */
export type VerifyFailpoint =
  | 'verify-batch-folded'
  | 'verify-folded'
  | 'verify-chunk-compared'
  | 'verify-done'
  | 'rebuild-halted'
  | 'rebuild-adopting'
  | 'rebuild-swapping'
  | 'rebuild-swapped'

export interface Verified {
  /** records that were read from the queue */
  readonly read: number
  /** by table */
  readonly targets: readonly TargetCounts[]
  /** keys that wait in the sink */
  readonly parked: number
  /** keys of which the sink could not take an event now */
  readonly refused: readonly string[]
  /** of each table and kind the first keys that are not equal, or were not before they were mended */
  readonly first: readonly KeyVerdict[]
  /** the queue holds all there ever was: null where rows that are in no event were not looked for */
  readonly whole: boolean | null
}

/** Goes on from what the desk remembers. @throws Stopped, and whatever the sink and the queue do */
export async function verify(work: VerifyWork): Promise<Verified> {
  const verification = openVerification(work)
  await verification.fold()
  return verification.compare()
}

/** Its two halves, for what else is to be done between them. */
export interface Verification {
  /** Folds all there is, up to where the sink stands, or stood a moment ago. To be called again to go on. */
  fold(): Promise<void>
  /** Folds up to where the sink stands. @returns keys that are folded apart */
  foldOnce(): Promise<{ readonly parked: number; readonly refused: readonly string[] }>
  /** Compares all keys, folding on where they go on. */
  compare(): Promise<Verified>
}

export function openVerification(work: VerifyWork): Verification {
  const { copy, desk, queue, clock, signal, failpoint, sample, mend } = work
  const pace = paceOf(work.rate, clock)
  let reach: Reach | null = null
  let { first } = desk.job.state

  const note = (next: Partial<VerifyState>, progress: Progress, atOnce = false): Promise<void> =>
    desk.note({ state: { ...desk.job.state, ...next }, progress }, atOnce)

  async function foldOnce(phase: 'fold' | 'compare'): Promise<Pick<Folded, 'parked' | 'refused'>> {
    const { state, progress: shown } = desk.job
    const folded = await foldOn({
      ...work,
      pace,
      selects: sample === null ? null : (event) => isSampled(orderOf(event), sample),
      span: async (place) => (work.follows(place.topic) ? { start: await logStart(queue, place), end: null } : null),
      async note(read, of) {
        await failpoint('verify-batch-folded')
        await note({ read: state.read + read }, phase === 'compare' ? shown : { phase, unit: 'events', done: read, of })
      },
    })
    reach = sample === null ? reachOf(folded) : null
    const { parked, refused } = folded
    await note({ parked, refused }, desk.job.progress)
    return { parked, refused }
  }

  return {
    async fold() {
      await catchUp(
        () => desk.job.state.read,
        () => foldOnce('fold'),
      )
      await failpoint('verify-folded')
    },

    foldOnce: () => foldOnce('compare'),

    async compare() {
      if (desk.job.state.place === null) first = []
      const from = desk.job.state.place ?? firstPlace(copy.targets)
      await note({ place: from, first }, compared(from), true)
      const targets = await compareAll(
        {
          copy,
          async foldOn() {
            await foldOnce('compare')
          },
          // what is folded later may begin a chain anew, and reach less far then
          get reach() {
            return reach
          },
          mend,
          ...(work.carry !== undefined && { carry: work.carry }),
          pace,
          clock,
          signal,
          told(verdicts) {
            work.told(verdicts)
            first = named(first, verdicts)
          },
          async keep(place) {
            await failpoint('verify-chunk-compared')
            await note({ place, first }, compared(place))
          },
        },
        from,
      )
      await failpoint('verify-done')
      const { read, parked, refused } = desk.job.state
      return { read, targets, parked, refused, first, whole: reach?.whole ?? null }
    },
  }
}

function compared({ counts }: ComparePlace): Progress {
  return { phase: 'compare', unit: 'keys', done: counts.reduce((sum, { keys }) => sum + keys, 0), of: null }
}

/**
 * A sink that began in the midst of its log may hold rows that it was given by other means: those that show no position
 * are not called extra then.
 */
function reachOf({ reach, live }: Folded): Reach {
  const fromTheFirst = live.every(({ beginning }) => beginning !== null && decodeBeginning(beginning).until === 0n)
  if (!reach.whole || fromTheFirst) return reach
  const sources = live.flatMap(({ positions }) => [...positions.keys()])
  return { whole: false, since: new Map(sources.map((source) => [source, LOWEST])) }
}

function isSampled(order: string, share: number): boolean {
  return (murmur2(encoder.encode(order)) >>> 0) / 0x1_0000_0000 < share
}

const encoder = new TextEncoder()
