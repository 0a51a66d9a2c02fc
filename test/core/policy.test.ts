import { expect, test } from 'vitest'
import { CODES, codeOf, MillraceError } from '../../src/core/errors.ts'
import { policyFor } from '../../src/core/policy.ts'

/** Users match on the codes: one may be added here, none may be renamed or removed. */
test('the codes are those that were promised', () => {
  expect(CODES).toMatchInlineSnapshot(`
    [
      "MILLRACE_CONFIG_INVALID",
      "MILLRACE_USAGE",
      "MILLRACE_NOT_A_TRANSACTION",
      "MILLRACE_EVENT_UNKNOWN",
      "MILLRACE_EVENT_INVALID",
      "MILLRACE_SOURCE_UNREACHABLE",
      "MILLRACE_SOURCE_AUTH",
      "MILLRACE_SOURCE_NOT_READY",
      "MILLRACE_SOURCE_CHANGED",
      "MILLRACE_SOURCE_STANDBY",
      "MILLRACE_SCHEMA_OUTDATED",
      "MILLRACE_PUBLICATION_MISSING",
      "MILLRACE_SLOT_MISSING",
      "MILLRACE_SLOT_IN_USE",
      "MILLRACE_SLOT_LOST",
      "MILLRACE_SLOT_MOVED",
      "MILLRACE_STREAM_BROKEN",
      "MILLRACE_STREAM_INVALID",
      "MILLRACE_OUTBOX_ROW_INVALID",
      "MILLRACE_STATE_MISSING",
      "MILLRACE_STATE_CONFLICT",
      "MILLRACE_FINGERPRINT_CHANGED",
      "MILLRACE_NOT_DRAINED",
      "MILLRACE_QUEUE_UNREACHABLE",
      "MILLRACE_QUEUE_AUTH",
      "MILLRACE_QUEUE_NOT_READY",
      "MILLRACE_QUEUE_LOST_END",
      "MILLRACE_QUEUE_OFFSET_GONE",
      "MILLRACE_PARTITIONS_CHANGED",
      "MILLRACE_PUBLISH_UNKNOWN",
      "MILLRACE_EVENT_TOO_LARGE",
      "MILLRACE_RECORD_INVALID",
      "MILLRACE_SINK_UNREACHABLE",
      "MILLRACE_SINK_AUTH",
      "MILLRACE_SINK_NOT_READY",
      "MILLRACE_SINK_FENCED",
      "MILLRACE_GAP",
      "MILLRACE_EVENT_UNMAPPED",
      "MILLRACE_EVENT_REJECTED",
      "MILLRACE_EVENT_CONFLICT",
      "MILLRACE_PARKED_CHANGED",
      "MILLRACE_PARKING_FULL",
      "MILLRACE_NOT_PARKED",
      "MILLRACE_MAPPING_CHANGED",
      "MILLRACE_SOURCE_REFUSED",
      "MILLRACE_CHECKPOINT_UNKNOWN",
      "MILLRACE_CHECKPOINT_EXISTS",
      "MILLRACE_REPLAY_REFUSED",
      "MILLRACE_REPLAY_RUNNING",
      "MILLRACE_REPLAY_UNKNOWN",
      "MILLRACE_COPY_BEHIND",
      "MILLRACE_TLS",
      "MILLRACE_DRAIN_TIMEOUT",
      "MILLRACE_INTERNAL",
    ]
  `)
})

test('no code is there twice, and each says whose it is', () => {
  expect(new Set(CODES).size).toBe(CODES.length)
  for (const code of CODES) expect(code).toMatch(/^MILLRACE_[A-Z]+(_[A-Z]+)*$/)
})

test('only what may pass by itself is tried again; everything else waits for a person', () => {
  const by = (policy: string) => CODES.filter((code) => policyFor(new MillraceError(code, 'x')) === policy)
  expect(by('retry-slowly')).toEqual(['MILLRACE_SOURCE_AUTH', 'MILLRACE_QUEUE_AUTH', 'MILLRACE_SINK_AUTH'])
  expect(by('retry')).toEqual([
    'MILLRACE_SOURCE_UNREACHABLE',
    'MILLRACE_SOURCE_STANDBY',
    'MILLRACE_SLOT_IN_USE',
    'MILLRACE_STREAM_BROKEN',
    'MILLRACE_QUEUE_UNREACHABLE',
    'MILLRACE_PUBLISH_UNKNOWN',
    'MILLRACE_SINK_UNREACHABLE',
    'MILLRACE_SINK_FENCED',
    'MILLRACE_PARKED_CHANGED',
    'MILLRACE_COPY_BEHIND',
  ])
  expect(by('park')).toEqual([
    'MILLRACE_OUTBOX_ROW_INVALID',
    'MILLRACE_EVENT_TOO_LARGE',
    'MILLRACE_EVENT_REJECTED',
    'MILLRACE_EVENT_CONFLICT',
  ])
})

test('an error that is not ours has no code, and halts', () => {
  for (const error of [new Error('x'), new TypeError('x'), 'text', null, undefined, { code: 'MILLRACE_QUEUE_UNREACHABLE' }]) {
    expect(codeOf(error)).toBe('MILLRACE_INTERNAL')
    expect(policyFor(error)).toBe('halt')
  }
})

test('an error keeps its cause, its remedy and what identifies it', () => {
  const cause = new Error('below')
  const error = new MillraceError('MILLRACE_GAP', 'a gap', { cause, remedy: 'look', fields: { topic: 't' } })
  expect(error).toMatchObject({
    name: 'MillraceError',
    code: 'MILLRACE_GAP',
    message: 'a gap',
    remedy: 'look',
    fields: { topic: 't' },
  })
  expect(error.cause).toBe(cause)
  expect(error).toBeInstanceOf(Error)
  const bare = new MillraceError('MILLRACE_GAP', 'a gap')
  expect(bare.fields).toEqual({})
  expect(bare.remedy).toBeUndefined()
  expect('cause' in bare).toBe(false)
})
