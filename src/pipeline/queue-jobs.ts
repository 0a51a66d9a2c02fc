import type { Clock } from '../core/clock.ts'
import type { CopyRecord, CopyWish } from '../core/copy.ts'
import { MillraceError } from '../core/errors.ts'
import type { StateStore } from '../core/queue.ts'
import type { HeldJob, JobBook } from './job.ts'

/**
 * Where the job of a sink without copies is remembered: in the queue's state. There is no lock there, so whoever works on
 * a job says so again and again, and another one takes it only when it has seen nothing of that for a while. Two that
 * take it within the same moment are told apart by the record that is left, and by each look before a write.
 */
export interface QueueJobs extends JobBook {
  /** @throws MILLRACE_REPLAY_RUNNING when there is one */
  create(job: string): Promise<HeldJob>
}

/** how often the holder says that it works (ms) */
const BEAT = 2_000
/** of nothing heard, until it counts as gone (ms) */
const GONE = 3 * BEAT
/** until a record written at the same moment has shown (ms) */
const SETTLE = 300

interface Stored {
  readonly job: string
  /** null: nobody */
  readonly holder: string | null
  readonly beat: number
  /** ms since the Unix epoch */
  readonly createdAt: number
  readonly updatedAt: number
}

/** @param name the sink's; @param holder names this process: random */
export function openQueueJobs(state: StateStore, name: string, clock: Clock, holder: string): QueueJobs {
  // no source's name begins with a dot, so no relay takes it for a state of its own
  const prefix = `.job/${name}/`
  const jobKey = `${prefix}job`
  const wishKey = `${prefix}wish`

  async function read(): Promise<{ readonly stored: Stored | null; readonly wish: CopyWish | null }> {
    const records = await state.read(prefix)
    const job = records.get(jobKey)
    const wish = (records.get(wishKey) as CopyWish | undefined) ?? null
    return { stored: job === undefined ? null : (JSON.parse(job) as Stored), wish }
  }

  async function write(stored: Stored): Promise<void> {
    await state.write(jobKey, JSON.stringify({ ...stored, updatedAt: clock.now() }))
  }

  /** @param first what this process has written, or is to write */
  async function hold(first: Stored): Promise<HeldJob> {
    await write(first)
    await clock.wait(SETTLE)
    if ((await read()).stored?.holder !== holder) throw running(name)
    let kept = first
    const closing = new AbortController()
    let last: Promise<unknown> = Promise.resolve()

    /** one after the other; only while the record is ours */
    function update(change: Partial<Stored>): Promise<CopyWish | null> {
      const turn = last.then(async () => {
        const { stored, wish } = await read()
        if (stored?.holder !== holder) throw running(name)
        kept = { ...kept, ...change, beat: kept.beat + 1 }
        await write(kept)
        return wish
      })
      last = turn.catch(() => {})
      return turn
    }
    const beating = (async () => {
      for (;;) {
        await clock.wait(BEAT, closing.signal)
        if (closing.signal.aborted) return
        // what keeps it from being written is told by the next `keep`
        await update({}).catch(() => {})
      }
    })()
    const end = async (): Promise<void> => {
      closing.abort()
      await beating
      await last
    }
    return {
      get job() {
        return kept.job
      },
      keep: (job) => update({ job }),
      async close() {
        await end()
        await update({ holder: null })
      },
      async drop() {
        await end()
        await state.remove(jobKey)
        await state.remove(wishKey)
      },
    }
  }

  return {
    async find(): Promise<CopyRecord | null> {
      const { stored, wish } = await read()
      if (stored === null) return null
      const held = stored.holder !== null && clock.now() - stored.updatedAt < GONE
      return {
        job: stored.job,
        wish,
        held,
        createdAt: new Date(stored.createdAt),
        updatedAt: new Date(stored.updatedAt),
      }
    },
    async create(job) {
      if ((await read()).stored !== null) throw running(name)
      await state.remove(wishKey)
      return hold({ job, holder, beat: 0, createdAt: clock.now(), updatedAt: clock.now() })
    },
    async take() {
      const { stored } = await read()
      if (stored === null) throw unknown(name)
      // its clock may be another than ours: only that it says nothing new counts
      for (const until = clock.elapsed() + GONE; stored.holder !== null && clock.elapsed() < until; ) {
        await clock.wait(SETTLE)
        const now = (await read()).stored
        if (now === null) throw unknown(name)
        if (now.holder === null) break
        if (now.beat !== stored.beat || now.holder !== stored.holder) throw running(name)
      }
      const { stored: latest } = await read()
      if (latest === null) throw unknown(name)
      return hold({ ...latest, holder, beat: latest.beat + 1 })
    },
    async ask(wish) {
      if ((await read()).stored === null) throw unknown(name)
      if (wish === null) await state.remove(wishKey)
      else await state.write(wishKey, wish)
    },
  }
}

function running(sink: string): MillraceError {
  return new MillraceError('MILLRACE_REPLAY_RUNNING', `a replay of the sink ${sink} is under way`, {
    remedy: `millrace replay ${sink} --status tells how far it is; --pause, --resume or --cancel it`,
    fields: { sink },
  })
}

function unknown(sink: string): MillraceError {
  return new MillraceError('MILLRACE_REPLAY_UNKNOWN', `no replay of the sink ${sink} is under way`, { fields: { sink } })
}
