import { spawn } from 'node:child_process'
import { once } from 'node:events'

export interface Ended {
  /** null: it was ended, because its time was over */
  readonly code: number | null
  /** the last of what it said */
  readonly said: string
  readonly seconds: number
}

const SAID = 200_000
/** from the request to end to the end by force (ms) */
const GRACE = 15_000
const running = new Set<number>()

/** Runs a command of Node's to its end, or ends it, with all that it started, when its time is over (ms). */
export async function runNode(
  args: readonly string[],
  options: { readonly cwd: string; readonly timeout: number },
): Promise<Ended> {
  const began = performance.now()
  const child = spawn(process.execPath, args, {
    cwd: options.cwd,
    // a group of its own: a test run has servers
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined },
  })
  const pid = child.pid as number
  running.add(pid)
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-SAID)
    })
  let over = false
  const timers = [
    setTimeout(() => {
      over = true
      signalGroup(pid, 'SIGTERM')
    }, options.timeout),
    setTimeout(() => signalGroup(pid, 'SIGKILL'), options.timeout + GRACE),
  ]
  try {
    const [code] = (await once(child, 'close')) as [number | null]
    return { code: over ? null : code, said, seconds: (performance.now() - began) / 1_000 }
  } finally {
    for (const timer of timers) clearTimeout(timer)
    running.delete(pid)
  }
}

export function endAll(): void {
  for (const pid of running) signalGroup(pid, 'SIGTERM')
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal)
  } catch {
    // gone by itself
  }
}
