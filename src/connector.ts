/**
 * The public API of those who write a sink or a queue of their own: docs/writing-a-sink.md. Contract version 1. It loads
 * nothing; `millrace/testing` holds a connector to its contract.
 */

export { backoff } from './core/backoff.ts'
export {
  type ConnectorDeps,
  defineQueue,
  defineSink,
  type Log,
  type OptionsSchema,
  type QueueConnector,
  type SinkConnector,
  type SinkDeps,
  type ValidationIssue,
  type ValidationResult,
} from './core/connector.ts'
export type {
  CompareOptions,
  Comparison,
  Copies,
  Copy,
  CopyRecord,
  CopyShape,
  CopyWish,
  Difference,
  DifferenceKind,
  Mended,
  MendOptions,
  Reach,
  Refused,
  RowTraits,
} from './core/copy.ts'
export { DURATION, parseDuration } from './core/duration.ts'
export { CODES, codeOf, type ErrorCode, type ErrorDetail, isErrorCode, MillraceError } from './core/errors.ts'
export { type Event, type Header, orderOf } from './core/event.ts'
export type { Finding } from './core/finding.ts'
export { isRetried, type Policy, policyFor } from './core/policy.ts'
export { formatLsn, isPosition, type Lsn, type Position, parseLsn, parsePosition, position } from './core/position.ts'
export type {
  Assignment,
  ConsumeOptions,
  Consumer,
  OffsetRange,
  PartitionRecords,
  Publisher,
  Queue,
  QueueRecord,
  QueueTraits,
  StateStore,
  StoredRecord,
  TopicPartition,
} from './core/queue.ts'
export { recordBytes } from './core/record.ts'
export type {
  Audit,
  AuditRecord,
  KeyPlace,
  Lane,
  LaneBatch,
  ParkedEvent,
  ParkedKey,
  ParkedTotals,
  Parking,
  ParkReason,
  PartitionCheckpoint,
  Redriven,
  Sink,
  SinkTraits,
  StoredParkedEvent,
} from './core/sink.ts'
export { isLocal, type TlsConnect, type TlsOptions, tlsFor } from './core/tls.ts'
export { DEFAULT_TOPIC, topicOf } from './core/topic-template.ts'
