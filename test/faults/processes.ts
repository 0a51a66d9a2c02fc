import { type ChildProcess, spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A process of the pipeline under test. */
export interface Process {
  readonly pid: number
  /** the first line it said: `running`, or `halted CODE message`, or null when it ended before */
  readonly said: Promise<string | null>
  /** the first line that matches, of those it said and will say; rejects when it ends, or the time does, without one */
  heard(line: RegExp, within?: number): Promise<string>
  /** the same, of those it will say */
  next(line: RegExp, within?: number): Promise<string>
  /** the halt it told of, now or within the time; a relay has ended by then */
  halted(within?: number): Promise<Halt>
  /** how it ended */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
  /** what it logged and said, for the message of a test that fails */
  readonly output: () => string
  /** it runs, and was not told to end */
  readonly alive: boolean
  /** sends the signal and waits for nothing */
  signal(signal: NodeJS.Signals): void
  /** sends the signal, which a suspended one is woken for, and waits for the end; rejects where an orderly one takes too long */
  kill(signal?: NodeJS.Signals): Promise<void>
}

/** ms for an orderly end: longer than any time-out of what it may be waiting for */
const ORDERLY = 60_000

/** What a person is told. */
export interface Halt {
  readonly code: string
  readonly message: string
  readonly remedy: string | null
}

export function startProcess(script: 'relay-process.ts' | 'applier-process.ts', argument: unknown): Process {
  const path = fileURLToPath(new URL(script, import.meta.url))
  const child: ChildProcess = spawn(process.execPath, [path, JSON.stringify(argument)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // hundreds are started: compiled once, they are up in half the time
    env: { ...process.env, NODE_COMPILE_CACHE: join(tmpdir(), 'millrace-compile-cache') },
  })
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
  const heard: string[] = []
  const listeners = new Set<() => void>()
  lines.on('line', (line) => {
    heard.push(line)
    for (const tell of listeners) tell()
  })
  const said = Promise.race([new Promise<string>((resolve) => lines.once('line', resolve)), ended.then(() => null)])
  let toldToEnd = false
  const send = (signal: NodeJS.Signals): void => {
    toldToEnd ||= signal === 'SIGTERM' || signal === 'SIGKILL'
    if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  }
  const hear = (wanted: RegExp, within = 90_000, from = 0): Promise<string> =>
    new Promise((resolve, reject) => {
      const finish = (settle: () => void): void => {
        clearTimeout(timer)
        listeners.delete(look)
        settle()
      }
      const look = (): void => {
        const line = heard.slice(from).find((each) => wanted.test(each))
        if (line !== undefined) finish(() => resolve(line))
      }
      const fail = (why: string) => () => finish(() => reject(new Error(`${script} did not say ${wanted} ${why}:\n${output}`)))
      const timer = setTimeout(fail(`within ${within} ms`), within)
      listeners.add(look)
      look()
      lines.once('close', fail('before it ended'))
    })
  return {
    pid: child.pid as number,
    heard: (line, within) => hear(line, within),
    next: (line, within) => hear(line, within, heard.length),
    async halted(within) {
      const line = await hear(/^halted /, within)
      // an applier goes on with its other partitions
      if (script === 'relay-process.ts') await ended
      return JSON.parse(line.slice('halted '.length)) as Halt
    },
    get alive() {
      return !toldToEnd && child.exitCode === null && child.signalCode === null
    },
    signal: send,
    said,
    ended,
    output: () => output,
    async kill(signal = 'SIGKILL') {
      send(signal)
      send('SIGCONT')
      let late = false
      const timer = setTimeout(() => {
        late = true
        send('SIGKILL')
      }, ORDERLY)
      await ended
      clearTimeout(timer)
      if (late) throw new Error(`${script} had not ended ${ORDERLY} ms after its ${signal}:\n${output}`)
    },
  }
}
