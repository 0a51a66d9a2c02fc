import { codeOf, type ErrorCode } from './errors.ts'

/**
 * What is done about a failure. Unknown means halt.
 * - `retry`: end the session, wait with jittered backoff, begin again from durable state. For ever.
 * - `retry-slowly`: the same, but a person must probably act (credentials): wait long, secrets are read again.
 * - `halt`: stop what failed (the relay, or one partition of one sink) and say what a person must decide.
 */
export type Policy = 'retry' | 'retry-slowly' | 'halt'

const RETRIED: Partial<Record<ErrorCode, Policy>> = {
  MILLRACE_SOURCE_UNREACHABLE: 'retry',
  MILLRACE_SOURCE_AUTH: 'retry-slowly',
  MILLRACE_SLOT_IN_USE: 'retry',
  MILLRACE_STREAM_BROKEN: 'retry',
  MILLRACE_QUEUE_UNREACHABLE: 'retry',
  MILLRACE_QUEUE_AUTH: 'retry-slowly',
  MILLRACE_PUBLISH_UNKNOWN: 'retry',
  MILLRACE_SINK_UNREACHABLE: 'retry',
  MILLRACE_SINK_AUTH: 'retry-slowly',
  // a value given up by a late event of another partition frees the constraint; the applier decides when it is final
  MILLRACE_EVENT_CONFLICT: 'retry',
}

export function policyFor(error: unknown): Policy {
  return RETRIED[codeOf(error)] ?? 'halt'
}
