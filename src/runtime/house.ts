import { setTimeout as wait } from 'node:timers/promises'
import type { Log } from '../core/connector.ts'
import type { RelayStatus } from '../pipeline/relay.ts'
import { startHousekeeping } from '../postgres/housekeeping.ts'
import { settle } from '../postgres/options.ts'
import type { ParsedConfig } from './config-schema.ts'
import { connectSource, requireSource, type Surroundings, sourceOptions } from './open.ts'

/** how often to look whether the relay is at work (ms) */
const TICK = 1_000

/**
 * Housekeeping of the outbox, as long as the relay beside it is at work: on a standby, and after a halt, the slot may be
 * somebody else's. Resolves after the signal.
 */
export async function keepHouse(options: {
  readonly config: ParsedConfig
  readonly around: Surroundings
  readonly phase: () => RelayStatus['phase']
  readonly log: Log
  readonly signal: AbortSignal
}): Promise<void> {
  const { config, around, phase, log, signal } = options
  const { retention, columns } = requireSource(config, around).outbox
  // a table that was there before, of which nobody said what tells a row's age, is its owner's to clean
  if (retention === 'forever' || (columns !== undefined && columns.createdAt === undefined)) return
  const { table, slot } = settle(sourceOptions(config, around))
  while (!signal.aborted) {
    if (phase() === 'running') {
      const ended = new AbortController()
      const sweeping = startHousekeeping({
        connect: () => connectSource(config, around),
        table,
        columns: columns?.createdAt === undefined ? undefined : { id: columns.id, createdAt: columns.createdAt },
        slot,
        retentionMs: retention,
        log,
        now: () => performance.now(),
        random: around.random,
        signal: AbortSignal.any([signal, ended.signal]),
      })
      while (!signal.aborted && phase() === 'running') await pause(signal)
      ended.abort()
      await sweeping
    } else await pause(signal)
  }
}

const pause = (signal: AbortSignal): Promise<void> => wait(TICK, undefined, { signal }).catch(() => {})
