import { expect, test } from 'vitest'
import { EXIT, exitCodeFor } from '../../src/cli/exit-code.ts'
import { createProgram } from '../../src/cli/program.ts'
import { CODES, MillraceError } from '../../src/core/errors.ts'
import { Secrets } from '../../src/runtime/secrets.ts'

/** What people read, and scripts and supervisors were written against. */

async function helpOf(...args: readonly string[]): Promise<string> {
  let said = ''
  const program = createProgram({ secrets: new Secrets(), env: {}, exitWith: () => {} })
  for (const command of [program, ...program.commands]) command.configureOutput({ writeOut: (text) => (said += text) })
  await program.parseAsync([...args, '--help'], { from: 'user' }).catch(() => {})
  return said
}

test.each(['', 'check', 'init', 'run', 'status', 'drain', 'resume', 'parked', 'teardown', 'config', 'demo'])(
  'millrace %s --help',
  async (command) => {
    expect(await helpOf(...(command === '' ? [] : [command]))).toMatchSnapshot()
  },
)

test('exit codes', () => {
  expect(EXIT).toEqual({ done: 0, unexpected: 1, usage: 2, negative: 3, halted: 4, drainTimeout: 5 })
})

test('the exit code of every error', () => {
  expect(Object.fromEntries(CODES.map((code) => [code, exitCodeFor(new MillraceError(code, ''))]))).toMatchSnapshot()
  expect(exitCodeFor(new Error('anything else'))).toBe(1)
})
