import { eventually } from '../../../support/eventually.ts'
import { mountSmallDisk, type SmallDisk } from '../../../support/tmpfs.ts'
import type { Process } from '../../processes.ts'
import { defineRow, over, type RowContext } from '../row.ts'
import type { Side } from '../trial.ts'

/** what keeps a server small, so that little of the disk is taken before it is full */
const SMALL = { max_wal_size: '48MB', min_wal_size: '32MB', max_slot_wal_keep_size: '-1' }
const NO_SPACE = /53100|No space left|disk is full|disk full/

export const sinkDiskFull = defineRow({
  row: '16',
  fault: "the disk of the sink's Postgres is full, data and WAL, until somebody makes room",
  when: 'steady',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const disk = await smallDisk(ctx, 256)
    const trial = await ctx.trial({ ownReplica: SMALL, replicaFolder: disk.folder })
    const relay = trial.relay()
    const applier = trial.applier()
    await trial.applied()
    for (let left = ctx.times(1, 4); left > 0; left--) {
      await disk.fill()
      ctx.injected()
      // what has room in a page goes on for a while; a new segment of the WAL has none
      await eventually(
        async () => {
          await trial.replica.query('select pg_switch_wal()').catch(() => {})
          return newly(applier, /MILLRACE_SINK_UNREACHABLE/)
        },
        { within: 90_000, what: 'the sink notices' },
      )
      await trial.transactions(30)
      await disk.free()
      await revive(trial.replica)
      await trial.applied(40_000)
    }
    allLive(relay, applier)
    await trial.judge()
  },
})

export const sourceDiskFull = defineRow({
  row: '16',
  fault: 'the disk of the source Postgres is full, data and WAL, until somebody makes room',
  when: 'steady',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const disk = await smallDisk(ctx, 256)
    const trial = await ctx.trial({ ownSource: { ...SMALL, logical_decoding_work_mem: '64kB' }, sourceFolder: disk.folder })
    const relay = trial.relay()
    const applier = trial.applier()
    await trial.applied()
    for (let left = ctx.times(1, 4); left > 0; left--) {
      await disk.fill()
      ctx.injected()
      await eventually(
        () =>
          trial.source
            .query(
              'create table if not exists filler as select repeat(g::text, 1000) from generate_series(1, 1000) g; select pg_switch_wal(); drop table filler',
            )
            .then(
              () => false,
              () => true,
            ),
        { within: 90_000, what: 'the source notices' },
      )
      await disk.free()
      await revive(trial.source)
      await trial.transactions(30)
      await trial.applied(40_000)
    }
    allLive(relay, applier)
    await trial.judge()
  },
})

export const queueDiskFull = defineRow({
  row: '16',
  fault: "the disk of the embedded queue's file is full until somebody makes room",
  when: 'steady',
  runs: over([15, 18], ['local']),
  async run(ctx) {
    const disk = await smallDisk(ctx, 64)
    const trial = await ctx.trial({ queueFolder: disk.folder, rate: 300 })
    const relay = trial.relay()
    const applier = trial.applier()
    await trial.applied()
    for (let left = ctx.times(2, 12); left > 0; left--) {
      await disk.fill(ctx.pick(64 * 1024))
      ctx.injected()
      await eventually(() => newly(relay, NO_SPACE), { within: 90_000, what: 'the relay notices' })
      await disk.free()
      await trial.applied(40_000)
    }
    allLive(relay, applier)
    await trial.judge()
  },
})

export const brokerDiskFull = defineRow({
  row: '16',
  fault: "the disk of the broker's log is full: it halts; somebody makes room and starts it again",
  when: 'steady',
  runs: over([15, 18], ['kafka']),
  async run(ctx) {
    const disk = await smallDisk(ctx, 256)
    const trial = await ctx.trial({ ownKafka: { properties: { 'log.dirs': `${disk.folder}/log` } } })
    const relay = trial.relay()
    const applier = trial.applier()
    await trial.applied()
    for (let left = ctx.times(1, 3); left > 0; left--) {
      await disk.fill(ctx.pick(64 * 1024))
      ctx.injected()
      await eventually(() => newly(relay, /MILLRACE_(PUBLISH_UNKNOWN|QUEUE_UNREACHABLE)/), {
        within: 90_000,
        what: 'the relay notices',
      })
      await disk.free()
      await trial.kafka?.cluster.kill()
      await trial.kafka?.cluster.start()
      await trial.applied(60_000)
    }
    allLive(relay, applier)
    await trial.judge()
  },
})

async function smallDisk(ctx: RowContext, megabytes: number): Promise<SmallDisk> {
  const disk = await mountSmallDisk(megabytes)
  ctx.defer(() => disk.remove())
  return disk
}

const seen = new WeakMap<Process, string>()
/** whether it has said such a thing since it was asked last */
function newly(process: Process, what: RegExp): boolean {
  const said = process.output()
  const before = seen.get(process) ?? ''
  const fresh = said.startsWith(before) ? said.slice(before.length) : said.slice(-2_000)
  if (!what.test(fresh)) return false
  seen.set(process, said)
  return true
}

/** A server that a full disk ended does not start by itself. */
async function revive({ server, query }: Side): Promise<void> {
  await eventually(
    async () => {
      if (server !== null && !isAlive(server.pid)) {
        await server.stop('kill')
        await server.start()
      }
      await query('select 1')
      return true
    },
    { within: 60_000, what: 'the server is there again' },
  )
}

function isAlive(pid: number): boolean {
  try {
    return pid !== 0 && process.kill(pid, 0)
  } catch {
    return false
  }
}

function allLive(...processes: readonly Process[]): void {
  for (const one of processes) if (!one.alive) throw new Error(`a process ended:\n${one.output()}`)
}
