import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import local from '../../connectors/queues/local.ts'
import { EXIT, exitCodeFor } from '../../src/cli/exit-code.ts'
import { createProgram } from '../../src/cli/program.ts'
import type { MillraceError } from '../../src/core/errors.ts'
import { stateKey } from '../../src/core/relay-state.ts'
import { encodeState } from '../../src/core/state-text.ts'
import { Secrets } from '../../src/runtime/secrets.ts'
import { silent } from '../connectors/postgres-fixture.ts'
import { state } from '../core/stream.ts'

let cwd: string

/** as the program does, in this process */
async function run(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let code: number = EXIT.done
  let stdout = ''
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += String(text)
    return true
  })
  try {
    const program = createProgram({ secrets: new Secrets(), env: {}, exitWith: (verdict) => (code = verdict) })
    await program.parseAsync(['-c', join(cwd, 'millrace.yaml'), 'checkpoint', ...args], { from: 'user' })
    return { code, stdout, stderr: '' }
  } catch (error) {
    const { message, remedy = '' } = error as MillraceError
    return { code: exitCodeFor(error), stdout, stderr: `${message} ${remedy}` }
  } finally {
    write.mockRestore()
  }
}

beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'millrace-checkpoint-'))
  const path = join(cwd, 'queue.db')
  // neither the source nor a sink is asked: their secrets are not even there
  await writeFile(
    join(cwd, 'millrace.yaml'),
    `
name: shop
source: { url: "\${env:NOT_SET}" }
queue: { kind: local, path: ${path} }
sinks: { warehouse: { kind: postgres, url: "\${env:NOT_SET}", tables: [] } }
`,
  )
  const parsed = await local.options['~standard'].validate({ path, topics: { partitions: 2 } })
  if (parsed.issues) throw new Error(JSON.stringify(parsed.issues))
  const queue = await local.open(parsed.value, { log: silent, pipeline: 'shop', now: Date.now })
  await queue.createTopic('outbox.event.order')
  await queue.state.write(stateKey('shop', state.session, 'w'), encodeState(state))
  await queue.close()
})
afterAll(() => rm(cwd, { recursive: true, force: true }))

test('save, list, show and drop, for people and as JSON', async () => {
  expect(await run('save', 'before-the-move')).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(
      /^saved before-the-move: before it is what was relayed by now, all that was committed below 1\/A0, in 2 partitions of 1 topic/,
    ) as string,
  })
  expect(await run('save', 'before-the-move')).toMatchObject({
    code: 2,
    stdout: '',
    stderr: expect.stringMatching(
      /there is a checkpoint before-the-move already[\s\S]*millrace checkpoint drop before-the-move/,
    ) as string,
  })
  const { code, stdout } = await run('list', '--json')
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toEqual({
    schema: 1,
    pipeline: 'shop',
    checkpoints: [
      {
        name: 'before-the-move',
        at: expect.stringMatching(/^\d{4}-.*Z$/) as string,
        automatic: false,
        source: 'shop',
        streamId: 's-1',
        position: '00000001-00000001000000a0-00000000',
        lsn: '1/A0',
        topics: 1,
      },
    ],
  })
  expect((await run('list')).stdout.split('\n')).toEqual([
    expect.stringMatching(/^NAME +AT +POSITION +LSN$/),
    expect.stringMatching(/^before-the-move .* 00000001-00000001000000a0-00000000 +1\/A0 +saved$/),
    '',
  ])
  const shown = JSON.parse((await run('show', 'before-the-move', '--json')).stdout) as { checkpoint: object }
  expect(shown.checkpoint).toMatchObject({
    current: true,
    partitions: [
      // the log is an empty one: what the state says of it was never there
      {
        topic: 'outbox.event.order',
        partition: 0,
        position: '00000001-0000000000000009-00000002',
        offset: '42',
        retained: false,
      },
      { topic: 'outbox.event.order', partition: 1, position: null, offset: '0', retained: true },
    ],
  })
  expect((await run('show', 'before-the-move')).stdout).toMatch(/outbox\.event\.order +1 +0 +- +yes/)
  expect(await run('drop', 'before-the-move')).toMatchObject({ code: 0, stdout: 'dropped before-the-move\n' })
  expect((await run('list')).stdout).toBe('there is no checkpoint\n')
})

test('what is not there, and what cannot be a name', async () => {
  for (const command of ['show', 'drop'])
    expect(await run(command, 'nowhere')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('there is no checkpoint nowhere') as string,
    })
  expect(await run('save', '2026-11-20')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('it reads as a time') as string,
  })
})
