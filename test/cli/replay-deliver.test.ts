import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type VerifyStream, verifyStream } from '../runtime/verify-stream.ts'
import { eventually } from '../support/eventually.ts'
import { millrace } from './millrace.ts'

let stream: VerifyStream
let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-replay-'))
  stream = await verifyStream()
  await stream.run()
  await stream.place(1, 60)
  await eventually(async () => (await stream.replica.query('select count(*)::int as count from orders')).rows[0].count === 60, {
    within: 30_000,
    what: 'the rows',
  })
  const config = { ...stream.config, sinks: { lines: { kind: 'stdout' } }, log: { level: 'warn' } }
  await writeFile(join(folder, 'millrace.yaml'), JSON.stringify(config))
})
afterEach(async () => {
  await stream?.drop()
  await rm(folder, { recursive: true, force: true })
})

const replay = (...args: string[]) => millrace(['replay', 'lines', ...args], { cwd: folder })
const SINCE = ['--from', '2026-01-01T00:00Z'] as const
const linesOf = (stdout: string) =>
  stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { readonly key: string; readonly replayed?: boolean; readonly position: string })

test('a sink without rows gets the events again, in the order of their keys, marked as replayed', async () => {
  const plan = await replay(...SINCE).finished
  expect(plan.stdout).toMatch(/lines: it gets the events again, marked as replayed/)
  expect(plan.stdout).toMatch(/60 events, 60 keys/)

  const done = await replay(...SINCE, '--yes').finished
  expect(done.code, done.stderr).toBe(0)
  const lines = linesOf(done.stdout)
  expect(new Set(lines.map(({ key }) => key)).size).toBe(60)
  expect(lines.every(({ replayed }) => replayed === true)).toBe(true)
  expect(done.stderr).toMatch(/✓ lines: 60 events delivered again/)

  const one = await replay(...SINCE, '--aggregate', 'order/k0000007', '--yes', '--json').finished
  expect(linesOf(one.stdout).map(({ key }) => key)).toEqual(['k0000007'])
  expect(one.stderr).toMatch(/"delivered":1/)
}, 240_000)

test('killed in the midst it goes on from what it had delivered; while it stands no other one begins', async () => {
  const first = replay(...SINCE, '--rate', '10', '--yes', '--json')
  await first.said(/"done":[3-5]\d/)
  first.signal('SIGKILL')
  const before = linesOf((await first.finished).stdout.replace(/\n[^\n]*$/, ''))
  expect(await replay(...SINCE, '--yes').finished).toMatchObject({ code: 2, stderr: expect.stringMatching(/REPLAY_RUNNING/) })

  const resumed = await replay('--resume').finished
  expect(resumed.code, resumed.stderr).toBe(0)
  const after = linesOf(resumed.stdout)
  expect(new Set([...before, ...after].map(({ key }) => key)).size).toBe(60)
  expect(after.length).toBeLessThan(60)
  expect((await replay('--status').finished).stdout).toMatch(/no replay, rebuild or verification of lines is under way/)
}, 240_000)
