import type { Failpoint } from '../pipeline/failpoint.ts'
import { type Relay, type RelayStatus, startRelay } from '../pipeline/relay.ts'
import type { PostgresSource } from '../postgres/source.ts'
import { takeCheckpoints } from './checkpoint-interval.ts'
import { keepHouse } from './house.ts'
import { fingerprintOf, namedTopics, openSource, requireQueue } from './open.ts'
import { live, patiently, type Role, type RoleContext } from './role.ts'

export interface RelayRole extends Role {
  status(): RelayStatus
  /** null until it is open */
  source(): PostgresSource | null
}

export function startRelayRole(
  context: RoleContext & { readonly failpoint?: ((name: Failpoint) => Promise<void> | void) | undefined },
): RelayRole {
  const { config, around, signal, failpoint } = context
  const log = around.log.child({ role: 'relay' })
  let relay: Relay | null = null
  let source: PostgresSource | null = null
  let error: Error | null = null

  async function work(): Promise<void> {
    const topicTemplate = requireQueue(config, around).topics.name
    const queue = await context.queue()
    const from = context.keep(await patiently('the source', { ...around, log, signal }, () => openSource(config, around)))
    source = from
    const started = startRelay({
      source: from,
      queue,
      topicTemplate,
      fingerprint: fingerprintOf(config, around),
      sinkTopics: await namedTopics(config, around),
      log,
      clock: around.clock,
      random: around.random,
      ...(failpoint !== undefined && { failpoint }),
    })
    relay = started
    if (signal.aborted) void started.stop()
    signal.addEventListener('abort', () => void started.stop(), { once: true })
    const ended = new AbortController()
    const either = AbortSignal.any([signal, ended.signal])
    const housekeeping = keepHouse({ config, around, phase: () => started.status().phase, log, signal: either })
    if (config.checkpoints !== false)
      void takeCheckpoints({
        state: queue.state,
        source: config.name,
        ...config.checkpoints,
        running: () => started.status().phase === 'running',
        log,
        clock: around.clock,
        random: around.random,
        signal: either,
      })
    try {
      await started.done
    } finally {
      ended.abort()
      await housekeeping
    }
  }

  return {
    ready() {
      const phase = relay?.status().phase
      return phase === 'running' || phase === 'standby'
    },
    done: live('the relay', log, work, (caught) => {
      error = caught
    }),
    source: () => source,
    status: () =>
      relay?.status() ?? {
        phase: error === null ? 'starting' : 'halted',
        error,
        attempts: 0,
        confirmed: null,
        walEnd: null,
        heardAt: null,
        published: new Map(),
        position: null,
      },
  }
}
