import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A process of the pipeline under test. */
export interface Process {
  readonly pid: number
  /** the first line it said: `running`, or `halted CODE message`, or null when it ended before */
  readonly said: Promise<string | null>
  /** how it ended */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
  /** what it logged and said, for the message of a test that fails */
  readonly output: () => string
  kill(signal?: NodeJS.Signals): Promise<void>
}

export function startProcess(script: 'relay-process.ts' | 'applier-process.ts', argument: unknown): Process {
  const path = fileURLToPath(new URL(script, import.meta.url))
  const child: ChildProcess = spawn(process.execPath, [path, JSON.stringify(argument)], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = `${script} ${JSON.stringify(argument)}\n`
  const keep = (chunk: unknown): void => {
    output = (output + chunk).slice(-4_000)
  }
  child.stdout?.on('data', keep)
  child.stderr?.on('data', keep)
  const lines = createInterface({ input: child.stdout as NonNullable<ChildProcess['stdout']> })
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.once('exit', (code, signal) => {
      keep(`ended: ${code ?? signal}\n`)
      resolve({ code, signal })
    }),
  )
  const said = Promise.race([new Promise<string>((resolve) => lines.once('line', resolve)), ended.then(() => null)])
  return {
    pid: child.pid as number,
    said,
    ended,
    output: () => output,
    async kill(signal = 'SIGKILL') {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal)
      await ended
    },
  }
}
