import { resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { QueueConnector, SinkConnector } from '../core/connector.ts'
import type { MillraceError } from '../core/errors.ts'
import { configError, nearest, toConfigIssues } from './config-issues.ts'
import { isModulePath } from './config-schema.ts'
import { describeThrown } from './thrown.ts'

/** The connectors of the house, a line each. A client library is loaded only when a config names its connector. */
const QUEUES: Readonly<Record<string, () => Promise<unknown>>> = {
  kafka: () => import('../../connectors/queues/kafka.ts'),
  local: () => import('../../connectors/queues/local.ts'),
}

const SINKS: Readonly<Record<string, () => Promise<unknown>>> = {
  postgres: () => import('../../connectors/sinks/postgres.ts'),
  stdout: () => import('../../connectors/sinks/stdout.ts'),
}

/** the names of the connectors that come with Millrace */
export const KINDS = { queue: Object.keys(QUEUES), sink: Object.keys(SINKS) } as const

/** Where a config came from: its file's name for messages, its folder for module paths. */
export interface Origin {
  readonly origin: string
  readonly folder: string
}

export async function loadQueue(kind: string, at: Origin): Promise<QueueConnector> {
  return (await load('queue', QUEUES, kind, at, ['queue'])) as QueueConnector
}

export async function loadSink(kind: string, name: string, at: Origin): Promise<SinkConnector> {
  return (await load('sink', SINKS, kind, at, ['sinks', name])) as SinkConnector
}

async function load(
  what: 'queue' | 'sink',
  known: Readonly<Record<string, () => Promise<unknown>>>,
  kind: string,
  at: Origin,
  path: readonly string[],
): Promise<{ connector: unknown; contract: unknown }> {
  const invalid = (message: string): MillraceError => configError(at.origin, [{ path: [...path, 'kind'], message }])
  const house = Object.hasOwn(known, kind) ? known[kind] : undefined
  if (house === undefined && !isModulePath(kind)) {
    const near = nearest(kind, Object.keys(known))
    const hint = near === null ? '' : ` (did you mean "${near}"?)`
    throw invalid(
      `unknown ${what} ${JSON.stringify(kind)}${hint}: expected ${Object.keys(known).join(', ')} or the path of a module such as "./${kind}.ts"`,
    )
  }
  let module: unknown
  try {
    module = house === undefined ? await import(moduleUrl(kind, at.folder)) : await house()
  } catch (cause) {
    throw invalid(`the module of ${JSON.stringify(kind)} cannot be loaded: ${describeThrown(cause)}`)
  }
  const found = (module as { default?: { connector?: unknown; contract?: unknown } }).default
  if (found?.connector !== what)
    throw invalid(
      `${kind} is not a ${what} connector: expected its default export to come from ${what === 'queue' ? 'defineQueue' : 'defineSink'}`,
    )
  if (found.contract !== 1)
    throw invalid(`${kind} speaks contract ${String(found.contract)} of connectors, this version of Millrace speaks 1`)
  return found as { connector: unknown; contract: unknown }
}

function moduleUrl(kind: string, folder: string): string {
  return kind.startsWith('file:') ? pathToFileURL(fileURLToPath(kind)).href : pathToFileURL(resolve(folder, kind)).href
}

/**
 * The options of a connector as its schema makes them.
 * @throws MILLRACE_CONFIG_INVALID with the path of each issue in the config
 */
export async function optionsFor(
  connector: QueueConnector | SinkConnector,
  options: unknown,
  at: Origin,
  path: readonly string[],
): Promise<unknown> {
  const result = await connector.options['~standard'].validate(options)
  if (result.issues) throw configError(at.origin, toConfigIssues(result.issues, options, connector.options, path))
  return result.value
}
