import { randomBytes } from 'node:crypto'
import { type Epoch, epochsUpon, lastEpoch, nextEpoch, relayedUpTo, type ServerIdentity, sharedUpTo } from '../core/epoch.ts'
import { MillraceError } from '../core/errors.ts'
import type { Lsn } from '../core/position.ts'
import type { Queue } from '../core/queue.ts'
import {
  copiedOf,
  type Gap,
  latestState,
  MAX_GAPS,
  type RelayState,
  stateKey,
  statePrefix,
  type Tail,
  wentBack,
} from '../core/relay-state.ts'
import { decodeState, encodeState } from '../core/state-text.ts'
import { countMissing, type Refilled, refill } from '../pipeline/refill.ts'
import type { Catalog } from '../postgres/catalog.ts'
import { type NewSlot, type SlotRenewal, slotInUse } from '../postgres/refill-slot.ts'
import type { PostgresSource } from '../postgres/source.ts'
import type { ParsedConfig } from './config-schema.ts'
import { fingerprintOf, requireQueue, requireSource, type Surroundings } from './open.ts'

/** The two sides of a stream, opened. */
export interface Sides {
  readonly config: ParsedConfig
  readonly around: Surroundings
  readonly source: PostgresSource
  readonly renewal: SlotRenewal
  readonly queue: Queue
}

/** What a decision stands on; whoever wrote since then has made it void. */
export interface Known {
  /** the latest session's, of the records in the queue */
  readonly state: RelayState
  /** as the queue holds them now */
  readonly topics: ReadonlyMap<string, readonly Tail[]>
}

/**
 * - `accept-gap`: what lies between the old slot and the new start is never relayed
 * - `refill`: … is relayed from the rows of the outbox
 * - `drained`: there is nothing between: refused when the outbox holds a row that the queue does not
 */
export type Way = 'accept-gap' | 'refill' | 'drained'

export interface BegunEpoch {
  readonly epoch: number
  /** commits from here on are relayed */
  readonly start: Lsn
  /** null: nothing lies between */
  readonly gap: Gap | null
  /** what was made, for people */
  readonly made: readonly string[]
  readonly refilled: Refilled | null
}

/** Where tests kill the process: after each step that is durable. */
export type EpochStep = 'slot-dropped' | 'publication-made' | 'slot-made' | 'state-written' | 'refilling' | 'refilled' | 'copied'

/**
 * Goes on with the stream in a new epoch, whose first event follows, by `prev`, the last one of the epoch before.
 *
 * The order of the steps, so that a crash between any two leaves a stream that no relay runs on and that the same
 * command completes:
 * 1. the old slot goes (no relay holds it). Without a slot a relay refuses to begin.
 * 2. the publication, then the slot, as always. The new slot starts above what the recorded intent covers, or on another
 *    server or publication than the recorded ones: a relay still refuses, and the command begins again at 1.
 * 3. the record in the queue: the new epoch, start and publication, the gap, and a session number above every other, so
 *    that no zombie's record wins. This is the decision. Without a refill all is done: a relay may begin.
 *    With one, the gap says `pending`, and a relay refuses; the command begins again at 1, in one more epoch, and finds
 *    by their ids the events that were published before the crash.
 * 4. the refill, then the record again with what became of it. The tails in it are those that the queue acknowledged.
 * 5. the copy in the source. While it is older it is what a copy may be; where the database had none, a relay refuses,
 *    and the command writes it.
 */
export async function beginEpoch(
  { config, around, source, renewal, queue }: Sides,
  known: Known,
  way: Way,
  step: (name: EpochStep) => Promise<void> | void,
): Promise<BegunEpoch> {
  refuseChanged(known.state, fingerprintOf(config, around))
  const copy = await source.stateCopy.read()
  const catalog = await renewal.look()
  const kept = way === 'accept-gap' ? await keptSlot(catalog, known, source) : null
  const made: string[] = []
  let slot: NewSlot | null = null
  let decided = false
  try {
    const renewed = kept === null ? await makeAnew(renewal, catalog, config, made, step) : null
    slot = renewed?.slot ?? null
    const start = kept ?? (slot as NewSlot).start
    const server = await source.identify()
    const pending = pendingGap(known.state)
    const epochs = epochsOf(known, server, kept === null ? start : beyondRelayed(known, kept))
    const { epoch } = lastEpoch(epochs)
    const gap: Gap | null =
      way === 'drained'
        ? null
        : {
            at: around.clock.now(),
            epoch,
            from: pending?.from ?? known.state.intent,
            to: start,
            refill: way === 'refill' ? 'pending' : null,
          }
    const before = known.state.gaps.filter((one) => one !== pending)
    const gapsWith = (one: Gap | null): readonly Gap[] => (one === null ? before : [...before, one].slice(-MAX_GAPS))
    let state: RelayState = {
      ...known.state,
      session: known.state.session + 1,
      slot: slotName(config),
      publication: renewed?.publication ?? known.state.publication,
      epochs,
      intent: start,
      fingerprint: fingerprintOf(config, around),
      topics: known.topics,
      gaps: gapsWith(gap),
      drained: null,
    }
    const missing = {
      queue,
      topicTemplate: requireQueue(config, around).topics.name,
      rows: way === 'accept-gap' ? null : await (slot as NewSlot).rows(createdAtColumn(config, around)),
    }
    try {
      if (way === 'drained' && missing.rows !== null) {
        const count = await countMissing({ ...missing, rows: missing.rows, state })
        if (count > 0) throw notDrained(count)
      }
      const key = stateKey(source.name, state.session, randomBytes(6).toString('hex'))
      const write = async (): Promise<void> => queue.state.write(key, encodeState(state))
      await refuseIfWritten(queue, source.name, known.state)
      await write()
      decided = true
      for (const former of (await queue.state.read(statePrefix(source.name))).keys())
        if (former !== key) await queue.state.remove(former)
      await step('state-written')

      let refilled: Refilled | null = null
      if (way === 'refill' && missing.rows !== null && gap !== null) {
        const { topics, ...done } = await refill({
          ...missing,
          rows: missing.rows,
          state,
          async record(recorded) {
            state = { ...state, topics: new Map(recorded) }
            await write()
          },
          async progress(published) {
            around.log.info({ published }, 'refilling')
            await step('refilling')
          },
        })
        refilled = done
        const { published, ambiguous } = done
        state = { ...state, topics, gaps: gapsWith({ ...gap, refill: { published, ambiguous } }) }
        await write()
        await step('refilled')
      }
      // a relay that has begun meanwhile keeps the copy, and its record
      if (await source.stateCopy.write(encodeState(state), copy)) {
        state = { ...state, copied: copiedOf(state) }
        await write()
      }
      await step('copied')
      return { epoch, start, gap: gap === null ? null : (state.gaps.at(-1) ?? null), made, refilled }
    } finally {
      await missing.rows?.close()
    }
  } finally {
    await slot?.release()
    // a slot that nobody took keeps WAL for ever
    if (slot !== null && way === 'drained' && !decided) await renewal.dropSlot().catch(() => {})
  }
}

/**
 * Publication first, committed, then the slot: rows from before a publication are not relayed. What the publication is
 * like is read before the slot is made: an alteration in between then shows to the relay.
 */
async function makeAnew(
  renewal: SlotRenewal,
  catalog: Catalog,
  config: ParsedConfig,
  made: string[],
  step: (name: EpochStep) => Promise<void> | void,
): Promise<{ readonly slot: NewSlot; readonly publication: string }> {
  const name = slotName(config)
  if (catalog.slot !== null && (await renewal.dropSlot())) made.push(`the slot ${name} was dropped`)
  await step('slot-dropped')
  if (await renewal.makePublication()) made.push('publication')
  await step('publication-made')
  const publication = (await renewal.look()).publication?.identity ?? ''
  const slot = await renewal.makeSlot()
  made.push(`slot ${name}`)
  await step('slot-made')
  return { slot, publication }
}

const slotName = (config: ParsedConfig): string => config.source?.slot ?? `millrace_${config.name}`

/**
 * Where the slot starts that is there, if it may stay: what it sends is what a new one could not send, or sends less of.
 * Not after the publication changed (what it did not publish is skipped), on a server that shares no past with the
 * stream, or on one that lost WAL of its own or went back in time: there it would send again, at other positions, what was relayed.
 */
async function keptSlot({ slot, publication }: Catalog, known: Known, source: PostgresSource): Promise<Lsn | null> {
  const { state, topics } = known
  if (slot === null || slot.confirmed === null || slot.restart === null || slot.walStatus === 'lost') return null
  if (publication?.identity !== state.publication) return null
  const server = await source.identify()
  const copy = await source.stateCopy.read()
  if (copy === null || wentBack(state, decodeState(copy), server)) return null
  if (sharedUpTo(lastEpoch(state.epochs), server) === null) return null
  const added = epochsUpon(state.epochs, server, topics).slice(state.epochs.length)
  if (added.some(({ from }) => from === 0n)) return null
  if (slot.activePid !== null) throw slotInUse(state.slot, slot.activePid)
  return slot.confirmed
}

/** At least one more: positions go on upwards whatever the LSNs do, and no two attempts of a refill share any. */
function epochsOf({ state, topics }: Known, server: ServerIdentity, from: Lsn): readonly Epoch[] {
  const epochs = epochsUpon(state.epochs, server, topics)
  return epochs.length > state.epochs.length ? epochs : [...epochs, nextEpoch(epochs, server, from)]
}

/** A slot that stayed may send again what was relayed, recorded as such or not: that keeps its epoch, and is told by its position. */
function beyondRelayed({ state, topics }: Known, kept: Lsn): Lsn {
  const recorded = kept > state.intent ? kept : state.intent
  const relayed = relayedUpTo(lastEpoch(state.epochs), topics)
  return relayed !== null && relayed >= recorded ? relayed + 1n : recorded
}

/** what moves keys to other topics or partitions is not to be changed on the way */
function refuseChanged({ fingerprint, drained }: RelayState, current: string): void {
  if (fingerprint === current || drained !== null) return
  throw new MillraceError(
    'MILLRACE_FINGERPRINT_CHANGED',
    'the outbox mapping, the topic template or the partitioner is not what the stream was begun with',
    { remedy: 'set them back; once the relay runs again: millrace drain, then change them' },
  )
}

export function pendingGap({ gaps }: RelayState): Gap | null {
  const last = gaps.at(-1)
  return last?.refill === 'pending' ? last : null
}

async function refuseIfWritten(queue: Queue, source: string, state: RelayState): Promise<void> {
  const now = latestState(await queue.state.read(statePrefix(source)))
  if (now !== null && encodeState(now) === encodeState(state)) return
  throw new MillraceError(
    'MILLRACE_SLOT_IN_USE',
    `another process wrote the relay's state of ${source} meanwhile: a relay is at work`,
    { remedy: 'stop it first, wherever it runs' },
  )
}

/** the column that orders the rows of a refill @throws MILLRACE_USAGE */
function createdAtColumn(config: ParsedConfig, around: Surroundings): string {
  const { columns } = requireSource(config, around).outbox
  if (columns === undefined) return 'created_at'
  if (columns.createdAt !== undefined) return columns.createdAt
  throw new MillraceError('MILLRACE_USAGE', 'nothing says which column tells when a row of the outbox was created', {
    remedy: 'set source.outbox.columns.createdAt: rows are published in its order',
  })
}

function notDrained(count: number): MillraceError {
  return new MillraceError(
    'MILLRACE_NOT_DRAINED',
    `the outbox of this database holds ${count} events that the queue does not: services wrote after the drain`,
    { remedy: 'they need not be lost: millrace resume --refill --yes publishes them and goes on in a new epoch' },
  )
}
