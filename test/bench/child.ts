import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** A process under test. It does not outlive us, unless we are killed outright. */
export interface Child {
  readonly name: string
  readonly pid: number
  /** resolves with its exit code, null after a signal */
  readonly exited: Promise<number | null>
  /** @throws with what it said last */
  assertAlive(): void
  kill(signal: 'SIGTERM' | 'SIGKILL'): void
  /** what it said last */
  said(): string
}

export function spawnChild(name: string, command: string, args: readonly string[]): Child {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      said = (said + chunk).slice(-8_000)
    })
  }
  const orphan = (): void => void child.kill('SIGKILL')
  process.once('exit', orphan)
  const exited = once(child, 'exit').then(([code]) => {
    process.off('exit', orphan)
    return code as number | null
  })
  exited.catch(() => {})
  return {
    name,
    pid: child.pid ?? 0,
    exited,
    assertAlive() {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`the ${name} ended with ${child.exitCode ?? child.signalCode}:\n${said}`)
    },
    kill: (signal) => void child.kill(signal),
    said: () => said,
  }
}

/** Lets it end in order, within 40 s. */
export async function endChild(child: Child): Promise<void> {
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 40_000)
  await child.exited.catch(() => {})
  clearTimeout(late)
}
