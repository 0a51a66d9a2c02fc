/** The public API of the pipeline. Services write events through `millrace/outbox`. */

export type { Log } from './core/connector.ts'
export { CODES, type ErrorCode, type ErrorDetail, MillraceError } from './core/errors.ts'
export type { Finding } from './core/finding.ts'
export { isPosition, type Lsn, type Position, parsePosition } from './core/position.ts'
export type { Tail } from './core/relay-state.ts'
export type { SavedCheckpoint } from './core/saved-checkpoint.ts'
export type {
  Audit,
  AuditRecord,
  KeyPlace,
  ParkedEvent,
  ParkedKey,
  ParkedTotals,
  ParkReason,
  Redriven,
  StoredParkedEvent,
} from './core/sink.ts'
export type { TlsOptions } from './core/tls.ts'
export type { CheckpointPlace, Checkpoints, ShownCheckpoint } from './runtime/checkpoint.ts'
export {
  type CheckpointsConfig,
  type Duration,
  defineConfig,
  type HttpConfig,
  type LogConfig,
  type MillraceConfig,
  type OutboxColumns,
  type OutboxConfig,
  type Password,
  type QueueConfig,
  type SinkConfig,
  type SourceConfig,
  type TopicsConfig,
  type VerifyQuery,
} from './runtime/config.ts'
export { type ConfigFile, readConfigFile } from './runtime/config-file.ts'
export { configJsonSchema } from './runtime/config-json-schema.ts'
export type { DrainOptions, DrainReport } from './runtime/drain.ts'
export type { InitOptions } from './runtime/init.ts'
export type { By, ParkedKeyEvents, ParkedKeys, ParkedList, RedrivenKey } from './runtime/parked.ts'
export { createPipeline, type Pipeline, type PipelineOptions } from './runtime/pipeline.ts'
export type { RebuildOptions, RebuildPlan, RebuildReport } from './runtime/rebuild.ts'
export type { ReplayAsked, ReplayedRows, ReplayOptions, ReplayPlan, ReplayReport } from './runtime/replay.ts'
export type { ResumeOptions, ResumeReport } from './runtime/resume.ts'
export type { Roles, Running } from './runtime/run.ts'
export type { JobOptions, JobProgress, JobStatus, SinkJob } from './runtime/sink-job.ts'
export type {
  ErrorReport,
  ParkedReport,
  PartitionReport,
  RelayReport,
  SinkReport,
  SlotReport,
  StatusReport,
} from './runtime/status.ts'
export type { TeardownParts } from './runtime/teardown.ts'
export type { KeyReport, SourceReport, TableReport, VerifyOptions, VerifyReport } from './runtime/verify.ts'
export { type AdminServer, startAdmin } from './server/admin.ts'
export { adminSurface } from './server/surface.ts'
