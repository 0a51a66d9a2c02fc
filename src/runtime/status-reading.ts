import { formatLsn } from '../core/position.ts'
import type { OffsetRange, Queue } from '../core/queue.ts'
import { latestState, statePrefix } from '../core/relay-state.ts'
import type { PartitionCheckpoint } from '../core/sink.ts'
import type { ParsedConfig } from './config-schema.ts'
import { openQueue, openSource, prepareSink, type Surroundings } from './open.ts'
import {
  type ErrorReport,
  emptyStatus,
  errorReport,
  type GapReport,
  gapReports,
  type PartitionReport,
  type RelayReport,
  type SinkReport,
  type SlotReport,
  type StatusReport,
  slotReport,
} from './status.ts'

/**
 * The status as this process can tell it from outside: a running process's own word where its endpoint answers here,
 * and for the rest what the database, the queue and the sinks hold. What cannot be looked at is a problem in the
 * report, never an error.
 */
export async function readStatus(config: ParsedConfig, around: Surroundings): Promise<StatusReport> {
  const problems: ErrorReport[] = []
  const looking = async <T>(look: () => Promise<T>): Promise<T | null> => {
    try {
      return await look()
    } catch (error) {
      problems.push(errorReport(error as Error))
      return null
    }
  }
  const running = await askRunning(config)
  const known = running?.slot == null && config.source !== undefined ? await looking(() => readSource(config, around)) : null
  const slot = running?.slot ?? known?.slot ?? null
  const gaps = running?.slot == null ? (known?.gaps ?? []) : running.gaps
  const names = Object.keys(config.sinks)
  const missing = names.filter((name) => !running?.sinks.some((sink) => sink.name === name))
  let relay: RelayReport | null = running?.relay ?? null
  let sinks: readonly SinkReport[] = running?.sinks ?? []
  if ((relay === null || missing.length > 0) && config.queue !== undefined) {
    const queue = await looking(() => openQueue(config, around))
    if (queue !== null)
      try {
        relay ??= await looking(() => readRelay(config.name, queue))
        const read: SinkReport[] = []
        for (const name of missing) {
          const sink = await looking(() => readSink(config, name, queue, around))
          if (sink !== null) read.push(sink)
        }
        sinks = [...sinks, ...read]
      } finally {
        await queue.close()
      }
  }
  return { ...emptyStatus(config.name), slot, relay, gaps, sinks, problems }
}

/** the report of a process of this pipeline on this machine; null when none answers at the config's address */
async function askRunning(config: ParsedConfig): Promise<StatusReport | null> {
  if (config.http === false) return null
  const host = config.http.host === '0.0.0.0' ? '127.0.0.1' : config.http.host === '::' ? '[::1]' : config.http.host
  try {
    const response = await fetch(`http://${host}:${config.http.port}/status`, {
      signal: AbortSignal.timeout(3_000),
      redirect: 'error',
    })
    const report = (await response.json()) as StatusReport
    return report.schema === 1 && report.pipeline === config.name ? report : null
  } catch {
    return null
  }
}

async function readSource(
  config: ParsedConfig,
  around: Surroundings,
): Promise<{ readonly slot: SlotReport | null; readonly gaps: readonly GapReport[] }> {
  const source = await openSource(config, around)
  try {
    return { slot: await slotReport(source), gaps: await gapReports(source) }
  } finally {
    await source.close()
  }
}

async function readRelay(name: string, queue: Queue): Promise<RelayReport | null> {
  const state = latestState(await queue.state.read(statePrefix(name)))
  if (state === null) return null
  const tails = [...state.topics.values()].flat().map((tail) => tail.position)
  return {
    phase: null,
    session: state.session,
    confirmed: formatLsn(state.intent),
    walEnd: null,
    lagBytes: null,
    position:
      tails
        .filter((position) => position !== null)
        .sort()
        .at(-1) ?? null,
    heardAt: null,
    published: {},
    attempts: 0,
    error: null,
  }
}

async function readSink(config: ParsedConfig, name: string, queue: Queue, around: Surroundings): Promise<SinkReport> {
  const prepared = await prepareSink(config, name, around)
  const sink = await prepared.open()
  try {
    const remembers = sink.traits.checkpoints
    const checkpoints = new Map((await sink.checkpoints()).map((one) => [`${one.topic}/${one.partition}`, one]))
    const partitions: PartitionReport[] = []
    for (const topic of [...(await queue.topics(prepared.topics)).keys()].sort())
      for (const [partition, range] of (await queue.ranges(topic)).entries())
        partitions.push(
          partitionAt(topic, partition, range, remembers ? (checkpoints.get(`${topic}/${partition}`) ?? null) : undefined),
        )
    return { name, phase: null, error: null, parked: (await sink.parking?.totals()) ?? null, partitions }
  } finally {
    await sink.close()
  }
}

/** `checkpoint`: null where there is none yet, undefined where none is kept */
function partitionAt(
  topic: string,
  partition: number,
  range: OffsetRange,
  checkpoint: PartitionCheckpoint | null | undefined,
): PartitionReport {
  const offset = checkpoint?.offset ?? null
  const from = offset ?? range.start
  return {
    topic,
    partition,
    phase: null,
    positions: Object.fromEntries(checkpoint?.positions ?? []),
    offset: offset === null ? null : String(offset),
    end: String(range.end),
    lagEvents: checkpoint === undefined ? null : Number(range.end > from ? range.end - from : 0n),
    lagSeconds: null,
    lagBytes: null,
    applied: 0,
    passedOver: 0,
    foundedAt: null,
    error: null,
  }
}
