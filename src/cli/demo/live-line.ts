import type { Terminal } from '../terminal.ts'

/** Where the events are, at one moment. */
export interface Progress {
  readonly written: number
  readonly relayed: number
  readonly applied: number
  /** age of the oldest event that has not been applied, ms */
  readonly lag: number
}

export interface LiveLine {
  show(progress: Progress): void
  /** leaves the last state as a line of its own */
  end(): void
}

const WIDTH = 24
/** where nobody looks, a line this often (ms) */
const PLAIN_INTERVAL = 1_000
const count = new Intl.NumberFormat('en-US')

/** One line that follows the events: redrawn on a terminal, said once a second elsewhere. */
export function liveLine(out: Terminal, total: number, now: () => number): LiveLine {
  const begun = now()
  let last: Progress = { written: 0, relayed: 0, applied: 0, lag: 0 }
  let said = begun
  const render = (): string => {
    const { written, relayed, applied, lag } = last
    const seconds = Math.max((now() - begun) / 1_000, 0.001)
    const width = String(count.format(total)).length
    const figure = (value: number): string => out.style('bold', count.format(value).padStart(width))
    return [
      `  ${bar(out, last, total)}`,
      `written ${figure(written)}`,
      `relayed ${figure(relayed)}`,
      `applied ${figure(applied)}`,
      `lag ${count.format(Math.round(lag))} ms`.padEnd(12),
      out.style('dim', `${count.format(Math.round(applied / seconds))}/s`),
    ].join('  ')
  }
  return {
    show(progress) {
      last = progress
      if (out.interactive) return out.redraw(render())
      if (now() - said < PLAIN_INTERVAL) return
      said = now()
      out.print(render())
    },
    end: () => out.print(render()),
  }
}

/** what is applied, what is on its way, and what is still to come */
function bar(out: Terminal, { written, applied }: Progress, total: number): string {
  const cells = (value: number): number => Math.min(WIDTH, Math.round((value / Math.max(total, written, 1)) * WIDTH))
  const done = cells(applied)
  const under = Math.max(cells(written) - done, 0)
  return (
    out.style('green', '█'.repeat(done)) +
    out.style('cyan', '▒'.repeat(under)) +
    out.style('dim', '░'.repeat(WIDTH - done - under))
  )
}
