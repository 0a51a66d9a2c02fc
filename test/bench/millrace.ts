import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CREATE_ORDERS, DEBEZIUM_OUTBOX, type OutboxTable } from './backlog.ts'
import type { Contender, Course } from './contender.ts'
import { execute, type Stage } from './stage.ts'
import { PARTITIONS } from './topics.ts'

export interface MillraceOptions {
  readonly outbox: OutboxTable
  /** let V8 profile the processes, at some cost */
  readonly profile: boolean
}

/** Ours, run as users run it: by the command line, a process for each role, with the defaults of every setting. */
export function millrace(stage: Stage, course: Course, { outbox, profile }: MillraceOptions): Contender {
  const { name, replica } = course
  const topic = `${name}.order`
  let home = ''
  let config = ''
  return {
    who: 'Millrace',
    async prepare() {
      home = await mkdtemp(join(tmpdir(), 'millrace-bench-'))
      config = join(home, 'millrace.yaml')
      // JSON is YAML
      await writeFile(config, JSON.stringify(configOf(course, stage.brokers, outbox), null, 2))
      if (replica !== undefined) await execute(replica, CREATE_ORDERS, GUARD_COLUMN)
      await TEMP(course.source)
      const init = launch('init', ['init', '-c', config])
      if ((await init.exited) !== 0) throw new Error(`millrace init failed:\n${init.said()}`)
    },
    async start() {
      await stage.topics.create(topic)
      const roles: Launched[] = []
      const launchRole = (role: string, args: readonly string[]): void => {
        roles.push(launch(role, ['run', ...args, '-c', config], profile ? ['--cpu-prof', `--cpu-prof-dir=${join(home, role)}`] : []))
      }
      if (replica !== undefined) {
        launchRole('applier', ['--sink', 'replica'])
        await stage.topics.followed(`millrace.${name}.replica`)
      }
      launchRole('relay', ['--relay'])
      return {
        topic,
        tested: roles.map(({ role, child }) => ({ role, pid: child.pid ?? 0 })),
        async assertAlive() {
          const ended = roles.find(({ child }) => child.exitCode !== null || child.signalCode !== null)
          if (ended) throw new Error(`the ${ended.role} ended:\n${ended.said()}`)
        },
        async stop() {
          await Promise.all(roles.map(end))
          return profile ? new Map(await Promise.all(roles.map(async ({ role }) => [role, await onlyFileOf(join(home, role))] as const))) : new Map()
        },
      }
    },
  }
}

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts')

const GUARD_COLUMN = 'alter table public.orders add column _millrace_position text collate "C"'

function configOf({ name, source, replica }: Course, brokers: readonly string[], outbox: OutboxTable): object {
  return {
    name,
    source: { url: source, outbox: outbox === DEBEZIUM_OUTBOX ? { table: outbox.table, columns: { id: 'id', ...outbox.columns } } : {} },
    queue: { kind: 'kafka', brokers, topics: { name: `${name}.{aggregate_type}`, partitions: PARTITIONS } },
    sinks: replica === undefined ? {} : { replica: sinkOf(replica) },
    http: false,
    log: { level: 'warn' },
  }
}

const sinkOf = (url: string): object => ({
  kind: 'postgres',
  url,
  tables: [{ from: 'order', into: 'public.orders', key: 'id', on: { OrderChanged: 'upsert' } }],
})

interface Launched {
  readonly role: string
  readonly child: ChildProcess
  readonly exited: Promise<number | null>
  readonly said: () => string
}

function launch(role: string, args: readonly string[], flags: readonly string[] = []): Launched {
  const child = spawn(process.execPath, [...flags, MAIN, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
  let text = ''
  child.stderr.on('data', (chunk) => {
    text = (text + chunk).slice(-8_000)
  })
  return { role, child, exited: once(child, 'exit').then(([code]) => code as number | null), said: () => text }
}

async function end({ child, exited }: Launched): Promise<void> {
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 40_000)
  await exited
  clearTimeout(late)
}

async function onlyFileOf(folder: string): Promise<string> {
  return join(folder, (await readdir(folder))[0] ?? '')
}

// TEMP until init migrates
async function TEMP(url: string): Promise<void> {
  const { readFile } = await import('node:fs/promises')
  const { withClient } = await import('./stage.ts')
  await withClient(url, async (client) => {
    const { rows } = await client.query("select to_regclass('millrace.relay_state') as t")
    if (rows[0].t === null) await client.query(await readFile(new URL('../../migrations/0001_outbox.sql', import.meta.url), 'utf8'))
  })
}
