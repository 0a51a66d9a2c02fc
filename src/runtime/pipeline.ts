import type { Log } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import type { Finding } from '../core/finding.ts'
import type { BackfillControl, BackfillModule, BackfillProgress } from '../outbox/backfill.ts'
import type { Failpoint } from '../pipeline/failpoint.ts'
import type { ReplayFailpoint } from '../pipeline/replay.ts'
import type { VerifyFailpoint } from '../pipeline/verify.ts'
import { backfillSource } from './backfill.ts'
import { checkPipeline } from './check.ts'
import { type Checkpoints, namedCheckpoints } from './checkpoint.ts'
import { systemClock } from './clock.ts'
import type { MillraceConfig } from './config.ts'
import { EVERYTHING, type Needs, type ParsedConfig, parseConfig } from './config-schema.ts'
import { type DrainOptions, type DrainReport, drainPipeline } from './drain.ts'
import { type InitOptions, initPipeline } from './init.ts'
import { createLog, type LogLevel } from './log.ts'
import type { EpochStep } from './new-epoch.ts'
import { checkOptions, type Surroundings } from './open.ts'
import { type ParkedKeys, parkedKeys } from './parked.ts'
import { dropAside, planRebuild, type RebuildOptions, type RebuildPlan, type RebuildReport, rebuildSink } from './rebuild.ts'
import {
  planReplay,
  type ReplayAsked,
  type ReplayOptions,
  type ReplayPlan,
  type ReplayReport,
  resumeReplay,
  runReplay,
} from './replay.ts'
import { type ResumeOptions, type ResumeReport, resumePipeline } from './resume.ts'
import { type SqlRole, sqlFor } from './role-sql.ts'
import { type Roles, type Running, startRoles } from './run.ts'
import { redacted, Secrets } from './secrets.ts'
import { type JobOptions, type SinkJob, sinkJob } from './sink-job.ts'
import type { StatusReport } from './status.ts'
import { readStatus } from './status-reading.ts'
import { type TeardownParts, teardownPipeline } from './teardown.ts'
import { unsecured } from './unsecured.ts'
import { type VerifyOptions, type VerifyReport, verifySink } from './verify.ts'

/** A pipeline as its config describes it: what the commands do, for programs. Each call opens what it needs and closes it. */
export interface Pipeline {
  readonly name: string
  readonly log: Log
  /** where the endpoints are to be served; false: nowhere */
  readonly http: false | { readonly host: string; readonly port: number }
  /** What would lose data or cannot work, and what a person should know. Changes nothing. */
  check(): Promise<readonly Finding[]>
  /**
   * Makes what is missing: schema, publication, slot, the stream's identity, the sinks' bookkeeping. Safe to repeat.
   * With `newEpoch` it moves a stream that was drained to the server that the config names now.
   * @returns what was made, for people
   * @throws MILLRACE_NOT_DRAINED when events could be lost by moving it
   */
  init(options?: InitOptions): Promise<readonly string[]>
  /** The statements that a role of the database needs, inside one transaction, for any migration tool. */
  sql(role: SqlRole): Promise<string>
  /**
   * Starts the roles; default: everything that the config has. Never migrates.
   * @throws MILLRACE_CONFIG_INVALID, MILLRACE_USAGE; whatever comes later is retried, or rejects `done`
   */
  run(roles?: Roles): Promise<Running>
  /** as a running process tells it, else as the database, the queue and the sinks do */
  status(): Promise<StatusReport>
  /**
   * What people do about what a sink could not apply.
   * @throws MILLRACE_USAGE when the config has no such sink
   */
  parked(sink: string): ParkedKeys
  /**
   * Relays and applies what was committed before it began, and records that the stream stands still, which a changed
   * mapping, template or partition count and a move to another server ask for. To be run instead of `run`.
   * @throws MILLRACE_DRAIN_TIMEOUT with who is behind, MILLRACE_SLOT_IN_USE while a relay runs, and what halts one
   */
  drain(options?: DrainOptions): Promise<DrainReport>
  /**
   * Says whether a relay could begin and what lies between if not (a slot that was lost, a database that was restored or
   * failed over …). Without a `way` it changes nothing; with one, it goes it and begins a new epoch.
   * @throws MILLRACE_SLOT_IN_USE while a relay runs, MILLRACE_USAGE when nothing is wrong, and what no new slot mends
   */
  resume(options?: ResumeOptions): Promise<ResumeReport>
  /** moments of the stream under a name, for a replay to begin at */
  readonly checkpoints: Checkpoints
  /** What a replay would do. Changes nothing. @throws what the replay would throw before it begins */
  planReplay(sink: string, asked: ReplayAsked): Promise<ReplayPlan>
  /**
   * Brings what changed since a place in the stream to its right state again, for one sink and beside the live traffic; a
   * sink without rows gets the events again, marked as replayed. With `resume` it goes on with one that was stopped.
   * @throws MILLRACE_USAGE, MILLRACE_CHECKPOINT_UNKNOWN, MILLRACE_REPLAY_REFUSED, MILLRACE_REPLAY_RUNNING, MILLRACE_REPLAY_UNKNOWN:
   *   nothing was changed then
   */
  replay(sink: string, options: ReplayOptions | (JobOptions & { readonly resume: true })): Promise<ReplayReport>
  /** The replay, rebuild or verification of a sink that is under way, in whatever process. @throws MILLRACE_USAGE */
  job(sink: string): SinkJob
  /**
   * Compares every key of a sink with what the stream makes of it, beside the live traffic; mends what differs, if asked to.
   * @throws MILLRACE_USAGE, MILLRACE_REPLAY_REFUSED, MILLRACE_REPLAY_RUNNING, MILLRACE_REPLAY_UNKNOWN
   */
  verify(sink: string, options?: VerifyOptions): Promise<VerifyReport>
  /** What a rebuild would do. Changes nothing. @throws what `rebuild` would */
  planRebuild(sink: string, options?: Pick<RebuildOptions, 'beside'>): Promise<RebuildPlan>
  /**
   * Brings every row of a sink to what the stream makes of it, beside the live traffic, and removes what is in no event.
   * @throws MILLRACE_USAGE, MILLRACE_REPLAY_REFUSED, MILLRACE_REPLAY_RUNNING, MILLRACE_REPLAY_UNKNOWN
   */
  rebuild(sink: string, options?: RebuildOptions): Promise<RebuildReport>
  /** Removes the tables that rebuilds beside them have put aside. @returns which */
  dropAside(sink: string): Promise<readonly string[]>
  /**
   * Makes events of rows that are older than the outbox; only the source is connected to. Goes on where it stood.
   * @throws what `backfill` of an outbox throws
   */
  backfill<Row, Event>(definition: BackfillModule<Row, Event>, control?: BackfillControl): Promise<BackfillProgress>
  /** Removes what is named. @returns what was removed, for people */
  teardown(parts: TeardownParts): Promise<readonly string[]>
  /** the config as it is understood, secrets hidden */
  describe(): unknown
}

export interface PipelineOptions {
  /** the config's name in messages; default: `config` */
  readonly origin?: string
  /** where relative paths begin; default: the current folder */
  readonly folder?: string
  /** default: process.env */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** default: JSON lines on standard error, of the config's `log.level` */
  readonly log?: Log
  readonly logLevel?: LogLevel
  /** @internal */
  readonly secrets?: Secrets
  /** @internal tests kill the process here */
  readonly failpoint?: (name: Failpoint | EpochStep | VerifyFailpoint | ReplayFailpoint) => Promise<void> | void
}

/** What every role needs of a config: its name, and how it is seen from outside. */
const FRAME: Needs = { source: false, queue: false, sinks: [] }

/** @throws MILLRACE_CONFIG_INVALID with a line for each issue: its path, what was expected, what was found */
export function createPipeline(config: MillraceConfig, options: PipelineOptions = {}): Pipeline {
  const secrets = options.secrets ?? new Secrets()
  const origin = { origin: options.origin ?? 'config', folder: options.folder ?? process.cwd() }
  const parse = (needs: Needs): ParsedConfig =>
    parseConfig(config, origin.origin, { env: options.env ?? process.env, folder: origin.folder, secrets }, needs)
  const frame = parse(FRAME)
  const log = options.log ?? createLog({ level: options.logLevel ?? frame.log.level, secrets })
  const around: Surroundings = { ...origin, log, clock: systemClock, random: Math.random }

  const { failpoint } = options

  return {
    name: frame.name,
    log,
    http: frame.http,
    check: async () => checkPipeline(parse(EVERYTHING), around),
    sql: async (role) =>
      sqlFor(
        role,
        parse(role === 'sink' ? { ...EVERYTHING, source: false, queue: false } : { ...EVERYTHING, sinks: [] }),
        around,
      ),
    init: async (how) => initPipeline(parse(EVERYTHING), around, { ...how, ...(failpoint !== undefined && { failpoint }) }),
    async run(roles) {
      for (const name of roles?.sinks ?? []) requireSink(config, name, origin.origin)
      const parsed = parse(roles === undefined ? EVERYTHING : { source: roles.relay, queue: true, sinks: roles.sinks })
      const all: Roles = { relay: parsed.source !== undefined, sinks: Object.keys(parsed.sinks) }
      if (roles === undefined && !all.relay && all.sinks.length === 0)
        throw new MillraceError('MILLRACE_USAGE', `${origin.origin} has neither a source nor a sink to run`)
      await checkOptions(parsed, around)
      for (const { subject, message } of unsecured(parsed)) log.warn({ subject }, message)
      return startRoles(parsed, roles ?? all, around, failpoint)
    },
    status: async () => readStatus(parse(EVERYTHING), around),
    parked(sink) {
      requireSink(config, sink, origin.origin)
      return parkedKeys(sink, () => parse({ source: false, queue: 'topics', sinks: [sink] }), around)
    },
    drain: async (how) => drainPipeline(parse(EVERYTHING), around, how),
    resume: async (how) => resumePipeline(parse({ ...EVERYTHING, sinks: [] }), around, how ?? {}, failpoint),
    checkpoints: namedCheckpoints(() => parse({ source: false, queue: true, sinks: [] }), around),
    async planReplay(sink, asked) {
      requireSink(config, sink, origin.origin)
      return planReplay(sink, parse({ source: false, queue: true, sinks: [sink] }), around, asked)
    },
    async replay(sink, how) {
      requireSink(config, sink, origin.origin)
      const parsed = parse({ source: false, queue: true, sinks: [sink] })
      return 'from' in how
        ? runReplay(sink, parsed, around, how, failpoint ?? (() => {}))
        : resumeReplay(sink, parsed, around, how, failpoint ?? (() => {}))
    },
    job(sink) {
      requireSink(config, sink, origin.origin)
      return sinkJob(sink, () => parse({ source: false, queue: true, sinks: [sink] }), around)
    },
    async verify(sink, how = {}) {
      requireSink(config, sink, origin.origin)
      const parsed = parse({ source: how.against === 'source', queue: true, sinks: [sink] })
      return verifySink(sink, parsed, around, how, failpoint ?? (() => {}))
    },
    async planRebuild(sink, how = {}) {
      requireSink(config, sink, origin.origin)
      return planRebuild(sink, parse({ source: false, queue: true, sinks: [sink] }), around, how)
    },
    async rebuild(sink, how = {}) {
      requireSink(config, sink, origin.origin)
      return rebuildSink(sink, parse({ source: false, queue: true, sinks: [sink] }), around, how, failpoint ?? (() => {}))
    },
    async dropAside(sink) {
      requireSink(config, sink, origin.origin)
      return dropAside(sink, parse({ source: false, queue: true, sinks: [sink] }), around)
    },
    backfill: async (definition, control = {}) =>
      backfillSource(parse({ source: true, queue: false, sinks: [] }), around, definition, control),
    teardown: async (parts) => teardownPipeline(parse({ ...EVERYTHING, sinks: [] }), parts, around),
    describe: () => redacted(parse(EVERYTHING), secrets),
  }
}

function requireSink(config: MillraceConfig, name: string, origin: string): void {
  const names = Object.keys(config.sinks ?? {})
  if (names.includes(name)) return
  const known = names.length === 0 ? 'it has none' : `its sinks are ${names.join(', ')}`
  throw new MillraceError('MILLRACE_USAGE', `there is no sink ${name} in ${origin}: ${known}`)
}
