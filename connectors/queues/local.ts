import { defineQueue } from '../../src/core/connector.ts'
import { type LocalOptions, type LocalSettings, localOptions } from './local/options.ts'
import { LocalQueue } from './local/queue.ts'

export type { LocalOptions }

/**
 * The queue of one machine: an append-only log in one SQLite file, fsynced before anything is acknowledged. Relay and
 * appliers may be one process or several; nothing else is to be installed or run.
 */
export default defineQueue<LocalSettings>({
  name: 'local',
  options: localOptions,
  open: (settings, deps) => LocalQueue.open(settings, deps),
})
