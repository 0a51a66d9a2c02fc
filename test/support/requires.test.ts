import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')

/** What a run over that fixture says and how it ends, where the machine has Docker and lacks Kafka. */
function runOf(fixture: string, environment: Record<string, string>, ...args: string[]): Promise<{ code: number; said: string }> {
  const { CI: _, ...env } = process.env
  const config = join(import.meta.dirname, 'skipped/vitest.config.ts')
  return new Promise((resolve) => {
    const command = [join(root, 'node_modules/vitest/vitest.mjs'), 'run', '--config', config, `${fixture}.fixture.ts`, ...args]
    const child = execFile(
      process.execPath,
      command,
      { cwd: root, env: { ...env, NO_COLOR: '1', ...environment } },
      (_error, out, err) => resolve({ code: child.exitCode ?? -1, said: out + err }),
    )
  })
}

test('a suite whose requirement is not met is skipped, and the end of the run says so', async () => {
  const { code, said } = await runOf('lacking', {})
  expect(said).toContain('SKIPPED lacking.fixture.ts > over Kafka: Kafka (no Docker, and no Java)')
  expect(said).toMatch(/Tests +1 passed \| 2 skipped/)
  expect(code).toBe(0)
})

test('with CI set it fails, and says what is lacking', async () => {
  const { code, said } = await runOf('lacking', { CI: 'true' })
  expect(said).toContain('with CI set nothing is skipped, and this machine lacks: Kafka (no Docker, and no Java)')
  expect(code).toBe(1)
})

test('with CI set any other skipped test fails the run too', async () => {
  const { code, said } = await runOf('forgotten', { CI: 'true' })
  expect(said).toContain('SKIPPED forgotten.fixture.ts > was switched off one day')
  expect(code).toBe(1)
})

test('what a name filter leaves out counts as asked for', async () => {
  const { code, said } = await runOf('forgotten', { CI: 'true' }, '--testNamePattern=runs')
  expect(said).toMatch(/Tests +1 passed \| 1 skipped/)
  expect(code).toBe(0)
})
