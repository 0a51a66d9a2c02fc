import { codeOf } from '../core/errors.ts'
import { isRetried, policyFor } from '../core/policy.ts'

/** What a process tells with its end. Scripts and supervisors depend on the numbers. */
export const EXIT = {
  /** done, equal, drained */
  done: 0,
  unexpected: 1,
  /** usage or config */
  usage: 2,
  /** a negative verdict: check found a blocker, the replica differs */
  negative: 3,
  /** a person must decide */
  halted: 4,
  /** the drain deadline passed; nothing is lost, what was under way comes again */
  drainTimeout: 5,
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

export function exitCodeFor(error: unknown): ExitCode {
  const code = codeOf(error)
  switch (code) {
    case 'MILLRACE_USAGE':
    case 'MILLRACE_CONFIG_INVALID':
    case 'MILLRACE_NOT_PARKED':
    case 'MILLRACE_CHECKPOINT_UNKNOWN':
    case 'MILLRACE_CHECKPOINT_EXISTS':
    case 'MILLRACE_REPLAY_REFUSED':
    case 'MILLRACE_REPLAY_RUNNING':
    case 'MILLRACE_REPLAY_UNKNOWN':
      return EXIT.usage
    case 'MILLRACE_DRAIN_TIMEOUT':
      return EXIT.drainTimeout
    case 'MILLRACE_INTERNAL':
      return EXIT.unexpected
    default:
      return isRetried(policyFor(error)) ? EXIT.unexpected : EXIT.halted
  }
}
