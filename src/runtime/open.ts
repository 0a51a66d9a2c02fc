import pg from 'pg'
import type { Clock } from '../core/clock.ts'
import type { ConnectorDeps, Log } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import type { Queue } from '../core/queue.ts'
import type { Sink } from '../core/sink.ts'
import { topicsOf } from '../core/topic-template.ts'
import { clientConfig } from '../postgres/connection.ts'
import { DEFAULT_OUTBOX, type PostgresSourceOptions, settle } from '../postgres/options.ts'
import { openPostgresSource, type PostgresSource } from '../postgres/source.ts'
import { sourceError } from '../postgres/source-error.ts'
import { configError } from './config-issues.ts'
import type { ParsedConfig, ParsedQueue, ParsedSource } from './config-schema.ts'
import { fingerprint } from './fingerprint.ts'
import { loadQueue, loadSink, type Origin, optionsFor } from './registry.ts'

/** What a config's sections are opened with. */
export interface Surroundings extends Origin {
  readonly log: Log
  readonly clock: Clock
  readonly random: () => number
}

/** A sink that could be opened, and what of the queue it follows. */
export interface PreparedSink {
  readonly topics: readonly string[]
  open(): Promise<Sink>
}

export function requireSource(config: ParsedConfig, at: Origin): ParsedSource {
  if (config.source !== undefined) return config.source
  throw configError(at.origin, [{ path: ['source'], message: 'expected the database that events come from, found nothing' }])
}

export function requireQueue(config: ParsedConfig, at: Origin): ParsedQueue {
  if (config.queue !== undefined) return config.queue
  throw configError(at.origin, [{ path: ['queue'], message: 'expected where events go, found nothing' }])
}

export function fingerprintOf(config: ParsedConfig, at: Origin): string {
  const { table, columns } = settle(sourceOptions(config, at))
  return fingerprint({ table: `${table.schema}.${table.name}`, columns, topicTemplate: requireQueue(config, at).topics.name })
}

export async function openSource(config: ParsedConfig, around: Surroundings): Promise<PostgresSource> {
  const options = sourceOptions(config, around)
  return within('source', () => openPostgresSource(options, { log: around.log.child({ role: 'relay' }), now: around.clock.now }))
}

/** A connection to the source for ordinary statements; the caller ends it. */
export async function connectSource(config: ParsedConfig, around: Surroundings): Promise<pg.Client> {
  const client = new pg.Client(clientConfig(settle(sourceOptions(config, around))))
  // what breaks it is told by the query under way
  client.on('error', () => {})
  try {
    await client.connect()
    return client
  } catch (error) {
    throw sourceError(error, 'connect')
  }
}

export function sourceOptions(config: ParsedConfig, at: Origin): PostgresSourceOptions {
  const { outbox, acceptUnlimitedWal, url, password, tls, slot, publication } = requireSource(config, at)
  const { createdAt: _, ...columns } = { createdAt: undefined, ...(outbox.columns ?? DEFAULT_OUTBOX.columns) }
  return {
    name: config.name,
    url,
    password,
    tls,
    slot,
    publication,
    acceptUnlimitedWal,
    outbox: { table: outbox.table, columns },
  }
}

/**
 * Loads every connector that the config names and checks its options; connects to nothing.
 * @throws MILLRACE_CONFIG_INVALID
 */
export async function checkOptions(config: ParsedConfig, around: Surroundings): Promise<void> {
  await prepareQueue(config, around)
  for (const name of Object.keys(config.sinks)) await prepareSink(config, name, around)
}

export async function openQueue(config: ParsedConfig, around: Surroundings): Promise<Queue> {
  const open = await prepareQueue(config, around)
  return open()
}

async function prepareQueue(config: ParsedConfig, around: Surroundings): Promise<() => Promise<Queue>> {
  const { kind, ...section } = requireQueue(config, around)
  const connector = await loadQueue(kind, around)
  const options = await optionsFor(connector, section, around, ['queue'])
  return () => within('queue', () => connector.open(options, deps(config, around)))
}

/** Loads the connector and checks its options; nothing is connected to before `open`. */
export async function prepareSink(config: ParsedConfig, name: string, around: Surroundings): Promise<PreparedSink> {
  const section = config.sinks[name]
  if (section === undefined) throw new MillraceError('MILLRACE_USAGE', `there is no sink ${name} in ${around.origin}`)
  const { kind, start: _start, sources: _sources, verify: _verify, ...rest } = section
  const connector = await loadSink(kind, name, around)
  const options = await optionsFor(connector, rest, around, ['sinks', name])
  return {
    topics: topicsOf(requireQueue(config, around).topics.name, connector.follows(options)),
    open: () =>
      within(`sinks.${name}`, () =>
        connector.open(options, { ...deps(config, around), sink: name, topicTemplate: requireQueue(config, around).topics.name }),
      ),
  }
}

/** the topics that the config's sinks name outright, without a `*` */
export async function namedTopics(config: ParsedConfig, around: Surroundings): Promise<readonly string[]> {
  const prepared = await Promise.all(Object.keys(config.sinks).map((name) => prepareSink(config, name, around)))
  return [...new Set(prepared.flatMap((sink) => sink.topics).filter((topic) => !topic.endsWith('*')))]
}

function deps(config: ParsedConfig, around: Surroundings): ConnectorDeps {
  return { log: around.log, pipeline: config.name, now: around.clock.now }
}

/** says which section an error of a connector's own is about */
async function within<T>(section: string, open: () => T | Promise<T>): Promise<T> {
  try {
    return await open()
  } catch (error) {
    if (!(error instanceof MillraceError) || error.code !== 'MILLRACE_CONFIG_INVALID' || error.message.includes('is not valid:'))
      throw error
    throw new MillraceError(error.code, `${section}: ${error.message}`, {
      cause: error,
      ...(error.remedy !== undefined && { remedy: error.remedy }),
      fields: error.fields,
    })
  }
}
