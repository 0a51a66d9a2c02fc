import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Readable } from 'node:stream'

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts')

export interface Finished {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Program {
  readonly pid: number
  readonly finished: Promise<Finished>
  signal(name: NodeJS.Signals): void
  /** resolves with the first whole line of standard error that matches */
  said(pattern: RegExp): Promise<string>
  /** the same for standard output */
  printed(pattern: RegExp): Promise<string>
}

/** The command line as a process of its own. */
export function millrace(
  args: readonly string[],
  { cwd, env = {} }: { cwd: string; env?: Readonly<Record<string, string>> },
): Program {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd, env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env } })
  const stdout = watchLines(child.stdout)
  const stderr = watchLines(child.stderr)
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, stdout: stdout.text(), stderr: stderr.text() }))
  })
  const orEnded = (line: Promise<string>, pattern: RegExp): Promise<string> =>
    Promise.race([line, finished.then(({ stderr }) => Promise.reject(new Error(`ended without ${pattern}:\n${stderr}`)))])
  return {
    pid: child.pid as number,
    finished,
    signal: (name) => void child.kill(name),
    said: (pattern) => orEnded(stderr.line(pattern), pattern),
    printed: (pattern) => orEnded(stdout.line(pattern), pattern),
  }
}

interface Lines {
  text(): string
  line(pattern: RegExp): Promise<string>
}

function watchLines(stream: Readable): Lines {
  const lines: string[] = []
  const waiting = new Set<(line: string) => void>()
  let rest = ''
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) {
      lines.push(line)
      for (const look of waiting) look(line)
    }
  })
  return {
    text: () => [...lines, rest].join('\n'),
    line(pattern) {
      const found = lines.find((line) => pattern.test(line))
      if (found !== undefined) return Promise.resolve(found)
      return new Promise((resolve) => {
        const look = (line: string): void => {
          if (!pattern.test(line)) return
          waiting.delete(look)
          resolve(line)
        }
        waiting.add(look)
      })
    },
  }
}
