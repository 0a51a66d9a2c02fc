/** Time, passed in: the loops of `pipeline/` know no other, so that a simulation can run them as they are. */
export interface Clock {
  /** ms since the Unix epoch: for people and for lag, never for order or intervals (it may be set back) */
  now(): number
  /** ms that only grow: for intervals and deadlines */
  elapsed(): number
  /** Resolves after so many ms, or as soon as the signal is aborted; never rejects. */
  wait(ms: number, signal?: AbortSignal): Promise<void>
}
