import { MillraceError } from '../core/errors.ts'
import { isRetried, policyFor } from '../core/policy.ts'
import { formatLsn } from '../core/position.ts'
import { latestState, type RelayState, statePrefix } from '../core/relay-state.ts'
import { decodeState } from '../core/state-text.ts'
import { findTails } from '../pipeline/relay-session.ts'
import type { ParsedConfig } from './config-schema.ts'
import { beginEpoch, type EpochStep, pendingGap } from './new-epoch.ts'
import type { Surroundings } from './open.ts'
import { problemOf, withSides } from './resume.ts'

/**
 * Goes on upon the server that the config names now with a stream that was drained on another one: publication and slot
 * are made there, in a new epoch. Only where nothing can be lost by it: the stream was drained, the database was copied
 * after that, and its outbox holds nothing that the queue does not.
 *
 * @returns what was made, for people; nothing where a relay could begin as it is
 * @throws MILLRACE_NOT_DRAINED, MILLRACE_STATE_MISSING, MILLRACE_SLOT_IN_USE
 */
export async function moveDrained(
  config: ParsedConfig,
  around: Surroundings,
  step: (name: EpochStep) => Promise<void> | void = () => {},
): Promise<readonly string[]> {
  return withSides(config, around, async (sides) => {
    const { source, queue } = sides
    const state = latestState(await queue.state.read(statePrefix(source.name)))
    if (state === null)
      throw new MillraceError('MILLRACE_STATE_MISSING', `the queue does not know the stream ${source.name}`, {
        remedy: 'check that the queue is the right one; a new stream begins with: millrace init',
      })
    const problem = await problemOf(sides)
    if (problem === null && pendingGap(state) === null) return []
    if (problem !== null && isRetried(policyFor(problem))) throw problem
    const copy = await source.stateCopy.read()
    refuseUndrained(state, copy === null ? null : decodeState(copy))
    const begun = await beginEpoch(sides, { state, topics: await findTails(sides, state) }, 'drained', step)
    return [...begun.made, `epoch ${begun.epoch}: what is committed from ${formatLsn(begun.start)} on follows what was drained`]
  })
}

function refuseUndrained(state: RelayState, copy: RelayState | null): void {
  const otherwise = 'if the old server is gone: millrace resume explains what may be missing, and the ways on'
  if (state.drained === null)
    throw new MillraceError(
      'MILLRACE_NOT_DRAINED',
      `the stream was not drained since its last session: events may be on the way`,
      {
        remedy: `with source.url of the old server: millrace drain; then copy the database and run this again. ${otherwise}`,
      },
    )
  if (copy?.drained != null && copy.session === state.session && copy.drained.lsn === state.drained.lsn) return
  throw new MillraceError(
    'MILLRACE_NOT_DRAINED',
    `this database was copied before the stream was drained at ${formatLsn(state.drained.lsn)}: it may lack what was relayed after the copy`,
    { remedy: `copy the database again: it must hold millrace.relay_state as the drain left it. ${otherwise}` },
  )
}
