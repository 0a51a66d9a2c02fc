import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Target } from './targets.ts'

export interface FuzzTask {
  readonly target: Target
  readonly corpus: readonly Uint8Array[]
  readonly seed: number
  readonly ms: number
  /** one case of the seed, to see it again; null: all */
  readonly only: number | null
  readonly progress: string
}

export type FuzzResult = { readonly cases: number; readonly refused: number } | { readonly error: string; readonly bytes: string }

/** ms per target */
export const MS = Number(process.env['MILLRACE_FUZZ_MS'] ?? 2_000)
export const SEED = Number(process.env['MILLRACE_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const ONLY = process.env['MILLRACE_FUZZ_CASE']
/** beside its time: to start, and to end the last case; what takes longer hangs (ms) */
const PATIENCE = 45_000
/** MB of heap */
const HEAP = 192

/**
 * Feeds the target damaged bytes in a process of its own: whatever it does, it must end in time, within its heap, and with
 * nothing but errors of ours. What failed is told with what shows it again.
 */
export async function fuzz(target: Target, corpus: readonly Uint8Array[]): Promise<{ cases: number; refused: number }> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-fuzz-'))
  const progress = join(folder, 'case')
  const again = async (): Promise<string> => {
    const at = await readFile(progress, 'utf8').catch(() => '?')
    return `\nagain: MILLRACE_FUZZ_SEED=${SEED} MILLRACE_FUZZ_CASE=${at} npx vitest run test/security/fuzz.test.ts -t ${target}`
  }
  const child = fork(join(import.meta.dirname, 'fuzz-process.ts'), {
    execArgv: [`--max-old-space-size=${HEAP}`],
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  let said = ''
  child.stderr?.on('data', (chunk) => {
    said = (said + chunk).slice(-2_000)
  })
  let result: FuzzResult | undefined
  child.on('message', (message) => {
    result = message as FuzzResult
  })
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, MS + PATIENCE)
  try {
    const only = ONLY === undefined ? null : Number(ONLY)
    child.send({ target, corpus, seed: SEED, ms: MS, only, progress } satisfies FuzzTask)
    await once(child, 'close')
    if (late) throw new Error(`a case of ${target} does not end${await again()}`)
    if (result === undefined) throw new Error(`the process that read ${target} ended: ${said}${await again()}`)
    if ('error' in result) throw new Error(`${target}: ${result.error}\nbytes: ${result.bytes}${await again()}`)
    return result
  } finally {
    clearTimeout(timer)
    await rm(folder, { recursive: true, force: true })
  }
}
