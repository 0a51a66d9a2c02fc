/**
 * Errors say what failed; `policy.ts` says what is done about it. The list is closed: users match on the codes, so a
 * code is never renamed and a new failure gets a new one.
 */
export const CODES = [
  // how it was asked
  'MILLRACE_CONFIG_INVALID',
  'MILLRACE_USAGE',
  // writing to the outbox
  'MILLRACE_NOT_A_TRANSACTION',
  'MILLRACE_EVENT_UNKNOWN',
  'MILLRACE_EVENT_INVALID',
  // the source
  'MILLRACE_SOURCE_UNREACHABLE',
  'MILLRACE_SOURCE_AUTH',
  'MILLRACE_SOURCE_NOT_READY',
  'MILLRACE_SOURCE_CHANGED',
  'MILLRACE_SOURCE_STANDBY',
  'MILLRACE_SCHEMA_OUTDATED',
  'MILLRACE_PUBLICATION_MISSING',
  'MILLRACE_SLOT_MISSING',
  'MILLRACE_SLOT_IN_USE',
  'MILLRACE_SLOT_LOST',
  'MILLRACE_SLOT_MOVED',
  'MILLRACE_STREAM_BROKEN',
  'MILLRACE_STREAM_INVALID',
  'MILLRACE_OUTBOX_ROW_INVALID',
  // the relay's state
  'MILLRACE_STATE_MISSING',
  'MILLRACE_STATE_CONFLICT',
  'MILLRACE_FINGERPRINT_CHANGED',
  'MILLRACE_NOT_DRAINED',
  // the queue
  'MILLRACE_QUEUE_UNREACHABLE',
  'MILLRACE_QUEUE_AUTH',
  'MILLRACE_QUEUE_NOT_READY',
  'MILLRACE_QUEUE_LOST_END',
  'MILLRACE_QUEUE_OFFSET_GONE',
  'MILLRACE_PARTITIONS_CHANGED',
  'MILLRACE_PUBLISH_UNKNOWN',
  'MILLRACE_EVENT_TOO_LARGE',
  'MILLRACE_RECORD_INVALID',
  // the sinks
  'MILLRACE_SINK_UNREACHABLE',
  'MILLRACE_SINK_AUTH',
  'MILLRACE_SINK_NOT_READY',
  'MILLRACE_SINK_FENCED',
  'MILLRACE_GAP',
  'MILLRACE_EVENT_UNMAPPED',
  'MILLRACE_EVENT_REJECTED',
  'MILLRACE_EVENT_CONFLICT',
  'MILLRACE_PARKED_CHANGED',
  'MILLRACE_PARKING_FULL',
  'MILLRACE_NOT_PARKED',
  'MILLRACE_MAPPING_CHANGED',
  'MILLRACE_SOURCE_REFUSED',
  // checkpoints, replay, rebuild, verify
  'MILLRACE_CHECKPOINT_UNKNOWN',
  'MILLRACE_CHECKPOINT_EXISTS',
  'MILLRACE_REPLAY_REFUSED',
  'MILLRACE_REPLAY_RUNNING',
  'MILLRACE_REPLAY_UNKNOWN',
  'MILLRACE_COPY_BEHIND',
  // any connection
  'MILLRACE_TLS',
  // the process
  'MILLRACE_DRAIN_TIMEOUT',
  'MILLRACE_INTERNAL',
] as const

export type ErrorCode = (typeof CODES)[number]

export interface ErrorDetail {
  readonly cause?: unknown
  /** what the operator can do: a command, a setting, a statement */
  readonly remedy?: string
  /** what identifies the failure: topic, partition, position, event id …; never a payload, never a secret */
  readonly fields?: Readonly<Record<string, string | number | boolean | null>>
}

export class MillraceError extends Error {
  override readonly name = 'MillraceError'
  readonly code: ErrorCode
  readonly remedy: string | undefined
  readonly fields: Readonly<Record<string, string | number | boolean | null>>

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause })
    this.code = code
    this.remedy = detail.remedy
    this.fields = detail.fields ?? {}
  }
}

export function isErrorCode(text: string): text is ErrorCode {
  return (CODES as readonly string[]).includes(text)
}

export function codeOf(error: unknown): ErrorCode {
  return error instanceof MillraceError ? error.code : 'MILLRACE_INTERNAL'
}
