import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { steadyPort } from '../../support/port.ts'
import { endChild, spawnChild } from '../child.ts'
import { until } from '../until.ts'
import type { DebeziumJars } from './debezium-jars.ts'

/** One Connect worker in a JVM of its own: a new one for each measurement, as our processes are. */
export interface ConnectWorker {
  readonly pid: number
  /** makes the connector and resolves when it and its tasks run */
  add(name: string, config: ConnectorConfig): Promise<void>
  /** @throws with the trace of a task that has failed */
  assertRunning(): Promise<void>
  stop(): Promise<void>
}

export type ConnectorConfig = Readonly<Record<string, string>>

/** What Connect's own start script gives the JVM. */
export const JVM = [
  '-Xms256M',
  '-Xmx2G',
  '-server',
  '-XX:+UseG1GC',
  '-XX:MaxGCPauseMillis=20',
  '-XX:InitiatingHeapOccupancyPercent=35',
  '-Djava.awt.headless=true',
]

const LOGGING = join(import.meta.dirname, '../../support/kafka/log4j2.properties')

export async function startConnect(jars: DebeziumJars, brokers: readonly string[]): Promise<ConnectWorker> {
  const home = await mkdtemp(join(tmpdir(), 'millrace-connect-'))
  const rest = `http://127.0.0.1:${await steadyPort()}`
  const properties = join(home, 'worker.properties')
  await writeFile(
    properties,
    lines({
      'bootstrap.servers': brokers.join(','),
      listeners: rest,
      'key.converter': 'org.apache.kafka.connect.json.JsonConverter',
      'value.converter': 'org.apache.kafka.connect.json.JsonConverter',
      'offset.storage.file.filename': join(home, 'offsets'),
      'offset.flush.interval.ms': '1000',
      'plugin.path': jars.plugins,
      // by service files alone, which starts sooner; both plug-ins have them
      'plugin.discovery': 'service_load',
      'connector.client.config.override.policy': 'All',
    }),
  )
  const main = ['-cp', join(jars.libs, '*'), 'org.apache.kafka.connect.cli.ConnectStandalone', properties]
  const child = spawnChild('Connect worker', 'java', [...JVM, `-Dlog4j2.configurationFile=file:${LOGGING}`, ...main])
  const added: string[] = []
  const ask = async (path: string, init?: RequestInit): Promise<unknown> => {
    const answer = await fetch(`${rest}${path}`, { ...init, headers: { 'content-type': 'application/json' } })
    if (!answer.ok) throw new Error(`Connect answered ${answer.status} to ${path}: ${(await answer.text()).slice(0, 2_000)}`)
    return answer.json()
  }
  const states = async (name: string): Promise<readonly TaskState[]> => {
    const status = (await ask(`/connectors/${name}/status`)) as { connector: TaskState; tasks: readonly TaskState[] }
    const all = [status.connector, ...status.tasks]
    const failed = all.find(({ state }) => state === 'FAILED')
    if (failed) throw new Error(`Debezium's connector ${name} failed: ${failed.trace?.slice(0, 4_000)}`)
    return status.tasks.length === 0 ? [] : all
  }
  const worker: ConnectWorker = {
    pid: child.pid,
    async add(name, config) {
      added.push(name)
      await ask(`/connectors/${name}/config`, { method: 'PUT', body: JSON.stringify(config) })
      await until(`connector ${name} runs`, async () => {
        // 404 until the worker has stored it
        const found = await states(name).catch((error: Error) => {
          if (error.message.includes('answered 404')) return []
          throw error
        })
        return found.length > 0 && found.every(({ state }) => state === 'RUNNING')
      })
    },
    async assertRunning() {
      for (const name of added) await states(name)
    },
    async stop() {
      await endChild(child)
      await rm(home, { recursive: true, force: true })
    },
  }
  try {
    await until('Connect answers', async () => {
      child.assertAlive()
      return fetch(`${rest}/connectors`).then(
        (answer) => answer.ok,
        () => false,
      )
    })
  } catch (error) {
    await worker.stop()
    throw error
  }
  return worker
}

interface TaskState {
  readonly state: string
  readonly trace?: string
}

const lines = (properties: Readonly<Record<string, string>>): string =>
  Object.entries(properties)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('')
