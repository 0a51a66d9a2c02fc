import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

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
}

/** The command line as a process of its own. */
export function millrace(
  args: readonly string[],
  { cwd, env = {} }: { cwd: string; env?: Readonly<Record<string, string>> },
): Program {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd, env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env } })
  const lines: string[] = []
  const waiting: { pattern: RegExp; resolve: (line: string) => void }[] = []
  let rest = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) {
      lines.push(line)
      for (const one of waiting) if (one.pattern.test(line)) one.resolve(line)
    }
  })
  const stdout = text(child.stdout)
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', async (code) => resolve({ code, stdout: await stdout, stderr: [...lines, rest].join('\n') }))
  })
  return {
    pid: child.pid as number,
    finished,
    signal: (name) => void child.kill(name),
    said(pattern) {
      const found = lines.find((line) => pattern.test(line))
      if (found !== undefined) return Promise.resolve(found)
      return Promise.race([
        new Promise<string>((resolve) => waiting.push({ pattern, resolve })),
        finished.then(({ stderr }) => Promise.reject(new Error(`ended without saying ${pattern}:\n${stderr}`))),
      ])
    },
  }
}
