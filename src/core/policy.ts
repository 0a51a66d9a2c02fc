import { codeOf, type ErrorCode } from './errors.ts'

/**
 * What is done about a failure. Unknown means halt.
 * - `retry`: end the session, wait with jittered backoff, begin again from durable state. For ever.
 * - `retry-slowly`: the same, but a person must probably act (credentials): wait long, secrets are read again.
 * - `park`: keep the event and what follows of its key aside, in the sink; the rest flows. A sink that cannot halts.
 * - `halt`: stop what failed (the relay, or one partition of one sink) and say what a person must decide.
 * - `refuse`: the call or the command that asked for it fails, and nothing was done; a loop that meets it halts.
 */
export type Policy = 'retry' | 'retry-slowly' | 'park' | 'halt' | 'refuse'

export interface Rule {
  readonly policy: Policy
  readonly means: string
  /** what the operator does; the error itself says it for the case at hand */
  readonly remedy: string
}

const rule = (policy: Policy, means: string, remedy: string): Rule => ({ policy, means, remedy })

/** One line for each code there is. `docs/errors.md` is written from it. */
export const RULES: Readonly<Record<ErrorCode, Rule>> = {
  MILLRACE_CONFIG_INVALID: rule(
    'refuse',
    'The config cannot be read, or a setting in it is not what was expected.',
    'Mend the setting at the path that the message names; `millrace config` prints what is understood.',
  ),
  MILLRACE_USAGE: rule('refuse', 'A command or a call was given what it does not take.', 'See `millrace <command> --help`.'),
  MILLRACE_NOT_A_TRANSACTION: rule(
    'refuse',
    'An event was to be emitted through a pool, or outside a transaction: it could commit without the data it tells of.',
    'Pass the transaction that writes the data.',
  ),
  MILLRACE_EVENT_UNKNOWN: rule(
    'refuse',
    'No event of this type is defined.',
    'Add the type to `defineEvents`, or mend the name.',
  ),
  MILLRACE_EVENT_INVALID: rule(
    'refuse',
    'The event does not fit its definition or the limits of the outbox.',
    'Mend the value at the path that the message names.',
  ),

  MILLRACE_SOURCE_UNREACHABLE: rule(
    'retry',
    'The database cannot be reached, is starting or stopping, or lacks connections or disk.',
    'Nothing, if it comes back: the slot keeps what was not relayed. Watch `millrace_slot_retained_bytes`.',
  ),
  MILLRACE_SOURCE_AUTH: rule(
    'retry-slowly',
    'The database refuses the role or its password.',
    'Mend the credentials; `${file:…}` and functions are read again at every attempt.',
  ),
  MILLRACE_SOURCE_NOT_READY: rule(
    'halt',
    'Something in the database keeps the stream from running: a setting, a privilege, the shape of the outbox or of the publication.',
    '`millrace check` says what and how to mend it.',
  ),
  MILLRACE_SOURCE_CHANGED: rule(
    'halt',
    'The database is another one than the stream was read from, or continues it from before what was relayed: restored, replaced, or failed over to a standby that lagged.',
    '`millrace resume` explains what lies between and offers the ways on. Nothing that was relayed is touched.',
  ),
  MILLRACE_SOURCE_STANDBY: rule(
    'retry',
    'The url leads to a standby: a server that follows another one and may be promoted.',
    'Nothing, if it is promoted or the url follows the primary; else give the url of the primary.',
  ),
  MILLRACE_SCHEMA_OUTDATED: rule('halt', 'The outbox is missing or of an older version.', '`millrace init`.'),
  MILLRACE_PUBLICATION_MISSING: rule(
    'halt',
    'The publication is gone or was made again: Postgres skips what was written in between without an error.',
    '`millrace resume` explains the gap and offers the ways on.',
  ),
  MILLRACE_SLOT_MISSING: rule(
    'halt',
    'There is no replication slot: nothing keeps what was committed since it was dropped.',
    'Before the first run: `millrace init`. Later: `millrace resume` explains the gap and offers the ways on.',
  ),
  MILLRACE_SLOT_IN_USE: rule(
    'retry',
    'Another process holds the slot: it relays, and this one stands by.',
    'Nothing. If no other relay runs, the server lets go of a dead one after `wal_sender_timeout`.',
  ),
  MILLRACE_SLOT_LOST: rule(
    'halt',
    'Postgres removed WAL that the slot still needed (`max_slot_wal_keep_size`, or an idle time-out).',
    '`millrace resume` explains the gap and offers the ways on; raise the limit.',
  ),
  MILLRACE_SLOT_MOVED: rule(
    'halt',
    'The slot begins above what is recorded as relayed: it was made again, or advanced by somebody else, or the queue went back to an earlier state of its own.',
    '`millrace resume` explains the gap and offers the ways on.',
  ),
  MILLRACE_STREAM_BROKEN: rule('retry', 'The replication connection ended.', 'Nothing, if it comes back.'),
  MILLRACE_STREAM_INVALID: rule(
    'halt',
    'The replication stream holds what this version cannot read.',
    'Report it with the Postgres version; the slot keeps everything meanwhile.',
  ),
  MILLRACE_OUTBOX_ROW_INVALID: rule(
    'park',
    'A row of an outbox without our constraints holds what no record can carry.',
    'A placeholder stands in its place and parks its key at every sink: `millrace parked`. Where not even that can be published, the relay halts and names the row.',
  ),

  MILLRACE_STATE_MISSING: rule(
    'halt',
    "The relay's state is missing in the queue or in the database, and the other side remembers it.",
    'Check that queue and database are the right ones. Before the first run: `millrace init`.',
  ),
  MILLRACE_STATE_CONFLICT: rule(
    'halt',
    "The relay's states in queue and database do not belong together, or one cannot be read.",
    'Check `name`, `source.url` and the queue: two pipelines of one name may share neither side.',
  ),
  MILLRACE_FINGERPRINT_CHANGED: rule(
    'halt',
    'A setting changed that moves positions or partitions of a stream under way.',
    'Set it back, or drain the stream with the old setting first: `millrace drain`.',
  ),
  MILLRACE_NOT_DRAINED: rule(
    'halt',
    'The stream is to go on upon another server, and something may not have been relayed before: it was not drained, or services wrote after the drain, or the database was copied too early.',
    'Drain the old server (`millrace drain`) and copy it again; or publish what is missing: `millrace resume --refill`.',
  ),

  MILLRACE_QUEUE_UNREACHABLE: rule(
    'retry',
    'The queue cannot be reached or does not answer in time.',
    'Nothing, if it comes back.',
  ),
  MILLRACE_QUEUE_AUTH: rule(
    'retry-slowly',
    'The queue refuses the credentials or an access.',
    'Mend credentials or ACLs; `${file:…}` and functions are read again at every attempt.',
  ),
  MILLRACE_QUEUE_NOT_READY: rule(
    'halt',
    'A topic is missing, or the queue is set up so that it could lose what it acknowledges.',
    '`millrace check` says what and how to mend it.',
  ),
  MILLRACE_QUEUE_LOST_END: rule(
    'halt',
    'The queue no longer holds what it had acknowledged: it was truncated, restored or made again.',
    'Find out what removed it. The relay stops before it would bridge the gap; sinks keep what they applied.',
  ),
  MILLRACE_QUEUE_OFFSET_GONE: rule(
    'halt',
    'What a sink has yet to apply is no longer in the queue: it stood for longer than the retention, or the queue lost it.',
    'The message names both ends. The replica must be made anew.',
  ),
  MILLRACE_PARTITIONS_CHANGED: rule(
    'halt',
    'A topic has fewer partitions than the stream publishes to: it was deleted and made again, and what stood in the others is gone.',
    'Find out who made it again. Partitions that were added halt nobody: they are used from the next `millrace drain` on.',
  ),
  MILLRACE_PUBLISH_UNKNOWN: rule(
    'retry',
    'A publish was answered by an error or not at all: its outcome is unknown, so the session begins again from durable state.',
    'Nothing.',
  ),
  MILLRACE_EVENT_TOO_LARGE: rule(
    'park',
    "An event is larger than the queue's limit.",
    'A placeholder stands in its place and parks its key at every sink: `millrace parked`. Raise the limit, or set `source.outbox.maxEventBytes` so that the writer is refused.',
  ),
  MILLRACE_RECORD_INVALID: rule(
    'halt',
    'A record says that it is ours and cannot be read.',
    'Upgrade appliers before relays; else find out who wrote it.',
  ),

  MILLRACE_SINK_UNREACHABLE: rule(
    'retry',
    'The store cannot be reached, does not answer in time, or lacks disk or connections.',
    'Nothing, if it comes back; the queue keeps what was not applied.',
  ),
  MILLRACE_SINK_AUTH: rule(
    'retry-slowly',
    'The store refuses the role or its password.',
    'Mend the credentials; `${file:…}` and functions are read again at every attempt.',
  ),
  MILLRACE_SINK_NOT_READY: rule(
    'halt',
    'A table, a column, a privilege or the bookkeeping of the sink is missing.',
    '`millrace check` says what and how to mend it; then start again.',
  ),
  MILLRACE_SINK_FENCED: rule(
    'retry',
    'Another process owns the partition now: this one wrote nothing and waits until it is assigned anew.',
    'Nothing. If it repeats every few seconds, two pipelines use one sink name on one store.',
  ),
  MILLRACE_GAP: rule(
    'halt',
    'The event does not follow the one that was applied last: what lies between is missing from the queue.',
    'Nothing of it was applied. Find out what removed records from the topic.',
  ),
  MILLRACE_EVENT_UNMAPPED: rule(
    'halt',
    'The sink has no operation for an event of this type.',
    'Map the type (`ignore` is one), then start again.',
  ),
  MILLRACE_EVENT_REJECTED: rule(
    'park',
    'The store refuses the event for what it holds.',
    'Mend the table or the mapping, then `millrace parked redrive`; or give the event up: `millrace parked skip`.',
  ),
  MILLRACE_EVENT_CONFLICT: rule(
    'park',
    'A constraint refuses the event. It is tried again until all that the other partitions had by then is applied; only then is it final.',
    'Mend the row or the constraint, then `millrace parked redrive`; or give the event up: `millrace parked skip`.',
  ),
  MILLRACE_PARKED_CHANGED: rule('retry', 'Somebody redrove or skipped a parked key: the keys are read again.', 'Nothing.'),
  MILLRACE_PARKING_FULL: rule(
    'halt',
    'More would be parked than the sink may: something is wrong with many keys at once.',
    '`millrace parked list` says with what; mend it, redrive, then start again.',
  ),
  MILLRACE_NOT_PARKED: rule('refuse', 'The key is not parked, or another event stands first.', '`millrace parked list`.'),
  MILLRACE_MAPPING_CHANGED: rule(
    'halt',
    'A table is mapped otherwise than the replica was fed: old rows would keep the old mapping.',
    'Set it back, or feed a new table by a sink of another name.',
  ),
  MILLRACE_SOURCE_REFUSED: rule(
    'halt',
    'A table with a guard is fed by one source, and this is another.',
    'Feed a table of its own, or name the sources that the sink follows.',
  ),

  MILLRACE_CHECKPOINT_UNKNOWN: rule(
    'refuse',
    'There is no checkpoint of this name.',
    '`millrace checkpoint list` names those there are; one that was taken automatically is kept for a limited time.',
  ),
  MILLRACE_CHECKPOINT_EXISTS: rule(
    'refuse',
    'There is a checkpoint of this name already.',
    'Take another name, or `millrace checkpoint drop` the old one first.',
  ),
  MILLRACE_REPLAY_REFUSED: rule(
    'refuse',
    'What was asked for cannot be replayed, rebuilt or verified: its beginning is not in the queue any more, lies in the future or in another stream, or the sink cannot do it.',
    'The message says from where it can, or why not. Nothing was changed.',
  ),
  MILLRACE_REPLAY_RUNNING: rule(
    'refuse',
    'A replay, a rebuild or a verification of this sink is under way, or was paused.',
    'Wait for it, or `millrace replay SINK --resume` or `--cancel` the one there is.',
  ),
  MILLRACE_REPLAY_UNKNOWN: rule(
    'refuse',
    'No replay, rebuild or verification of this sink is under way.',
    'Nothing: there is nothing to pause, to resume or to cancel.',
  ),
  MILLRACE_COPY_BEHIND: rule(
    'retry',
    'A delete beyond what has been folded may have left no trace in the sink any more, so that a row could be brought back that was deleted.',
    'Nothing: it is folded further by itself, and then written.',
  ),

  MILLRACE_TLS: rule(
    'halt',
    'The certificate is not one that may be trusted: wrong host, unknown authority, expired.',
    'Mend the certificate or `tls.ca`; verification is not given up by itself.',
  ),

  MILLRACE_DRAIN_TIMEOUT: rule(
    'refuse',
    'What was under way was not finished before the deadline. Nothing is lost: it goes on at the next start.',
    'The message names who is behind; allow more time.',
  ),
  MILLRACE_INTERNAL: rule(
    'halt',
    'A failure that nobody foresaw.',
    'Report it with its log. Nothing was confirmed beyond what is durable.',
  ),
}

export function policyFor(error: unknown): Policy {
  return RULES[codeOf(error)].policy
}

/** whether it may pass by itself */
export function isRetried(policy: Policy): policy is 'retry' | 'retry-slowly' {
  return policy === 'retry' || policy === 'retry-slowly'
}
