import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { CommanderError } from 'commander'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { describeStatus } from '../../src/cli/commands/status.ts'
import { EXIT, exitCodeFor } from '../../src/cli/exit-code.ts'
import { createProgram } from '../../src/cli/program.ts'
import { MillraceError } from '../../src/core/errors.ts'
import type { Event } from '../../src/core/event.ts'
import type { ParkedEvent } from '../../src/core/sink.ts'
import { Secrets } from '../../src/runtime/secrets.ts'
import { emptyStatus, type StatusReport } from '../../src/runtime/status.ts'
import { batchOf, eventStream } from '../../src/testing/events.ts'
import { at, ORDERS, openSink } from '../connectors/postgres-fixture.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { millrace } from './millrace.ts'

let cwd: string
let replica: Database
let events: readonly Event[]

/** The source and the queue are never asked: their secrets are not even there. */
const CONFIG = `
name: shop
source: { url: "\${env:NOT_SET}" }
queue: { kind: kafka, brokers: ["\${env:NOT_SET}"] }
sinks:
  warehouse:
    kind: postgres
    url: "\${env:WAREHOUSE_URL}"
    tables: [{ from: order, into: orders, key: id, on: { Changed: upsert, Erased: delete } }]
  lines: { kind: stdout }
`
const EVIL = 'a\u001b[2J\u202eb'

beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'millrace-parked-'))
  await writeFile(join(cwd, 'millrace.yaml'), CONFIG)
  replica = await createDatabase()
  await replica.query(ORDERS.replace('note text', `note text constraint fit check (note <> 'unfit')`))
  const sink = await openSink(
    { url: replica.url, tables: [{ from: 'order', into: 'orders', key: 'id', on: { Changed: 'upsert', Erased: 'delete' } }] },
    { sink: 'warehouse' },
  )
  await sink.init()
  const lane = await sink.claim(at(0))
  const stream = eventStream()
  const event = (key: string, note: string, orderingKey: string | null = null): Event => ({
    ...stream.next({ type: 'Changed', key, payload: { id: key, total: 1, note }, headers: [['secret', Buffer.from('canary')]] }),
    orderingKey,
  })
  events = [event('1', 'unfit', 'tenant'), event('2', 'canary', 'tenant'), event(EVIL, 'unfit'), event('9', 'flows')]
  const parked = events.slice(0, 3).map(
    (one, index): ParkedEvent => ({
      event: one,
      offset: BigInt(index),
      reason: index === 1 ? null : { code: 'MILLRACE_EVENT_REJECTED', message: 'a check constraint refuses the row' },
    }),
  )
  await lane.apply(batchOf(events.slice(3), 4n, parked))
  await sink.close()
})
afterAll(async () => {
  await replica?.drop()
  await rm(cwd, { recursive: true })
})

const env = () => ({ ...process.env, WAREHOUSE_URL: replica.url })

/** The command in this process: many short ones in a row. */
async function run(...args: readonly string[]): Promise<{ readonly code: number; readonly stdout: string }> {
  let code: number = EXIT.done
  let stdout = ''
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += String(text)
    return true
  })
  try {
    const program = createProgram({ secrets: new Secrets(), env: env(), exitWith: (verdict) => (code = verdict) })
    await program.parseAsync(['-c', join(cwd, 'millrace.yaml'), 'parked', ...args], { from: 'user' })
  } finally {
    write.mockRestore()
  }
  return { code, stdout }
}
const ids = async () => (await replica.query('select id from orders order by id')).rows.map(({ id }) => id)

test('list says which keys wait, and why; nothing in a key reaches the terminal', async () => {
  const { code, stdout } = await run('list', 'warehouse')
  expect(code).toBe(0)
  expect(stdout).toMatch(/^2 keys are parked, with 3 events of [\d.]+ (B|KiB)\n/)
  expect(stdout).toMatch(/^shop\/tenant +outbox\.event\.order\/0 +2 +\d+ B /m)
  expect(stdout).toContain('  a check constraint refuses the row (MILLRACE_EVENT_REJECTED)\n')
  expect(stdout).toContain('shop/a\\u{1b}[2J\\u{202e}b')
  const listed = JSON.parse((await run('list', 'warehouse', '--json', '--limit', '1')).stdout)
  expect(listed).toEqual({
    schema: 1,
    pipeline: 'shop',
    sink: 'warehouse',
    totals: { keys: 2, events: 3, bytes: expect.any(Number) },
    keys: [
      {
        key: expect.stringMatching(/^shop\//),
        topic: 'outbox.event.order',
        partition: 0,
        position: expect.any(String),
        events: expect.any(Number),
        bytes: expect.any(Number),
        code: 'MILLRACE_EVENT_REJECTED',
        message: 'a check constraint refuses the row',
        since: expect.stringMatching(/Z$/),
      },
    ],
  })
})

test('show tells the events of a key, and their payloads only when asked', async () => {
  const { code, stdout } = await run('show', 'warehouse', 'tenant')
  expect(code).toBe(0)
  expect(stdout).toContain(`  ${events[0]?.position}  Changed  id ${events[0]?.id}, `)
  expect(stdout).toContain('✗ a check constraint refuses the row (MILLRACE_EVENT_REJECTED)')
  expect(stdout).not.toContain('canary')
  expect((await run('show', 'warehouse', 'shop/tenant', '--json')).stdout).not.toContain('canary')
  const whole = JSON.parse((await run('show', 'warehouse', 'shop/tenant', '--json', '--payload')).stdout)
  expect(whole.keys[0].first[1]).toMatchObject({
    position: events[1]?.position,
    offset: '1',
    aggregateId: '2',
    payload: '{"id":"2","total":1,"note":"canary"}',
    headers: [['secret', 'canary']],
  })
})

const explain = (error: unknown): string =>
  `${(error as Error).message}${error instanceof MillraceError && error.remedy !== undefined ? `\n  ${error.remedy}` : ''}`

describe('what cannot be done ends with 2 and says why', () => {
  test.each<[args: string[], said: RegExp]>([
    [['list', 'nowhere'], /there is no sink nowhere in millrace\.yaml: its sinks are warehouse, lines/],
    [['list', 'lines'], /the sink lines parks nothing/],
    [['list', 'warehouse', '--limit', '0'], /--limit 0: expected a whole number, at least 1/],
    [['show', 'warehouse', 'nobody'], /the sink warehouse has not parked the key nobody\n {2}millrace parked list warehouse/],
    [['redrive', 'warehouse'], /expected a key as millrace parked list has it, or --all/],
    [['redrive', 'warehouse', 'tenant', '--all'], /expected a key as millrace parked list has it, or --all/],
    [['skip', 'warehouse', 'tenant'], /required option '--position <position>' not specified/],
    [['skip', 'warehouse', 'tenant', '--position', '7'], /--position 7: expected a position/],
    [
      ['skip', 'warehouse', 'tenant', '--position', '00000001-0000000000001010-00000001'],
      /this gives up the event 00000001-0000000000001010-00000001 for good/,
    ],
    [
      ['skip', 'warehouse', 'tenant', '--position', '00000001-0000000000000000-00000001', '--yes'],
      /stands at 00000001-\S+, not at 00000001-0000000000000000-00000001; nothing was skipped/,
    ],
  ])('millrace parked %j', async (args, said) => {
    const error: unknown = await run(...args).catch((caught: unknown) => caught)
    expect(explain(error)).toMatch(said)
    expect(error instanceof CommanderError || exitCodeFor(error) === EXIT.usage).toBe(true)
  })
})

test('redrive, skip and audit: 3 while something waits, 0 when nothing does', async () => {
  const stopped = await millrace(['parked', 'redrive', 'warehouse', '--all', '--note', 'a try'], {
    cwd,
    env: { WAREHOUSE_URL: replica.url },
  }).finished
  expect(stopped.code).toBe(3)
  expect(stopped.stdout).toMatch(
    /! shop\/tenant of outbox\.event\.order\/0: 0 applied, 2 still parked\n {4}.*\(MILLRACE_EVENT_REJECTED\)/,
  )
  const position = events[0]?.position as string
  const skipped = await run('skip', 'warehouse', 'tenant', '--position', position, '--yes', '--json')
  expect(skipped.code).toBe(0)
  expect(JSON.parse(skipped.stdout)).toMatchObject({
    schema: 1,
    sink: 'warehouse',
    keys: [{ key: 'shop/tenant', applied: 1, remaining: 0 }],
  })
  expect(await ids()).toEqual(['2', '9'])
  await replica.query('alter table orders drop constraint fit')
  const redriven = await run('redrive', 'warehouse', 'shop/a\\u{1b}[2J\\u{202e}b')
  expect(redriven).toMatchObject({ code: 0, stdout: expect.stringMatching(/✓ .*: 1 applied, parked no more\n/) })
  expect(await ids()).toEqual(['2', '9', EVIL])
  expect((await run('list', 'warehouse')).stdout).toBe('0 keys are parked, with 0 events of 0 B\n')
  const { records } = JSON.parse((await run('audit', 'warehouse', '--json')).stdout)
  expect(records.map(({ actor, note, action, skipped }: Record<string, unknown>) => ({ actor, note, action, skipped }))).toEqual([
    { actor: `${userInfo().username}@${hostname()}`, note: null, action: 'redrive', skipped: null },
    { actor: `${userInfo().username}@${hostname()}`, note: null, action: 'skip', skipped: position },
    ...[1, 2].map(() => ({ actor: `${userInfo().username}@${hostname()}`, note: 'a try', action: 'redrive', skipped: null })),
  ])
  expect((await run('audit', 'warehouse', '--limit', '1')).stdout).toMatch(
    /^\S+Z \S+@\S+: redrive, shop\/a\\u\{1b\}.* of outbox\.event\.order\/0, 1 applied, 0 left\n$/,
  )
})

test('status says how much is parked at a sink, and the command that tells more; nothing where nothing is', () => {
  const sink = { name: 'warehouse', phase: null, error: null, partitions: [] }
  const said = (parked: StatusReport['sinks'][number]['parked']): readonly string[] => [
    ...describeStatus({ ...emptyStatus('shop'), sinks: [{ ...sink, parked }] }, { style: (_, text) => text }),
  ]
  expect(said({ keys: 1, events: 3, bytes: 99 })).toContain('  ! 1 key is parked, with 3 events: millrace parked list warehouse')
  expect(said({ keys: 0, events: 0, bytes: 0 })).toEqual(said(null))
})
