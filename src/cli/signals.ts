/** SIGTERM and SIGINT, while somebody listens. */
export interface Signals {
  /** each resolves with the signal's name */
  readonly first: Promise<string>
  readonly second: Promise<string>
  /** from now on signals end the process again */
  release(): void
}

const WATCHED = ['SIGTERM', 'SIGINT'] as const

export function listenForSignals(): Signals {
  const first = Promise.withResolvers<string>()
  const second = Promise.withResolvers<string>()
  let heard = 0
  const hear = (name: string): void => (++heard === 1 ? first : second).resolve(name)
  for (const name of WATCHED) process.on(name, hear)
  return {
    first: first.promise,
    second: second.promise,
    release() {
      for (const name of WATCHED) process.off(name, hear)
    },
  }
}
