import { codeOf, MillraceError } from '../core/errors.ts'
import type { TargetCounts } from './compare.ts'
import { openVerification, type Verified, type VerifyWork } from './verify.ts'

export type RebuildWork = Omit<VerifyWork, 'mend' | 'sample' | 'carry'>

export type Rebuilt =
  | {
      readonly verified: Verified
      /** the mapping was changed and not every key could be brought to the new one: the sink takes nothing until it is rebuilt again */
      readonly halted: boolean
    }
  /** what of the tables could not be taken over: nothing was done */
  | { readonly obstacles: readonly string[] }
  /** keys that cannot be written by the new mapping: no row was written */
  | { readonly unwritable: readonly string[] }

/**
 * Rebuild in place: every key of a sink is brought to its folded state, and what is in no event is removed (PROTOCOL 2.5).
 * A reader sees each row change once, from what it was to what it should be; the live traffic goes on beside it.
 *
 * After a change of the mapping it is the way on: then nobody writes to the sink from the first row that is mended until
 * the last, or rows of two mappings would be told apart no more.
 */
export async function rebuildInPlace(work: RebuildWork): Promise<Rebuilt> {
  const { copy, desk, failpoint } = work
  const verification = openVerification({ ...work, mend: { extras: true }, sample: null })
  await verification.fold()
  if (!copy.remapped) return { verified: await verification.compare(), halted: false }
  if (desk.job.state.refused.length > 0) return { unwritable: desk.job.state.refused }
  await copy.halt()
  await failpoint('rebuild-halted')
  await verification.fold()
  const verified = await verification.compare()
  // rows of the old mapping are left: whoever adopted the new one now would never learn of them
  if (verified.refused.length > 0 || verified.targets.some(isLeft)) return { verified, halted: true }
  await failpoint('rebuild-adopting')
  await copy.adopt()
  return { verified, halted: false }
}

const isLeft = ({ kinds, mended }: TargetCounts): boolean => kinds.missing + kinds.extra + kinds.different + kinds.hot > mended

/** times that a swap is tried: each came too late for what the sink applied, or parked, meanwhile */
const SWAPS = 10

/**
 * Rebuild beside: the copy is whole tables, which take the place of the sink's in one transaction once they have caught up
 * with it. A reader sees either the old rows or the new ones. Keys whose state the fold does not tell are taken over.
 */
export async function rebuildBeside(work: RebuildWork): Promise<Rebuilt> {
  const { desk, log, failpoint } = work
  const obstacles = await work.copy.obstacles()
  if (obstacles.length > 0) return { obstacles }
  let emptied = false
  const copy = {
    ...work.copy,
    async restart() {
      emptied = true
      await work.copy.restart()
    },
  }
  const verification = openVerification({
    ...work,
    copy,
    mend: null,
    sample: null,
    async carry(keys) {
      await work.copy.carry(keys)
    },
  })
  await verification.fold()
  if (copy.remapped && desk.job.state.refused.length > 0) return { unwritable: desk.job.state.refused }
  for (let attempt = 1; ; attempt++) {
    emptied = false
    // from the first key on, also after an interruption: what was taken over before may have gone with a copy that was emptied
    await desk.note({ state: { ...desk.job.state, place: null } })
    const verified = await verification.compare()
    await verification.fold()
    await failpoint('rebuild-swapping')
    try {
      await work.copy.swap(async () => {
        const { parked, refused } = await verification.foldOnce()
        if (emptied || parked !== verified.parked || refused.length !== verified.refused.length) throw gaveWay()
      })
      await failpoint('rebuild-swapped')
      return { verified, halted: false }
    } catch (error) {
      if (codeOf(error) !== 'MILLRACE_COPY_BEHIND' || attempt === SWAPS) throw error
      log.info({ attempt }, 'the sink went on before its tables could be swapped; catching up')
      await verification.fold()
    }
  }
}

/** under the locks of a swap: keys were parked or redriven since all was compared, so that all is compared again */
function gaveWay(): MillraceError {
  return new MillraceError('MILLRACE_COPY_BEHIND', 'keys were parked, or redriven, since the copy was compared')
}
