import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import type { QueueProcessOptions, Said } from './queue-process.ts'

export interface QueueProcess {
  /** what it has told until now */
  readonly said: readonly Said[]
  /** the partitions that it was assigned and that were not taken from it, as far as it has told */
  holds(): readonly number[]
  suspend(): void
  resume(): void
  /** as `kill -9` does */
  kill(): Promise<void>
}

export function startQueueProcess(options: QueueProcessOptions): QueueProcess {
  const script = fileURLToPath(new URL('queue-process.ts', import.meta.url))
  const child = spawn(process.execPath, [script, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'inherit'] })
  const said: Said[] = []
  createInterface({ input: child.stdout }).on('line', (line) => said.push(JSON.parse(line) as Said))
  const exited = once(child, 'close')
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exited
  }
  onTestFinished(kill)
  return {
    said,
    holds() {
      const held = new Set<number>()
      for (const one of said) {
        if ('assigned' in one) held.add(one.assigned)
        if ('revoked' in one) held.delete(one.revoked)
      }
      return [...held]
    },
    suspend: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    kill,
  }
}
