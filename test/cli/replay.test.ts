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
  stream = await verifyStream({
    sink: {},
  })
  await writeFile(join(folder, 'millrace.yaml'), JSON.stringify({ ...stream.config, log: { level: 'warn' } }))
  await stream.run()
  await stream.place(1, 120)
  await eventually(async () => (await changedRows('body')) === 120, { within: 30_000, what: 'the rows' })
  await stream.replica.query("update orders set body = 'changed'")
})
afterEach(async () => {
  await stream?.drop()
  await rm(folder, { recursive: true, force: true })
})

const replay = (...args: string[]) => millrace(['replay', 'warehouse', ...args], { cwd: folder })
const SINCE = ['--from', '2026-01-01T00:00Z'] as const

async function changedRows(body = 'changed'): Promise<number> {
  const { rows } = await stream.replica.query('select count(*)::int as count from orders where body like $1', [`${body}%`])
  return Number(rows[0].count)
}

test('without --yes it says what it would do and changes nothing; with it, it does', async () => {
  const plan = await replay(...SINCE).finished
  expect(plan.stderr).toBe('')
  expect(plan.code).toBe(0)
  expect(plan.stdout).toMatch(/from +2026-01-01T00:00Z.*; the queue still holds it/)
  expect(plan.stdout).toMatch(/to +where the sink stands/)
  expect(plan.stdout).toMatch(/events +120 events, 120 keys, committed from .* to /)
  expect(plan.stdout).toMatch(/reads +120 records of the queue/)
  expect(plan.stdout).toMatch(/nothing was changed; --yes does it/)
  expect(await changedRows()).toBe(120)

  const done = await replay(...SINCE, '--yes').finished
  expect(done.code, done.stderr).toBe(0)
  expect(done.stdout).toMatch(/✓ warehouse: 120 keys looked at, 120 keys mended/)
  expect(await changedRows()).toBe(0)
}, 240_000)

test('one aggregate, or one aggregate type, is all that is looked at', async () => {
  const one = await replay(...SINCE, '--aggregate', 'order/k0000007', '--yes', '--json').finished
  expect(one.code, one.stderr).toBe(0)
  expect(JSON.parse(one.stdout)).toMatchObject({ schema: 1, sink: 'warehouse', outcome: 'done', rows: { keys: 1, mended: 1 } })
  expect(await changedRows()).toBe(119)
  const none = await replay(...SINCE, '--aggregate', 'customer', '--yes').finished
  expect(none).toMatchObject({ code: 2 })
  expect(none.stderr).toMatch(/the sink warehouse has applied nothing of the topic/)
}, 240_000)

test('paused from another process it stops where it is, is told by --status, and goes on with --resume', async () => {
  const slow = replay(...SINCE, '--rate', '10', '--yes', '--json')
  await slow.said(/"progress"/)
  // as long as it runs, no other one begins
  await expect(stream.pipeline.replay('warehouse', { from: SINCE[1] })).rejects.toMatchObject({ code: 'MILLRACE_REPLAY_RUNNING' })
  expect(await stream.pipeline.job('warehouse').status()).toMatchObject({ kind: 'replay', phase: 'running', asked: { rate: 10 } })

  expect(await stream.pipeline.job('warehouse').pause()).toMatchObject({ phase: 'stopped' })
  const ended = await slow.finished
  expect(ended.code).toBe(4)
  expect(JSON.parse(ended.stdout)).toMatchObject({ outcome: 'paused' })
  expect(await changedRows()).toBeGreaterThan(0)
  const status = await replay('--status').finished
  expect(status.stdout).toMatch(/replay of warehouse \(from 2026-01-01T00:00Z, rate 10\): stopped\n.*\n.*\n.*--resume goes on/)

  const resumed = await replay('--resume').finished
  expect(resumed.code, resumed.stderr).toBe(0)
  expect(await changedRows()).toBe(0)
  expect((await replay('--status').finished).stdout).toMatch(/no replay, rebuild or verification of warehouse is under way/)
}, 240_000)

test('Ctrl-C pauses and says how to go on; --cancel ends what is paused, and what runs', async () => {
  const first = replay(...SINCE, '--rate', '10', '--yes', '--json')
  await first.said(/"progress"/)
  first.signal('SIGINT')
  const ended = await first.finished
  expect(ended.code, ended.stderr).toBe(4)
  expect(await stream.pipeline.job('warehouse').cancel()).toMatchObject({ phase: 'cancelled' })
  expect(await replay('--resume').finished).toMatchObject({ code: 2, stderr: expect.stringMatching(/MILLRACE_REPLAY_UNKNOWN/) })

  const again = replay(...SINCE, '--rate', '10', '--yes')
  await eventually(async () => (await stream.pipeline.job('warehouse').status())?.phase === 'running', {
    within: 30_000,
    what: 'it runs',
  })
  expect((await replay('--cancel').finished).stdout).toMatch(/cancelled/)
  expect(await again.finished).toMatchObject({ code: 4, stdout: expect.stringMatching(/cancelled/) })
  expect(await stream.pipeline.job('warehouse').status()).toBeNull()
}, 240_000)

test('bad input is refused with a word about it, and changes nothing', async () => {
  for (const [args, code, says] of [
    [[], 2, /replay without --from/],
    [['--from', 'no-such-checkpoint'], 2, /MILLRACE_CHECKPOINT_UNKNOWN/],
    [['--from', '2999-01-01T00:00Z'], 2, /MILLRACE_REPLAY_REFUSED/],
    [['--from', 'ffffffff-ffffffffffffffff-ffffffff'], 2, /MILLRACE_REPLAY_REFUSED/],
    [['--from', '2026-01-01T00:00Z', '--rate', '0'], 2, /--rate 0/],
    [['--resume', '--from', '2026-01-01T00:00Z'], 2, /--resume and --from: expected one of them/],
    [['--pause'], 2, /MILLRACE_REPLAY_UNKNOWN/],
  ] as const) {
    const ended = await replay(...args, ...(args.length > 0 && args[0] === '--from' ? ['--yes'] : [])).finished
    expect(ended.stderr).toMatch(says)
    expect(ended.code, args.join(' ')).toBe(code)
  }
  const unknown = await millrace(['replay', 'nowhere', ...SINCE], { cwd: folder }).finished
  expect(unknown).toMatchObject({ code: 2, stderr: expect.stringMatching(/there is no sink nowhere/) })
  expect(await changedRows()).toBe(120)
}, 240_000)
