import type { PostgresServer } from '../../../src/cli/demo/postgres-server.ts'
import { eventually } from '../../support/eventually.ts'

/** Starts a server that was killed: the orphans of its postmaster hold its shared memory until they have noticed. */
export async function recover(server: PostgresServer): Promise<void> {
  await eventually(() => server.start().then(() => true), { within: 60_000, what: 'the server starts again' })
}
