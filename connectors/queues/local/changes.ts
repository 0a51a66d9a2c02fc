/** ms; how often other processes' commits are looked for while somebody waits for one. A look takes microseconds. */
const LOOK = 10

/**
 * Tells those who wait that the file has changed: at once by this handle's own commits, and by looking at the version
 * for those of others. A waiter may be woken for nothing: it looks for itself, and waits again.
 */
export class Changes {
  readonly #version: () => number
  readonly #waiting = new Set<() => void>()
  #seen: number
  #timer: NodeJS.Timeout | undefined

  constructor(version: () => number) {
    this.#version = version
    this.#seen = version()
  }

  /** Resolves with the next change, or the signal. */
  next(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake)
      this.#timer ??= setTimeout(() => this.#look(), LOOK)
    })
  }

  notify(): void {
    for (const wake of [...this.#waiting]) wake()
  }

  #look(): void {
    this.#timer = undefined
    if (this.#waiting.size === 0) return
    try {
      const version = this.#version()
      if (version === this.#seen) {
        this.#timer = setTimeout(() => this.#look(), LOOK)
        return
      }
      this.#seen = version
    } catch {
      // those who wait meet the failure themselves
    }
    this.notify()
  }
}
