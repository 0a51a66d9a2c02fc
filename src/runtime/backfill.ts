import { pathToFileURL } from 'node:url'
import pg from 'pg'
import { MillraceError } from '../core/errors.ts'
import type { BackfillControl, Backfiller, BackfillModule, BackfillProgress } from '../outbox/backfill.ts'
import { createOutbox, type FreeEvent } from '../outbox/outbox.ts'
import { clientConfig } from '../postgres/connection.ts'
import { settle } from '../postgres/options.ts'
import type { ParsedConfig } from './config-schema.ts'
import { requireSource, type Surroundings, sourceOptions } from './open.ts'
import { describeThrown } from './thrown.ts'

/** beyond what the server allows a statement of a chunk: only a connection that is dead answers so late (ms) */
const ANSWER_TIMEOUT = 90_000

/** Runs a backfill upon the source of the config, or upon the database that its own `url` leads to as another role. */
export async function backfillSource<Row, Event>(
  config: ParsedConfig,
  around: Surroundings,
  { url, outbox, ...definition }: BackfillModule<Row, Event>,
  control: BackfillControl,
): Promise<BackfillProgress> {
  const source = requireSource(config, around)
  const settings = settle(
    sourceOptions(url === undefined ? config : { ...config, source: { ...source, url, password: undefined } }, around),
  )
  const pool = new pg.Pool({ ...clientConfig(settings), max: 1, allowExitOnIdle: true, query_timeout: ANSWER_TIMEOUT })
  // the next chunk takes another connection
  pool.on('error', () => {})
  try {
    const writer = outbox ?? (createOutbox() as unknown as Backfiller<Event>)
    return await writer.backfill<Row>(pool, { ...definition, ...control })
  } finally {
    await pool.end()
  }
}

/** @throws MILLRACE_USAGE for a module that cannot be loaded, or does not export a backfill */
export async function loadBackfill(path: string): Promise<BackfillModule<unknown, FreeEvent>> {
  let module: { readonly default?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as { readonly default?: unknown }
  } catch (error) {
    throw new MillraceError('MILLRACE_USAGE', `${path} cannot be loaded: ${describeThrown(error)}`, {
      remedy: `see all of it: node ${path}`,
    })
  }
  const found = module.default as Partial<BackfillModule<unknown, FreeEvent>> | null | undefined
  if (typeof found !== 'object' || found === null || typeof found.toEvent !== 'function' || typeof found.select !== 'object')
    throw new MillraceError(
      'MILLRACE_USAGE',
      `${path} exports no backfill: expected export default defineBackfill({ name, select, toEvent })`,
    )
  return found as BackfillModule<unknown, FreeEvent>
}
