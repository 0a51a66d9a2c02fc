import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test, vi } from 'vitest'
import { requires } from '../requires.ts'

// servers start here, on machines that are busy
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 })

requires('java')('a bare broker', () => {
  test('does not outlive the process that started it, however that ends', async () => {
    const script = `const { startJavaKafka } = await import(${JSON.stringify(import.meta.resolve('./java.ts'))})
                    console.log((await startJavaKafka()).pid())`
    const folder = await mkdtemp(join(tmpdir(), 'millrace-owner-'))
    onTestFinished(() => rm(folder, { recursive: true }))
    const owner = spawn(process.execPath, ['--input-type=module', '--eval', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, TMPDIR: folder },
    })
    const [line] = await once(createInterface({ input: owner.stdout }), 'line')
    const pid = Number(line)
    expect(isAlive(pid)).toBe(true)
    owner.kill('SIGKILL')
    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false)
  })
})

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
