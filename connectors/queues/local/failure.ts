import { type ErrorCode, type ErrorDetail, MillraceError } from '../../../src/core/errors.ts'

/** Primary result codes (https://www.sqlite.org/rescode.html); the extended ones carry them in their low byte. */
const BUSY = 5
const IOERR = 10
const CORRUPT = 11
const FULL = 13
const NOTADB = 26

/** What node:sqlite throws, as far as we look at it. */
interface Thrown {
  readonly errcode?: unknown
  readonly errstr?: unknown
  readonly message?: unknown
}

/** A failure of SQLite as an error of ours; `doing` completes "the queue's file PATH: …". */
export function fileFailure(error: unknown, path: string, doing: string): MillraceError {
  if (error instanceof MillraceError) return error
  const { errcode, errstr, message } = (error ?? {}) as Thrown
  const said = String(errstr ?? message ?? error)
  const fail = (code: ErrorCode, remedy: string): MillraceError =>
    new MillraceError(code, `the queue's file ${path}: ${doing}: ${said}`, { cause: error, remedy, fields: { path } })
  switch (typeof errcode === 'number' ? errcode & 0xff : undefined) {
    case BUSY:
      return fail(
        'MILLRACE_QUEUE_UNREACHABLE',
        'another process holds its lock: one that is suspended, or a tool that has it open',
      )
    case FULL:
      return fail('MILLRACE_QUEUE_UNREACHABLE', 'the disk is full: make room; nothing was lost')
    case IOERR:
      return fail('MILLRACE_QUEUE_UNREACHABLE', 'the disk failed: look at the log of the operating system')
    case CORRUPT:
    case NOTADB:
      return fail(
        'MILLRACE_QUEUE_NOT_READY',
        'the file is damaged: keep it, stop everything that writes to it, and restore it; acknowledged events may be in no other place',
      )
    default:
      return fail('MILLRACE_QUEUE_NOT_READY', 'check the path, its permissions and its disk (not a network file system)')
  }
}

/**
 * The same for a commit. A full disk refuses before anything stands in the log; of any other failure it is not known
 * whether the operating system will still write what it was given.
 */
export function commitFailure(error: unknown, path: string): MillraceError {
  const failure = fileFailure(error, path, 'a publish failed')
  if (failure.code !== 'MILLRACE_QUEUE_UNREACHABLE' || errcodeOf(error) === FULL || isBusy(error)) return failure
  const detail: ErrorDetail = { cause: error, fields: failure.fields, ...(failure.remedy && { remedy: failure.remedy }) }
  return new MillraceError('MILLRACE_PUBLISH_UNKNOWN', failure.message, detail)
}

/** another process holds a lock that this one needs */
export function isBusy(error: unknown): boolean {
  return errcodeOf(error) === BUSY
}

export function damaged(path: string, what: string): MillraceError {
  return new MillraceError('MILLRACE_QUEUE_NOT_READY', `the queue's file ${path} is damaged: ${what}`, {
    remedy: 'keep it, stop everything that writes to it, and restore it; acknowledged events may be in no other place',
    fields: { path },
  })
}

function errcodeOf(error: unknown): number | undefined {
  const { errcode } = (error ?? {}) as Thrown
  return typeof errcode === 'number' ? errcode & 0xff : undefined
}
