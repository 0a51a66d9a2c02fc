import { mkdtemp, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CREATE_ORDERS, DEBEZIUM_OUTBOX, type OutboxTable } from './backlog.ts'
import { type Child, endChild, spawnChild } from './child.ts'
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
      home = await mkdtemp(join(stage.home, `${name}-`))
      config = join(home, 'millrace.yaml')
      // JSON is YAML
      await writeFile(config, JSON.stringify(millraceConfig(course, stage.brokers, outbox), null, 2))
      if (replica !== undefined) await execute(replica, CREATE_ORDERS, GUARD_COLUMN)
      const init = launch(stage.main, 'init', ['init', '-c', config])
      if ((await init.exited) !== 0) throw new Error(`millrace init failed:\n${init.said()}`)
    },
    async start() {
      await stage.topics.create(topic)
      const roles: Child[] = []
      const launchRole = (role: string, args: readonly string[]): void => {
        roles.push(
          launch(
            stage.main,
            role,
            ['run', ...args, '-c', config],
            profile ? ['--cpu-prof', `--cpu-prof-dir=${join(home, role)}`] : [],
          ),
        )
      }
      try {
        if (replica !== undefined) {
          launchRole('applier', ['--sink', 'replica'])
          await stage.topics.followed(`millrace.${name}.replica`)
        }
        launchRole('relay', ['--relay'])
      } catch (error) {
        await Promise.all(roles.map(endChild))
        throw new Error(roles.map((role) => role.said()).join('\n'), { cause: error })
      }
      return {
        topic,
        tested: roles.map((role) => ({ role: role.name, pid: role.pid })),
        async assertAlive() {
          for (const role of roles) role.assertAlive()
        },
        async stop() {
          await Promise.all(roles.map(endChild))
          const files = profile ? roles.map(async (role) => [role.name, await onlyFileOf(join(home, role.name))] as const) : []
          return new Map(await Promise.all(files))
        },
      }
    },
  }
}

export const GUARD_COLUMN = 'alter table public.orders add column _millrace_position text collate "C"'

export function millraceConfig({ name, source, replica }: Course, brokers: readonly string[], outbox: OutboxTable): object {
  return {
    name,
    source: {
      url: source,
      outbox: outbox === DEBEZIUM_OUTBOX ? { table: outbox.table, columns: { id: 'id', ...outbox.columns } } : {},
    },
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

function launch(main: string, role: string, args: readonly string[], flags: readonly string[] = []): Child {
  return spawnChild(role, process.execPath, ['--disable-warning=TimeoutNegativeWarning', ...flags, main, ...args])
}

async function onlyFileOf(folder: string): Promise<string> {
  return join(folder, (await readdir(folder))[0] ?? '')
}
