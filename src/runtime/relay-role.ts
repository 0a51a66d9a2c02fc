import { type Relay, type RelayStatus, startRelay } from '../pipeline/relay.ts'
import type { Failpoint } from '../pipeline/relay-session.ts'
import type { PostgresSource } from '../postgres/source.ts'
import { fingerprintOf, openSource, prepareSink, requireQueue } from './open.ts'
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
      sinkTopics: await topicsOfSinks(),
      log,
      now: around.now,
      random: around.random,
      ...(failpoint !== undefined && { failpoint }),
    })
    relay = started
    if (signal.aborted) void started.stop()
    signal.addEventListener('abort', () => void started.stop(), { once: true })
    await started.done
  }

  /** what the sinks of this process name outright; a broken sink is its own role's to say */
  async function topicsOfSinks(): Promise<readonly string[]> {
    const prepared = await Promise.allSettled(Object.keys(config.sinks).map((name) => prepareSink(config, name, around)))
    const topics = prepared.flatMap((one) => (one.status === 'fulfilled' ? one.value.topics : []))
    return [...new Set(topics.filter((topic) => !topic.endsWith('*')))]
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
