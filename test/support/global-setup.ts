import type { TestProject } from 'vitest/node'
import { startPostgresServer } from '../../src/cli/demo/postgres-server.ts'
import { openKafkaDoor } from './kafka/door.ts'
import { startKafka } from './kafka/start.ts'
import { givenKafka, inspectMachine, type Machine } from './machine.ts'

/**
 * One Postgres for the whole run; each test file takes databases of its own from it (`database.ts`). One Kafka, from the
 * moment that a test file asks for it (`kafka.ts`).
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const machine = inspectMachine()
  const server = await startPostgresServer({ settings: { fsync: 'off', max_slot_wal_keep_size: '1GB' } })
  const door = await openKafkaDoor(startKafka, givenKafka())
  project.provide('postgresPort', server.port)
  project.provide('kafkaDoor', door.url)
  project.provide('machine', await machine)
  return async () => {
    await door.close()
    await server.remove()
  }
}

declare module 'vitest' {
  interface ProvidedContext {
    postgresPort: number
    kafkaDoor: string
    machine: Machine
  }
}
