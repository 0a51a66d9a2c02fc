import type { TestProject } from 'vitest/node'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'

/** One Postgres for the whole run; each test file takes databases of its own from it (`support/database.ts`). */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startPostgresServer({ settings: { fsync: 'off', max_slot_wal_keep_size: '1GB' } })
  project.provide('postgresPort', server.port)
  return () => server.remove()
}

declare module 'vitest' {
  interface ProvidedContext {
    postgresPort: number
  }
}
