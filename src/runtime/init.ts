import { randomUUID } from 'node:crypto'
import type { Queue } from '../core/queue.ts'
import { latestState, statePrefix } from '../core/relay-state.ts'
import type { SourceIdentity } from '../core/source.ts'
import { initRelayState } from '../pipeline/init-state.ts'
import { migrate } from '../postgres/migrate.ts'
import type { PostgresSource } from '../postgres/source.ts'
import type { ParsedConfig } from './config-schema.ts'
import { connectSource, fingerprintOf, namedTopics, openQueue, openSource, prepareSink, type Surroundings } from './open.ts'

/**
 * Makes what is missing, in the order in which a crash in between does no harm: the schema, the publication, the slot,
 * the stream's identity on both sides, the sinks' bookkeeping. Safe to repeat.
 */
export async function initPipeline(config: ParsedConfig, around: Surroundings): Promise<readonly string[]> {
  const made: string[] = []
  if (config.source !== undefined) made.push(...(await initStream(config, around)))
  for (const name of Object.keys(config.sinks)) {
    const sink = await (await prepareSink(config, name, around)).open()
    try {
      await sink.init()
      if (sink.traits.checkpoints) made.push(`sink ${name}: its checkpoints have a place`)
    } finally {
      await sink.close()
    }
  }
  return made
}

async function initStream(config: ParsedConfig, around: Surroundings): Promise<readonly string[]> {
  const maxEventBytes = config.source?.outbox.maxEventBytes
  const client = await connectSource(config, around)
  const applied = await migrate(client, { maxEventBytes }).finally(() => client.end())
  const source = await openSource(config, around)
  try {
    const made = [...applied.map(({ version, name }) => `migration ${version}, ${name}`), ...(await source.init())]
    if (config.queue === undefined) return made
    const queue = await openQueue(config, around)
    try {
      made.push(await foundStream(config, source, queue, around))
      return [...made, ...(await makeTopics(config, queue, around))]
    } finally {
      await queue.close()
    }
  } finally {
    await source.close()
  }
}

/** those that sinks name outright: a sink then need not wait for a first event */
async function makeTopics(config: ParsedConfig, queue: Queue, around: Surroundings): Promise<readonly string[]> {
  const wanted = await namedTopics(config, around)
  const known = await queue.topics(wanted)
  const missing = wanted.filter((topic) => !known.has(topic))
  for (const topic of missing) await queue.createTopic(topic)
  return missing.map((topic) => `topic ${topic}`)
}

async function foundStream(config: ParsedConfig, source: PostgresSource, queue: Queue, around: Surroundings): Promise<string> {
  const known = latestState(await queue.state.read(statePrefix(source.name)))
  const identity =
    known !== null && (await source.stateCopy.read()) !== null ? { ...known, confirmed: known.intent } : await identify(source)
  const state = await initRelayState({
    source,
    queue,
    identity,
    fingerprint: fingerprintOf(config, around),
    newStreamId: randomUUID,
  })
  return known === null ? `stream ${state.streamId}` : `stream ${state.streamId}: known to both sides`
}

/** a session is opened for its identity alone: nothing is read or confirmed */
async function identify(source: PostgresSource): Promise<SourceIdentity> {
  const session = await source.open({ epoch: 1, signal: AbortSignal.timeout(60_000) })
  await session.close()
  return session.identity
}
