import { GenericContainer, Wait } from 'testcontainers'

/** Any image with the public one's interface; the default comes from the public hub. */
const POSTGRES_IMAGE = process.env['MILLRACE_TEST_POSTGRES_IMAGE'] || 'postgres:17'

export interface PostgresContainer {
  url(database?: string): string
  remove(): Promise<void>
}

/** A Postgres as operators run it: in a container, with a password, over TCP, decoding logically. Inside `requires('docker')`. */
export async function startPostgresContainer(settings: Readonly<Record<string, string>> = {}): Promise<PostgresContainer> {
  const all = { wal_level: 'logical', max_slot_wal_keep_size: '1GB', ...settings }
  const container = await new GenericContainer(POSTGRES_IMAGE)
    .withEnvironment({ POSTGRES_PASSWORD: 'secret' })
    .withCommand(['postgres', ...Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])])
    .withExposedPorts(5432)
    // over TCP: the public image starts a first server for its own set-up, which listens on a socket only
    .withWaitStrategy(Wait.forSuccessfulCommand('pg_isready --host 127.0.0.1 --username postgres'))
    .withStartupTimeout(100_000)
    .start()
  return {
    url: (database = 'postgres') =>
      `postgres://postgres:secret@${container.getHost()}:${container.getMappedPort(5432)}/${database}?sslmode=disable`,
    remove: async () => void (await container.stop({ timeout: 0 })),
  }
}
