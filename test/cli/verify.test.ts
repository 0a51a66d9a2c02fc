import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EXIT, exitCodeFor } from '../../src/cli/exit-code.ts'
import { createProgram } from '../../src/cli/program.ts'
import { Secrets } from '../../src/runtime/secrets.ts'
import { type VerifyStream, verifyStream } from '../runtime/verify-stream.ts'
import { millrace, type Program } from './millrace.ts'

let stream: VerifyStream

beforeAll(async () => {
  stream = await verifyStream()
  await writeFile(join(stream.home, 'millrace.yaml'), JSON.stringify(stream.config))
  await stream.run()
  await stream.place(1, 30)
  await stream.has(30)
}, 60_000)
afterAll(() => stream?.drop(), 60_000)

const run = (...args: readonly string[]): Program => millrace([...args, '--log-level', 'silent'], { cwd: stream.home })
const damage = () => stream.replica.query("update orders set body = 'changed' where id = 'k0000007'")
const damagedKey = {
  schema: 1,
  table: 'public.orders',
  key: 'k0000007',
  kind: 'different',
  mended: false,
  refused: null,
  against: 'stream',
}

test('verify: 0 when equal, 3 when not, and says which key; a repair mends it', async () => {
  const equal = await run('verify', 'warehouse').finished
  expect(equal).toMatchObject({ code: 0, stderr: '' })
  expect(equal.stdout).toMatch(/^✓ warehouse is equal to its stream: 30 keys of 1 table, 30 records\n/)
  await damage()
  const differs = await run('verify', 'warehouse').finished
  expect(differs.code).toBe(3)
  expect(differs.stdout).toMatch(/^✗ warehouse is not equal to its stream: 30 keys/)
  expect(differs.stdout).toMatch(/table +keys +different\n +public\.orders +30 +1\n/)
  expect(differs.stdout).toMatch(
    / {2}different k0000007 of public\.orders: the stream has it at 0{7}1-\S+, the replica at 0{7}1-\S+\n/,
  )
  const json = await run('verify', 'warehouse', '--json').finished
  const [key, report] = json.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(json.code).toBe(3)
  expect(key).toMatchObject(damagedKey)
  expect(report).toMatchObject({
    schema: 1,
    pipeline: stream.config.name,
    sink: 'warehouse',
    outcome: 'done',
    equal: false,
    tables: [{ table: 'public.orders', keys: 30, different: 1, missing: 0, extra: 0, hot: 0, mended: 0 }],
    source: null,
  })
  const repaired = await run('verify', 'warehouse', '--repair').finished
  expect(repaired.code).toBe(0)
  expect(repaired.stdout).toMatch(/different k0000007 of public\.orders mended: /)
  const against = await run('verify', 'warehouse', '--against', 'source').finished
  expect(against.code).toBe(0)
  expect(against.stdout).toMatch(/✓ outbox: 30 rows, none is missing from the queue\n {2}the config has no queries/)
}, 60_000)

test('rebuild: says what it would do, does it with --yes, and puts old tables aside', async () => {
  await damage()
  const plan = await run('rebuild', 'warehouse', '--beside').finished
  expect(plan.code).toBe(0)
  expect(plan.stdout).toMatch(/^warehouse would be rebuilt beside from 30 records of 3 partitions: \S+\n/)
  expect(plan.stdout).toMatch(/now: millrace rebuild warehouse --beside --yes\n$/)
  expect((await stream.replica.query("select count(*)::int from orders where body = 'changed'")).rows).toEqual([{ count: 1 }])
  const beside = await run('rebuild', 'warehouse', '--beside', '--yes').finished
  expect(beside.code).toBe(0)
  expect(beside.stdout).toMatch(/^✓ warehouse is rebuilt: 1 of 30 keys were not equal, after 30 records\n/)
  expect(beside.stdout).toMatch(/the old table is \S+: millrace rebuild warehouse --drop-old --yes removes it\n/)
  expect((await run('rebuild', 'warehouse', '--drop-old').finished).stderr).toMatch(
    /removes the old tables of warehouse for good/,
  )
  expect((await run('rebuild', 'warehouse', '--drop-old', '--yes').finished).stdout).toMatch(/^✓ \S+ was removed\n$/)
  await damage()
  const inPlace = await run('rebuild', 'warehouse', '--yes', '--json').finished
  expect(inPlace.code).toBe(0)
  const [key, report] = inPlace.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(key).toMatchObject({ ...damagedKey, mended: true })
  expect(report).toMatchObject({ outcome: 'done', equal: true, beside: false, tables: [{ different: 1, mended: 1 }] })
}, 60_000)

test('Ctrl-C pauses: 4, and the way on; --resume goes on, --cancel ends it', async () => {
  const begun = run('verify', 'warehouse', '--rate', '5')
  await expect
    .poll(async () => (await stream.pipeline.job('warehouse').status())?.progress.done ?? 0, { timeout: 20_000 })
    .toBeGreaterThan(0)
  begun.signal('SIGINT')
  expect(await begun.finished).toMatchObject({ code: 4, stdout: 'paused: millrace verify warehouse --resume goes on with it\n' })
  const another = await run('rebuild', 'warehouse', '--yes').finished
  expect(another).toMatchObject({ code: 2, stderr: expect.stringContaining('MILLRACE_REPLAY_RUNNING') })
  expect((await run('verify', 'warehouse', '--cancel').finished).stdout).toMatch(/^cancelled: /)
  expect((await run('verify', 'warehouse', '--resume').finished).stderr).toContain('MILLRACE_REPLAY_UNKNOWN')
}, 60_000)

describe('what is asked for wrongly ends with 2 and says what was expected', () => {
  test.each<[args: string[], said: RegExp]>([
    [['verify', 'nowhere'], /there is no sink nowhere in millrace\.yaml/],
    [['verify', 'warehouse', '--against', 'queue'], /--against queue: expected source/],
    [['verify', 'warehouse', '--rate', 'fast'], /--rate fast: expected a number above 0/],
    [['verify', 'warehouse', '--sample', '2'], /a sample of 2: expected a share above 0 and below 1/],
    [['verify', 'warehouse', '--resume', '--cancel'], /--pause, --cancel and --resume: expected one of them/],
    [['rebuild', 'nowhere'], /there is no sink nowhere/],
  ])('millrace %j', async (args, said) => {
    const program = createProgram({ secrets: new Secrets(), env: process.env, exitWith: () => {} })
    const failed: unknown = await program
      .parseAsync(['-c', join(stream.home, 'millrace.yaml'), ...args], { from: 'user' })
      .catch((error: unknown) => error)
    expect((failed as Error).message).toMatch(said)
    expect(exitCodeFor(failed)).toBe(EXIT.usage)
  })
})
