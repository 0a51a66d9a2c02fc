import { statePrefix } from '../core/relay-state.ts'
import { checkpointPrefix } from '../core/saved-checkpoint.ts'
import type { ParsedConfig } from './config-schema.ts'
import { openQueue, openSource, type Surroundings } from './open.ts'

/** What to remove. Events that were relayed, and the sinks, are never touched. */
export interface TeardownParts {
  readonly slot?: boolean
  readonly publication?: boolean
  /** the schema `millrace`, its outbox included, and with it the relay's state in the queue */
  readonly schema?: boolean
}

export async function teardownPipeline(
  config: ParsedConfig,
  parts: TeardownParts,
  around: Surroundings,
): Promise<readonly string[]> {
  const source = await openSource(config, around)
  try {
    const removed = [...(await source.teardown(parts))]
    if (parts.schema && config.queue !== undefined) removed.push(...(await forgetStream(config, source.name, around)))
    return removed
  } finally {
    await source.close()
  }
}

/** the other half of the stream's identity: left alone, it would stand against every later `init` */
async function forgetStream(config: ParsedConfig, source: string, around: Surroundings): Promise<readonly string[]> {
  const queue = await openQueue(config, around)
  try {
    const keys = [...(await queue.state.read(statePrefix(source))).keys()]
    // a new stream's positions are others
    const checkpoints = [...(await queue.state.read(checkpointPrefix(source))).keys()]
    for (const key of [...keys, ...checkpoints]) await queue.state.remove(key)
    return keys.length === 0 ? [] : [`the relay's state in the queue`]
  } finally {
    await queue.close()
  }
}
