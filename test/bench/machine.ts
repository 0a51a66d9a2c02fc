import { execFile } from 'node:child_process'
import { cpus, totalmem } from 'node:os'
import { promisify } from 'node:util'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { JVM } from './rivals/connect.ts'
import { debeziumJars } from './rivals/debezium-jars.ts'
import { withClient } from './stage.ts'

/** What the figures were taken on and with, as sentences for the page. */
export async function describeMachine({
  bin,
  rivals,
}: {
  readonly bin?: string | undefined
  readonly rivals: boolean
}): Promise<readonly string[]> {
  const cores = cpus()
  const server = await startPostgresServer(bin === undefined ? {} : { bin })
  const postgres = await withClient(
    server.url(),
    async (client) => (await client.query('show server_version')).rows[0] as { server_version: string },
  )
  await server.remove()
  const { stderr: java } = await promisify(execFile)('java', ['-version']).catch(() => ({ stderr: 'none' }))
  return [
    `${cores.length} cores (${cores[0]?.model.trim() ?? 'unknown'}), ${Math.round(totalmem() / 2 ** 30)} GiB, ${process.platform} ${process.arch}; ${new Date().toISOString().slice(0, 10)}`,
    `Node ${process.versions.node}; Postgres ${postgres.server_version} on both ends, fsync and synchronous_commit on; Kafka 4.1.1, one broker; ${java.split('\n')[0]}`,
    ...(rivals
      ? [
          `Debezium ${(await debeziumJars()).version} on Kafka Connect 4.1.1, \`${JVM.join(' ')}\`; its settings stand in test/bench/rivals/debezium.ts`,
        ]
      : []),
  ]
}
