import type { Parking } from '../core/sink.ts'
import { type Applier, startApplier } from '../pipeline/applier.ts'
import type { RelayStatus } from '../pipeline/relay.ts'
import { startOf } from './config-schema.ts'
import { prepareSink } from './open.ts'
import { watchParked } from './parked-watch.ts'
import { live, patiently, type Role, type RoleContext } from './role.ts'
import { errorReport, type SinkReport, sinkReport } from './status.ts'

export interface SinkRole extends Role {
  /** `relay`: of the same process, for what only it knows */
  report(relay: RelayStatus | null): Promise<SinkReport>
}

export function startSinkRole(name: string, context: RoleContext): SinkRole {
  const { config, around, signal } = context
  const log = around.log.child({ sink: name })
  let applier: Applier | null = null
  let error: Error | null = null
  let parking: Parking | null = null
  const parked = watchParked(() => parking, around.clock.now)

  async function work(): Promise<void> {
    const section = config.sinks[name]
    const { topics, open } = await prepareSink(config, name, around)
    const queue = await context.queue()
    const sink = context.keep(await patiently(`the sink ${name}`, { ...around, log, signal }, open))
    parking = sink.parking
    const started = startApplier({
      name,
      pipeline: config.name,
      sink,
      queue,
      topics,
      start: startOf(section?.start ?? 'earliest') ?? 'earliest',
      sources: section?.sources ?? null,
      log: around.log,
      clock: around.clock,
      random: around.random,
    })
    applier = started
    if (signal.aborted) void started.stop()
    signal.addEventListener('abort', () => void started.stop(), { once: true })
    await started.done
  }

  return {
    // ready while anything flows: a partition or two that wait for a person hold back no other
    ready() {
      const status = applier?.status()
      if (status?.phase !== 'running') return false
      return (
        status.partitions.length === 0 || status.partitions.some(({ phase }) => phase === 'following' || phase === 'claiming')
      )
    },
    done: live(`the sink ${name}`, log, work, (caught) => {
      error = caught
    }),
    async report(relay) {
      if (applier !== null) return sinkReport(name, applier.status(), await parked.look(), relay)
      return {
        name,
        phase: error === null ? 'starting' : 'halted',
        error: error === null ? null : errorReport(error),
        parked: null,
        partitions: [],
      }
    },
  }
}
