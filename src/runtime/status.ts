import { codeOf, MillraceError } from '../core/errors.ts'
import { formatLsn, parsePosition } from '../core/position.ts'
import type { Gap } from '../core/relay-state.ts'
import { decodeState } from '../core/state-text.ts'
import type { ApplierStatus } from '../pipeline/applier.ts'
import type { PartitionStatus } from '../pipeline/lane-follower.ts'
import type { RelayStatus } from '../pipeline/relay.ts'
import type { PostgresSource } from '../postgres/source.ts'

/**
 * What `millrace status --json` and /status print: shapes that scripts depend on, held by a golden test. LSNs are
 * Postgres' `X/Y`, offsets decimal text (64 bits), times ISO 8601, lags numbers.
 */
export interface StatusReport {
  readonly schema: 1
  readonly pipeline: string
  readonly at: string
  readonly slot: SlotReport | null
  readonly relay: RelayReport | null
  /** the latest, oldest first: what no slot could send, and what was decided about it */
  readonly gaps: readonly GapReport[]
  readonly sinks: readonly SinkReport[]
  /** what could not be looked at, and why */
  readonly problems: readonly ErrorReport[]
}

export interface SlotReport {
  /** whether a relay holds it */
  readonly active: boolean
  /** Postgres' word: `reserved`, `extended`, `unreserved`, `lost` */
  readonly walStatus: string | null
  readonly confirmed: string | null
  readonly walEnd: string
  /** WAL that the server keeps because of this slot */
  readonly retainedBytes: number | null
  /** how much more it may keep before the slot is lost; null: without limit */
  readonly safeWalBytes: number | null
}

export interface RelayReport {
  /** null: read from its durable state, by another process */
  readonly phase: RelayStatus['phase'] | null
  readonly session: number | null
  readonly confirmed: string | null
  readonly walEnd: string | null
  readonly lagBytes: number | null
  readonly position: string | null
  readonly heardAt: string | null
  readonly published: Readonly<Record<string, number>>
  readonly attempts: number
  readonly error: ErrorReport | null
}

export interface GapReport {
  readonly at: string
  /** the one that begins after it */
  readonly epoch: number
  /** LSNs: up to where was relayed before, and from where on after; of two servers they do not compare */
  readonly from: string
  readonly to: string
  /** null: accepted as it is; `pending`: begun, and no relay begins before it is finished */
  readonly refill: Gap['refill']
}

export interface SinkReport {
  readonly name: string
  /** null: read from its store, by another process */
  readonly phase: ApplierStatus['phase'] | null
  readonly error: ErrorReport | null
  /** what could not be applied and waits; null: nothing is ever parked here, or it is not known */
  readonly parked: ParkedReport | null
  readonly partitions: readonly PartitionReport[]
}

export interface ParkedReport {
  readonly keys: number
  readonly events: number
  readonly bytes: number
}

export interface PartitionReport {
  readonly topic: string
  readonly partition: number
  readonly phase: PartitionStatus['phase'] | null
  /** by source: the last position applied */
  readonly positions: Readonly<Record<string, string>>
  /** the next offset to apply, and the end of the log */
  readonly offset: string | null
  readonly end: string | null
  readonly lagEvents: number | null
  readonly lagSeconds: number | null
  /** WAL between what was published last and what was applied last; known where the relay runs in the same process */
  readonly lagBytes: number | null
  readonly applied: number
  readonly passedOver: number
  readonly foundedAt: string | null
  readonly error: ErrorReport | null
}

export interface ErrorReport {
  readonly code: string
  readonly message: string
  readonly remedy: string | null
}

/** the report of a pipeline of which nothing is known */
export function emptyStatus(pipeline: string): StatusReport {
  return { schema: 1, pipeline, at: new Date().toISOString(), slot: null, relay: null, gaps: [], sinks: [], problems: [] }
}

export function errorReport(error: Error): ErrorReport {
  return {
    code: codeOf(error),
    message: error.message,
    remedy: error instanceof MillraceError ? (error.remedy ?? null) : null,
  }
}

export function gapReport({ at, epoch, from, to, refill }: Gap): GapReport {
  return { at: new Date(at).toISOString(), epoch, from: formatLsn(from), to: formatLsn(to), refill }
}

/** as the source's copy of the relay's state tells */
export async function gapReports(source: PostgresSource): Promise<readonly GapReport[]> {
  const copy = await source.stateCopy.read()
  return copy === null ? [] : decodeState(copy).gaps.map(gapReport)
}

export async function slotReport(source: PostgresSource): Promise<SlotReport | null> {
  const slot = await source.slotStatus()
  if (slot === null) return null
  return {
    active: slot.activePid !== null,
    walStatus: slot.walStatus,
    confirmed: slot.confirmed === null ? null : formatLsn(slot.confirmed),
    walEnd: formatLsn(slot.currentWal),
    retainedBytes: slot.retainedBytes === null ? null : Number(slot.retainedBytes),
    safeWalBytes: slot.safeWalSize === null ? null : Number(slot.safeWalSize),
  }
}

export function relayReport(status: RelayStatus): RelayReport {
  const { confirmed, walEnd, heardAt } = status
  return {
    phase: status.phase,
    session: null,
    confirmed: confirmed === null ? null : formatLsn(confirmed),
    walEnd: walEnd === null ? null : formatLsn(walEnd),
    lagBytes: confirmed === null || walEnd === null ? null : bytesBetween(confirmed, walEnd),
    position: status.position,
    heardAt: heardAt === null ? null : new Date(heardAt).toISOString(),
    published: Object.fromEntries(status.published),
    attempts: status.attempts,
    error: status.error === null ? null : errorReport(status.error),
  }
}

export function sinkReport(
  name: string,
  status: ApplierStatus,
  parked: ParkedReport | null,
  relay: RelayStatus | null,
): SinkReport {
  return {
    name,
    phase: status.phase,
    error: status.error === null ? null : errorReport(status.error),
    parked,
    partitions: status.partitions.map((partition) => partitionReport(partition, relay)),
  }
}

function partitionReport(status: PartitionStatus, relay: RelayStatus | null): PartitionReport {
  const { offset, end } = status
  const lagEvents = offset === null || end === null ? null : bytesBetween(offset, end)
  const last = [...status.positions.values()].sort().at(-1)
  const newest = relay?.position ?? null
  return {
    topic: status.topic,
    partition: status.partition,
    phase: status.phase,
    positions: Object.fromEntries(status.positions),
    offset: offset === null ? null : String(offset),
    end: end === null ? null : String(end),
    lagEvents,
    lagSeconds: status.lagMs / 1_000,
    lagBytes:
      lagEvents === 0
        ? 0
        : newest === null || last === undefined
          ? null
          : bytesBetween(parsePosition(last).commitLsn, parsePosition(newest).commitLsn),
    applied: status.applied,
    passedOver: status.passedOver,
    foundedAt: status.foundedAt,
    error: status.error === null ? null : errorReport(status.error),
  }
}

function bytesBetween(from: bigint, to: bigint): number {
  return Number(to > from ? to - from : 0n)
}
