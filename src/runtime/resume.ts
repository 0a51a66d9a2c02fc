import { setTimeout as wait } from 'node:timers/promises'
import { lastEpoch } from '../core/epoch.ts'
import { codeOf, type ErrorCode, MillraceError } from '../core/errors.ts'
import { isRetried, policyFor } from '../core/policy.ts'
import { formatLsn } from '../core/position.ts'
import type { Queue } from '../core/queue.ts'
import { latestState, type RelayState, statePrefix } from '../core/relay-state.ts'
import { encodeState } from '../core/state-text.ts'
import { findOut, findTails, openSession } from '../pipeline/relay-session.ts'
import type { Catalog } from '../postgres/catalog.ts'
import { settle } from '../postgres/options.ts'
import { quoted } from '../postgres/publication.ts'
import { openSlotRenewal } from '../postgres/refill-slot.ts'
import type { ParsedConfig } from './config-schema.ts'
import { beginEpoch, type EpochStep, pendingGap, type Sides } from './new-epoch.ts'
import { connectSource, fingerprintOf, openQueue, openSource, requireSource, type Surroundings, sourceOptions } from './open.ts'
import { type ErrorReport, errorReport, type GapReport, gapReport } from './status.ts'

export interface ResumeOptions {
  /**
   * `accept-gap`: go on without what lies between. `refill`: publish what the outbox still holds of it first. Absent:
   * only explain; nothing is changed.
   */
  readonly way?: 'accept-gap' | 'refill'
}

/** What `millrace resume --json` prints. LSNs are Postgres' `X/Y`, times ISO 8601. */
export interface ResumeReport {
  readonly schema: 1
  readonly pipeline: string
  /**
   * `runs`: nothing is wrong, or the relay decides by itself. `running`: a relay holds the slot. `decide`: a person must.
   * `resumed`: it was decided, a relay may begin.
   */
  readonly verdict: 'runs' | 'running' | 'decide' | 'resumed'
  /** why no relay begins */
  readonly problem: ErrorReport | null
  /** what was relayed and is safe, as the queue remembers it */
  readonly relayed: {
    readonly session: number
    readonly epoch: number
    readonly upTo: string
    readonly position: string | null
  } | null
  readonly server: {
    readonly systemId: string
    readonly timeline: number
    readonly walEnd: string
    /** null: there is none */
    readonly slot: { readonly confirmed: string | null; readonly walStatus: string | null } | null
    readonly publication: boolean
  } | null
  /** rows that the outbox holds, relayed or not */
  readonly outbox: { readonly rows: number; readonly oldest: string | null } | null
  readonly ways: readonly { readonly command: string; readonly does: string }[]
  readonly resumed: {
    readonly epoch: number
    /** commits from here on are relayed */
    readonly start: string
    readonly made: readonly string[]
    readonly gap: GapReport | null
    readonly refilled: { readonly published: number; readonly ambiguous: number; readonly ambiguousIds: readonly string[] } | null
  } | null
}

/** what a new start mends; the rest is not lost, but wrong */
const MENDED = new Set<ErrorCode>([
  'MILLRACE_SLOT_MISSING',
  'MILLRACE_SLOT_LOST',
  'MILLRACE_SLOT_MOVED',
  'MILLRACE_PUBLICATION_MISSING',
  'MILLRACE_SOURCE_CHANGED',
])
/** the server lets go of a slot a moment after its relay ended (ms) */
const RELEASE = 3_000
const RELEASE_POLL = 200

/**
 * Finds out whether a relay could begin, as a relay would, and says what lies between if it could not; with a way, goes it.
 *
 * @throws MILLRACE_SLOT_IN_USE when a way was asked for and a relay is at work, MILLRACE_USAGE when nothing is wrong, what
 *   stands in the way where no new start would mend it, and what may pass by itself (a server that cannot be reached)
 */
export async function resumePipeline(
  config: ParsedConfig,
  around: Surroundings,
  { way }: ResumeOptions,
  step: (name: EpochStep) => Promise<void> | void = () => {},
): Promise<ResumeReport> {
  return withSides(config, around, async (sides) => {
    const { source, queue } = sides
    const state = latestState(await queue.state.read(statePrefix(source.name)))
    const problem = (state !== null && pendingProblem(state)) || (await problemOf(sides))
    if (problem !== null && codeOf(problem) !== 'MILLRACE_SLOT_IN_USE' && isRetried(policyFor(problem))) throw problem
    const report = await describe(sides, state, problem)
    if (way === undefined) return report
    if (problem === null)
      throw new MillraceError('MILLRACE_USAGE', 'nothing is wrong: there is no gap to accept and nothing to refill', {
        remedy: 'start the relay: millrace run',
      })
    if (report.verdict === 'running' || report.ways.length === 0 || state === null) throw problem
    const topics = await findTails(sides, state)
    if (await completeCopy(sides, state)) return { ...report, verdict: 'resumed', ways: [] }
    const begun = await beginEpoch(sides, { state, topics }, way, step)
    return {
      ...report,
      verdict: 'resumed',
      ways: [],
      resumed: {
        epoch: begun.epoch,
        start: formatLsn(begun.start),
        made: begun.made,
        gap: begun.gap === null ? null : gapReport(begun.gap),
        refilled: begun.refilled,
      },
    }
  })
}

/** Opens source, renewal and queue for the work. */
export async function withSides<T>(config: ParsedConfig, around: Surroundings, work: (sides: Sides) => Promise<T>): Promise<T> {
  const opened: { close(): Promise<void> }[] = []
  const keep = <C extends { close(): Promise<void> }>(one: C): C => {
    opened.push(one)
    return one
  }
  try {
    const source = keep(await openSource(config, around))
    const renewal = keep(openSlotRenewal(sourceOptions(config, around)))
    const queue: Queue = keep(await openQueue(config, around))
    return await work({ config, around, source, renewal, queue })
  } finally {
    await Promise.allSettled(opened.map((one) => one.close()))
  }
}

/** Why no relay would begin; null: it would. Asks as a relay does, and changes nothing. */
export async function problemOf({ config, around, source, queue }: Sides): Promise<MillraceError | null> {
  const until = performance.now() + RELEASE
  for (;;)
    try {
      const session = await openSession({ source, queue }, AbortSignal.timeout(60_000))
      try {
        await findOut({ source, queue, fingerprint: fingerprintOf(config, around) }, session)
        return null
      } finally {
        await session.close()
      }
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error
      if (codeOf(error) !== 'MILLRACE_SLOT_IN_USE' || performance.now() > until) return error
      await wait(RELEASE_POLL)
    }
}

function pendingProblem(state: RelayState): MillraceError | null {
  if (pendingGap(state) === null) return null
  return new MillraceError(
    'MILLRACE_STATE_CONFLICT',
    'a refill was begun and not finished: its events stand before all that follows',
  )
}

/** A database that lost our record of the stream and nothing else (or a resume that died just before its last step). */
async function completeCopy(sides: Sides, state: RelayState): Promise<boolean> {
  const { source } = sides
  if (pendingGap(state) !== null || (await source.stateCopy.read()) !== null) return false
  await source.stateCopy.write(encodeState(state))
  return (await problemOf(sides)) === null
}

async function describe(sides: Sides, state: RelayState | null, problem: MillraceError | null): Promise<ResumeReport> {
  const { config, source } = sides
  const running = problem !== null && codeOf(problem) === 'MILLRACE_SLOT_IN_USE'
  const mends = problem !== null && state !== null && (await isMended(sides, state, problem))
  const server = await source.identify().catch(() => null)
  const slot = server === null ? null : await source.slotStatus()
  return {
    schema: 1,
    pipeline: config.name,
    verdict: problem === null ? 'runs' : running ? 'running' : 'decide',
    problem: problem === null || running ? null : errorReport(problem),
    relayed:
      state === null
        ? null
        : {
            session: state.session,
            epoch: lastEpoch(state.epochs).epoch,
            upTo: formatLsn(state.intent),
            position: lastPosition(state),
          },
    server:
      server === null
        ? null
        : {
            systemId: server.systemId,
            timeline: server.timeline,
            walEnd: formatLsn(server.walEnd),
            slot:
              slot === null
                ? null
                : { confirmed: slot.confirmed === null ? null : formatLsn(slot.confirmed), walStatus: slot.walStatus },
            publication: (await lookAt(sides))?.publication != null,
          },
    outbox: mends ? await lookAtOutbox(sides) : null,
    ways: mends ? WAYS : [],
    resumed: null,
  }
}

const WAYS: ResumeReport['ways'] = [
  {
    command: 'millrace resume --refill --yes',
    does: 'makes publication and slot anew where needed and begins a new epoch; first publishes every row of the outbox that the queue does not hold by its id, in the order of creation. A row that may have been relayed and expired from the queue since is counted, named and left alone.',
  },
  {
    command: 'millrace resume --accept-gap --yes',
    does: 'makes publication and slot anew where needed and begins a new epoch: what was committed in between and is not in the queue is never relayed. The gap is recorded and shown by millrace status.',
  },
]

async function isMended(sides: Sides, state: RelayState, problem: MillraceError): Promise<boolean> {
  const code = codeOf(problem)
  const wanting = code === 'MILLRACE_STATE_MISSING' && (await sides.source.stateCopy.read()) === null
  if (!MENDED.has(code) && !wanting && pendingGap(state) === null) return false
  return (await lookAt(sides)) !== null
}

/** null: something is wrong that no new slot would mend, which the problem says, or `check` */
function lookAt({ renewal }: Sides): Promise<Catalog | null> {
  return renewal.look().catch(() => null)
}

async function lookAtOutbox({ config, around }: Sides): Promise<ResumeReport['outbox']> {
  const { columns } = requireSource(config, around).outbox
  const createdAt = columns === undefined ? 'created_at' : columns.createdAt
  const { table } = settle(sourceOptions(config, around))
  const client = await connectSource(config, around)
  try {
    const oldest = createdAt === undefined ? 'null' : `extract(epoch from min(${quoted(createdAt)}))::float8 * 1000`
    const { rows } = await client.query(
      `select count(*)::float8 as count, ${oldest} as oldest from ${quoted(table.schema)}.${quoted(table.name)}`,
    )
    const { count, oldest: at } = rows[0] as { count: number; oldest: number | null }
    return { rows: count, oldest: at === null ? null : new Date(at).toISOString() }
  } finally {
    await client.end().catch(() => {})
  }
}

function lastPosition({ topics }: RelayState): string | null {
  const positions = [...topics.values()].flat().flatMap(({ position }) => (position === null ? [] : [position]))
  return positions.sort().at(-1) ?? null
}
