import { lastEpoch, nextEpoch } from '../core/epoch.ts'
import { MillraceError } from '../core/errors.ts'
import { formatLsn } from '../core/position.ts'
import type { Queue } from '../core/queue.ts'
import { latestState, type RelayState, stateKey, statePrefix } from '../core/relay-state.ts'
import type { SourceIdentity, StateCopy } from '../core/source.ts'
import { decodeState, encodeState } from '../core/state-text.ts'

/**
 * Founds the stream on both sides: the source's copy first, then the queue's record, so that a crash in between is
 * told from a queue that lost its state: only a stream that has never relayed anything (session 0) is completed.
 * Safe to repeat.
 *
 * @throws MILLRACE_STATE_MISSING when one side has lost a stream that has relayed
 * @throws MILLRACE_STATE_CONFLICT when the two sides hold different streams
 */
export async function initRelayState(options: {
  readonly source: { readonly name: string; readonly stateCopy: StateCopy }
  readonly queue: Queue
  /** asked only when the stream is founded */
  readonly identify: () => Promise<SourceIdentity>
  readonly fingerprint: string
  readonly newStreamId: () => string
}): Promise<RelayState> {
  const { source, queue, fingerprint } = options
  const records = await queue.state.read(statePrefix(source.name))
  const queued = latestState(records)
  const copyText = await source.stateCopy.read()
  const copied = copyText === null ? null : decodeState(copyText)

  if (queued !== null && copied !== null && queued.streamId !== copied.streamId)
    throw new MillraceError(
      'MILLRACE_STATE_CONFLICT',
      `the queue holds the stream ${queued.streamId} and the database ${copied.streamId} under the name ${source.name}`,
      { remedy: 'choose another name, or check source.url and the queue' },
    )
  if (queued !== null && copied !== null) return queued
  const begun = queued ?? copied
  if (begun !== null && begun.session > 0)
    throw new MillraceError(
      'MILLRACE_STATE_MISSING',
      `the ${queued === null ? 'queue' : 'database'} does not know the stream ${begun.streamId}, which has relayed up to ${formatLsn(begun.intent)}`,
      {
        remedy:
          'check that both sides are the right ones and neither was restored or emptied; to begin a new stream instead, run: millrace teardown --slot --publication --schema',
      },
    )
  const identity = await options.identify()
  const epochs = [nextEpoch([], identity)]
  const state: RelayState = {
    streamId: begun?.streamId ?? options.newStreamId(),
    session: 0,
    source: source.name,
    slot: identity.slot,
    publication: identity.publication,
    epochs,
    copied: { epoch: lastEpoch(epochs).epoch, session: 0, intent: identity.confirmed },
    intent: identity.confirmed,
    fingerprint,
    topics: new Map(),
    gaps: [],
    drained: null,
    floor: null,
  }
  await source.stateCopy.write(encodeState(state))
  await queue.state.write(stateKey(source.name, 0), encodeState(state))
  return state
}
