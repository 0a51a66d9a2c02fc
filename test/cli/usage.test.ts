import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { millrace } from './millrace.ts'

let cwd: string
beforeAll(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'millrace-cli-'))
  await writeFile(join(cwd, 'none.yaml'), 'name: shop\n')
  await writeFile(join(cwd, 'wrong.yaml'), 'name: Shop\nsorce: {}\n')
  await writeFile(
    join(cwd, 'down.yaml'),
    'name: shop\nsource: { url: "postgres://relay:${env:PGPASS}@127.0.0.1:1/shop" }\nqueue: { kind: local, path: ./queue }\nhttp: false\n',
  )
})
afterAll(() => rm(cwd, { recursive: true }))

const run = (...args: readonly string[]) => millrace(args, { cwd, env: { PGPASS: 'Canary-5ecret!' } }).finished

describe('bad usage ends with 2 and says what was expected', () => {
  test.each<[args: string[], said: RegExp]>([
    [['chek'], /error: unknown command 'chek'\n\(Did you mean check\?\)/],
    [['run', '--fast'], /error: unknown option '--fast'/],
    [['run', '--sink'], /error: option '--sink <name>' argument missing/],
    [['run', '-c', 'none.yaml', '--drain', 'soon'], /error: --drain soon: expected a duration such as "30s"/],
    [['run', '-c', 'none.yaml', '--log-level', 'loud'], /error: --log-level loud: expected debug, info, warn, error or silent/],
    [['run', '-c', 'none.yaml'], /error: none\.yaml has neither a source nor a sink to run/],
    [['run', '-c', 'none.yaml', '--sink', 'warehouse'], /error: there is no sink warehouse in none\.yaml: it has none/],
    [['init', '-c', 'none.yaml', '--sql', 'admin'], /error: --sql admin: expected owner, relay, writer or sink/],
    [['teardown', '-c', 'none.yaml'], /error: nothing to remove was named: expected --slot, --publication or --schema/],
    [
      ['teardown', '-c', 'none.yaml', '--slot'],
      /removes slot of the pipeline shop for good\n {2}if that is meant: millrace teardown --slot --yes/,
    ],
    [['demo', '--events', '0'], /error: --events 0: expected a whole number, at least 1/],
    [['demo', '--kafka', 'nowhere'], /error: --kafka nowhere: expected host:port, several separated by commas/],
    [['check'], /error: there is neither millrace\.config\.ts nor millrace\.yaml in /],
    [
      ['check', '-c', 'wrong.yaml'],
      /error: wrong\.yaml is not valid:\n {2}name: expected .*, found "Shop"\n {2}sorce: unknown key: did you mean "source"\?/,
    ],
  ])('millrace %j', async (args, said) => {
    const { code, stderr, stdout } = await run(...args)
    expect(stderr).toMatch(said)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  })

  test('a secret that is not set is named', async () => {
    const { code, stderr } = await millrace(['check', '-c', 'down.yaml'], { cwd }).finished
    expect(stderr).toContain('source.url: ${env:PGPASS}: the environment variable PGPASS is not set')
    expect(code).toBe(2)
  })
})

test('check looks at everything it can reach, and ends with 3 for a blocker', async () => {
  const { code, stdout } = await run('check', '-c', 'down.yaml', '--json')
  const { findings, ...report } = JSON.parse(stdout)
  expect(report).toEqual({ schema: 1, pipeline: 'shop' })
  expect(findings).toContainEqual(expect.objectContaining({ level: 'blocker', subject: 'source' }))
  expect(findings).toContainEqual(expect.objectContaining({ subject: 'queue' }))
  expect(code).toBe(3)
})

test('no output of any command shows a password', async () => {
  for (const args of [['check'], ['config'], ['status', '--json'], ['init'], ['teardown', '--slot', '--yes']]) {
    const { stdout, stderr } = await run(...args, '-c', 'down.yaml')
    expect(stdout + stderr).not.toContain('5ecret')
    expect(stdout + stderr).not.toBe('')
  }
})

test('config prints what is understood, and the schema for editors knows every connector', async () => {
  const understood = JSON.parse((await run('config', '-c', 'down.yaml')).stdout)
  expect(understood).toMatchObject({ name: 'shop', source: { url: 'postgres://relay:[redacted]@127.0.0.1:1/shop' }, http: false })
  const { stdout, code } = await run('config', '--schema')
  const schema = JSON.parse(stdout)
  const sections = (section: { anyOf: { properties: Record<string, unknown> }[] }) => section.anyOf.map((one) => one.properties)
  expect(sections(schema.properties.queue)).toMatchObject([
    { kind: { const: 'kafka' }, brokers: {} },
    { kind: { const: 'local' }, path: {} },
    { kind: { pattern: '^(\\.|/|file:)' } },
  ])
  expect(sections(schema.properties.sinks.additionalProperties)).toMatchObject([
    { kind: { const: 'postgres' }, tables: {}, start: {} },
    { kind: { const: 'stdout' } },
    { kind: { pattern: '^(\\.|/|file:)' } },
  ])
  expect(code).toBe(0)
})
