import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as wait } from 'node:timers/promises'
import { steadyPort } from '../../support/port.ts'
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

/** What the JVM gets: half the memory that Connect's own start script gives it at most, and more than it was seen to fill. */
export const HEAP = ['-Xms256m', '-Xmx1g', '-XX:+UseG1GC']

const LOGGING = join(import.meta.dirname, '../../support/kafka/log4j2.properties')

export async function startConnect(jars: DebeziumJars, brokers: readonly string[], jvm: readonly string[] = HEAP): Promise<ConnectWorker> {
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
  const java = [...jvm, '-server', '-Djava.awt.headless=true', `-Dlog4j2.configurationFile=file:${LOGGING}`]
  const main = ['-cp', join(jars.libs, '*'), 'org.apache.kafka.connect.cli.ConnectStandalone', properties]
  const child = spawn('java', [...java, ...main], { stdio: ['ignore', 'pipe', 'pipe'] })
  const said = lastLines(child)
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
    pid: child.pid ?? 0,
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
      if (child.exitCode === null && child.signalCode === null) {
        const gone = once(child, 'exit')
        child.kill('SIGTERM')
        const late = setTimeout(() => child.kill('SIGKILL'), 20_000)
        await gone
        clearTimeout(late)
      }
      await rm(home, { recursive: true, force: true })
    },
  }
  try {
    await until('Connect answers', async () => {
      if (child.exitCode !== null) throw new Error(`Connect ended at its start with ${child.exitCode}:\n${said().join('\n')}`)
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

function lastLines(child: ChildProcess): () => readonly string[] {
  const kept: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue
    createInterface({ input: stream }).on('line', (line) => {
      kept.push(line)
      if (kept.length > 60) kept.shift()
    })
  }
  return () => kept
}

async function until(what: string, met: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 90_000
  while (!(await met())) {
    if (Date.now() > deadline) throw new Error(`not within 90 s: ${what}`)
    await wait(100)
  }
}
