import { MillraceError } from '../core/errors.ts'
import type { JobKind } from '../pipeline/job.ts'
import type { Pipeline } from '../runtime/pipeline.ts'
import type { JobProgress } from '../runtime/sink-job.ts'
import { listenForSignals } from './signals.ts'

/** What the commands share that work on a sink's job: replay, verify and rebuild. */
export interface JobFlags {
  readonly rate?: string
  readonly resume?: true
  readonly pause?: true
  readonly cancel?: true
}

/** Pauses or cancels the job there is, wherever it runs, if that is asked for. @returns what to say; null: it is not */
export async function stopJob(pipeline: Pipeline, sink: string, { pause, cancel, resume }: JobFlags): Promise<string | null> {
  if ([pause, cancel, resume].filter(Boolean).length > 1)
    throw new MillraceError('MILLRACE_USAGE', '--pause, --cancel and --resume: expected one of them')
  if (pause) {
    const { kind } = await pipeline.job(sink).pause()
    return describeOutcome(kind, { sink, outcome: 'paused' })
  }
  if (cancel) {
    await pipeline.job(sink).cancel()
    return describeOutcome('verify', { sink, outcome: 'cancelled' })
  }
  return null
}

/** Ctrl-C and SIGTERM pause the job; a second one ends the process, from which the job recovers. */
export async function untilSignal<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const signals = listenForSignals()
  const stopping = new AbortController()
  signals.first.then(() => {
    stopping.abort()
    signals.release()
  })
  try {
    return await work(stopping.signal)
  } finally {
    signals.release()
  }
}

/** @throws MILLRACE_USAGE */
export function positive(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (Number.isFinite(value) && value > 0) return value
  throw new MillraceError('MILLRACE_USAGE', `${flag} ${text}: expected a number above 0`)
}

export function describeProgress({ phase, unit, done, of, perSecond, left }: JobProgress): string {
  const all = of === null ? '' : ` of ${count(of)}`
  const rate = perSecond === null ? '' : `, ${count(Math.round(perSecond))} a second`
  const rest = left === null ? '' : `, ${Math.ceil(left / 1_000)} s left`
  return `${phase}: ${count(done)}${all} ${unit}${rate}${rest}`
}

export function describeOutcome(kind: JobKind, { sink, outcome }: { readonly sink: string; readonly outcome: string }): string {
  return outcome === 'paused'
    ? `paused: millrace ${kind} ${sink} --resume goes on with it`
    : 'cancelled: nothing of it is left, and what it had mended stays'
}

export const count = (value: number): string => value.toLocaleString('en-US')
