import { defineSink } from '../../src/core/connector.ts'
import { postgresSinkOptions } from './postgres/options.ts'
import { openPostgresSink } from './postgres/sink.ts'

export type { PostgresSinkOptions } from './postgres/options.ts'

/**
 * A Postgres database (14 or later) as a replica: rows and checkpoint commit in one transaction, in one round trip, so an event
 * has its effect exactly once.
 */
export default defineSink({
  name: 'postgres',
  options: postgresSinkOptions,
  follows: ({ tables }) => [...new Set(tables.map(({ from }) => from))],
  open: async (settings, deps) => openPostgresSink(settings, deps),
})
