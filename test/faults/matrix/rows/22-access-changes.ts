import { chown, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { PostgresServer } from '../../../../src/cli/demo/postgres-server.ts'
import { type Authority, createAuthority } from '../../../support/certificates.ts'
import { eventually } from '../../../support/eventually.ts'
import { startTcpProxy, type TcpProxy } from '../../../support/tcp-proxy.ts'
import type { Access, Pipeline } from '../../parts.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Side, Trial } from '../trial.ts'

const ROLE = 'rotating'

export const passwordRotated = defineRow({
  row: '22',
  fault: 'the passwords of source and sink are rotated; all sessions are ended; the new password comes a little later',
  when: 'running',
  runs: over([15, 18], ['local']),
  async run(ctx) {
    const folder = await ownFolder(ctx)
    const passwordFile = join(folder, 'password')
    await writeFile(passwordFile, 'secret-0')
    const trial = await ctx.trial({ ownSource: true, ownReplica: true, rate: 100 })
    for (const side of [trial.source, trial.replica]) await demandPassword(side, 'secret-0')
    const pipeline = through(trial, (url) => url.replace('postgres@', `${ROLE}@`), { passwordFile })
    const [relay, applier] = [trial.relay({ pipeline }), trial.applier({ pipeline })]
    await trial.applied()
    for (let round = 1; round <= ctx.times(1, 2); round++) {
      // the sink first: it is refused when it has something to apply
      for (const [side, process, code] of [
        [trial.replica, applier, 'MILLRACE_SINK_AUTH'],
        [trial.source, relay, 'MILLRACE_SOURCE_AUTH'],
      ] as const) {
        await side.query(`alter role ${ROLE} password 'secret-${round}'`)
        await endSessions(side)
        ctx.injected()
        await eventually(() => process.output().split(code).length > round, { within: 90_000, what: `it says ${code}` })
      }
      await writeFile(passwordFile, `secret-${round}`)
      await trial.applied(60_000)
    }
    for (const process of [relay, applier]) {
      const attempts = process.output().match(/MILLRACE_\w+_AUTH/g)?.length ?? 0
      if (!process.alive) throw new Error(`it ended:\n${process.output()}`)
      if (attempts > 40) throw new Error(`it tried ${attempts} times, in haste`)
      if (process.output().includes('secret-')) throw new Error('a password was told')
    }
    await trial.judge()
    ctx.checked('both tried again slowly, read the new password without a restart, and told none')
  },
})

export const certificateRotated = defineRow({
  row: '22',
  fault: 'the certificates of source and sink are renewed; then comes one of another authority, then a good one again',
  when: 'running; after the bad one it is started again',
  runs: over([15, 18], ['local']),
  async run(ctx) {
    const trial = await ctx.trial({ ownSource: true, ownReplica: true, rate: 100 })
    const [ours, others] = await Promise.all([createAuthority(), createAuthority('Somebody else')])
    const sides = [trial.source, trial.replica]
    for (const side of sides) await secure(side, ours)
    const pipeline = through(trial, (url) => url, { ca: ours.certificate })
    let relay = trial.relay({ pipeline })
    let applier = trial.applier({ pipeline })
    await trial.applied()
    for (let left = ctx.times(2, 8); left > 0; left--) {
      for (const side of sides) {
        await secure(side, ours)
        await endSessions(side)
        ctx.injected()
      }
      await trial.applied()
    }
    for (const process of [relay, applier]) if (!process.alive) throw new Error(`it ended:\n${process.output()}`)
    // the sink first: it connects when it has something to apply
    for (const [side, process] of [
      [trial.replica, applier],
      [trial.source, relay],
    ] as const) {
      await secure(side, others)
      await endSessions(side)
      ctx.injected()
      const { code, message, remedy } = await process.halted(30_000)
      if (code !== 'MILLRACE_TLS' || !/could not be secured/.test(message) || !/tls\.ca/.test(remedy ?? ''))
        throw new Error(`${code} ${message} ${remedy}`)
    }
    for (const side of sides) await secure(side, ours)
    await Promise.all([relay.kill(), applier.kill()])
    relay = trial.relay({ pipeline })
    applier = trial.applier({ pipeline })
    await trial.applied()
    await trial.judge()
    ctx.checked('a renewed certificate is no event; one that may not be trusted halts and says what to give')
  },
})

export const addressFlips = defineRow({
  row: '22',
  fault: 'the names of source and sink lead to another address, the old one is gone; in between they lead nowhere',
  when: 'running',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const folder = await ownFolder(ctx)
    const names = join(folder, 'names.json')
    const trial = await ctx.trial()
    const doors = { source: await twoDoors(ctx, trial.source), replica: await twoDoors(ctx, trial.replica) }
    let now = 0
    const lead = async (to: number | null): Promise<void> => {
      const address = to === null ? null : HOSTS[to]
      await writeFile(`${names}.new`, JSON.stringify({ 'source.test': address, 'replica.test': address }))
      // whoever reads it meanwhile reads a whole one
      await rename(`${names}.new`, names)
    }
    await lead(now)
    const pipeline: Pipeline = {
      ...trial.pipeline,
      sourceUrl: named(trial.source, 'source.test', doors.source[0].port),
      replicaUrl: named(trial.replica, 'replica.test', doors.replica[0].port),
      access: { names },
    }
    const [relay, applier] = [trial.relay({ pipeline }), trial.applier({ pipeline })]
    await trial.applied()
    for (let left = ctx.times(2, 6); left > 0; left--) {
      if (ctx.pick(2) === 0) await lead(null)
      for (const two of Object.values(doors)) {
        two[now]?.refuse()
        two[1 - now]?.restore()
        ctx.injected()
      }
      await trial.transactions(30)
      now = 1 - now
      await lead(now)
      await trial.applied()
    }
    for (const process of [relay, applier]) if (!process.alive) throw new Error(`it ended:\n${process.output()}`)
    await trial.judge()
    ctx.checked('each connect asks for the address again')
  },
})

const HOSTS = ['127.0.0.2', '127.0.0.3'] as const

async function ownFolder(ctx: RowContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-access-'))
  ctx.defer(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** two addresses of one server, on one port */
async function twoDoors(ctx: RowContext, { directUrl }: Side): Promise<readonly [TcpProxy, TcpProxy]> {
  const target = { port: Number(new URL(directUrl).port) }
  const first = await startTcpProxy(target, { listen: { host: HOSTS[0] } })
  const second = await startTcpProxy(target, { listen: { host: HOSTS[1], port: first.port } })
  ctx.defer(() => Promise.all([first.remove(), second.remove()]))
  return [first, second]
}

function named({ url }: Side, host: string, port: number): string {
  const to = new URL(url)
  to.host = `${host}:${port}`
  to.searchParams.set('sslmode', 'disable')
  return to.href
}

function through({ pipeline }: Trial, changed: (url: string) => string, access: Access): Pipeline {
  return { ...pipeline, sourceUrl: changed(pipeline.sourceUrl), replicaUrl: changed(pipeline.replicaUrl), access }
}

async function demandPassword(side: Side, password: string): Promise<void> {
  const { dataDir } = serverOf(side)
  const hba = join(dataDir, 'pg_hba.conf')
  await side.query(`create role ${ROLE} login superuser replication password '${password}'`)
  await writeFile(hba, `host all ${ROLE} 127.0.0.1/32 scram-sha-256\n${await readFile(hba, 'utf8')}`)
  await side.query('select pg_reload_conf()')
}

async function secure(side: Side, authority: Authority): Promise<void> {
  const { dataDir } = serverOf(side)
  const { certificate, key } = await authority.issue('127.0.0.1')
  for (const [name, text] of [
    ['server.crt', certificate],
    ['server.key', key],
  ] as const) {
    const path = join(dataDir, name)
    await writeFile(path, text, { mode: 0o600 })
    if (process.getuid?.() === 0) await chown(path, 65_534, 65_534)
  }
  await side.query("alter system set ssl = 'on'")
  await side.query('select pg_reload_conf()')
  await eventually(async () => (await side.query('show ssl')).rows[0].ssl === 'on', { what: 'TLS is on' })
}

/** of the pipeline; the writers and those who look on keep theirs */
async function endSessions(side: Side): Promise<void> {
  await side.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'millrace%'")
}

function serverOf({ server }: Side): PostgresServer {
  if (server === null) throw new Error('a shared server is not to be changed')
  return server
}
