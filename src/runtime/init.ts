import { randomUUID } from 'node:crypto'
import { MillraceError } from '../core/errors.ts'
import type { Queue } from '../core/queue.ts'
import { latestState, statePrefix } from '../core/relay-state.ts'
import type { Sink } from '../core/sink.ts'
import type { SourceIdentity } from '../core/source.ts'
import { initRelayState } from '../pipeline/init-state.ts'
import { migrate } from '../postgres/migrate.ts'
import type { PostgresSource } from '../postgres/source.ts'
import type { ParsedConfig } from './config-schema.ts'
import { moveDrained } from './move-drained.ts'
import type { EpochStep } from './new-epoch.ts'
import { connectSource, fingerprintOf, namedTopics, openQueue, openSource, prepareSink, type Surroundings } from './open.ts'

/**
 * Makes what is missing, in the order in which a crash in between does no harm: the schema, the publication, the slot,
 * the stream's identity on both sides, the sinks' bookkeeping. Safe to repeat.
 */
export async function initPipeline(
  config: ParsedConfig,
  around: Surroundings,
  options: InitOptions & { readonly failpoint?: (step: EpochStep) => Promise<void> | void } = {},
): Promise<readonly string[]> {
  const made: string[] = []
  const stream = config.source === undefined ? null : await initStream(config, around, options)
  made.push(...(stream?.made ?? []))
  for (const name of Object.keys(config.sinks)) {
    const sink = await (await prepareSink(config, name, around)).open()
    try {
      await sink.init()
      if (stream?.isNew === true) await refuseOlderStream(name, config.name, sink)
      if (sink.traits.checkpoints) made.push(`sink ${name}: its checkpoints have a place`)
    } finally {
      await sink.close()
    }
  }
  return made
}

export interface InitOptions {
  /** go on upon another server with a stream that was drained: publication and slot are made there, in a new epoch */
  readonly newEpoch?: boolean
}

/** A new stream's first event follows nothing: a sink that stands at an older one's position would halt on it. */
async function refuseOlderStream(name: string, source: string, sink: Sink): Promise<void> {
  const stands = (await sink.checkpoints()).some(({ positions }) => positions.has(source))
  if (!stands) return
  throw new MillraceError(
    'MILLRACE_STATE_CONFLICT',
    `the stream of ${source} is a new one, and the sink ${name} holds checkpoints of an older one: it would halt on the first event`,
    { remedy: `feed new tables by a sink of another name; the rows of ${name} stay as they are`, fields: { sink: name } },
  )
}

interface Stream {
  readonly made: readonly string[]
  /** nothing was ever relayed */
  readonly isNew: boolean
}

async function initStream(
  config: ParsedConfig,
  around: Surroundings,
  { newEpoch = false, failpoint }: Parameters<typeof initPipeline>[2] & object,
): Promise<Stream> {
  const maxEventBytes = config.source?.outbox.maxEventBytes
  const client = await connectSource(config, around)
  const applied = await migrate(client, { maxEventBytes }).finally(() => client.end())
  const moved = newEpoch ? await moveDrained(config, around, failpoint) : []
  const source = await openSource(config, around)
  try {
    const made = [...applied.map(({ version, name }) => `migration ${version}, ${name}`), ...moved, ...(await source.init())]
    if (config.queue === undefined) return { made, isNew: false }
    const queue = await openQueue(config, around)
    try {
      const stream = await foundStream(config, source, queue, around)
      made.push(stream.said, ...(await makeTopics(config, queue, around)))
      return { made, isNew: stream.isNew }
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

async function foundStream(
  config: ParsedConfig,
  source: PostgresSource,
  queue: Queue,
  around: Surroundings,
): Promise<{ readonly said: string; readonly isNew: boolean }> {
  const known = latestState(await queue.state.read(statePrefix(source.name)))
  const state = await initRelayState({
    source,
    queue,
    identify: () => identify(source),
    fingerprint: fingerprintOf(config, around),
    newStreamId: randomUUID,
  })
  const said = known === null ? `stream ${state.streamId}` : `stream ${state.streamId}: known to both sides`
  return { said, isNew: state.session === 0 }
}

/** a session is opened for its identity alone: nothing is read or confirmed */
async function identify(source: PostgresSource): Promise<SourceIdentity> {
  const session = await source.open({ signal: AbortSignal.timeout(60_000) })
  await session.close()
  return session.identity
}
