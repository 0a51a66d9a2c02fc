import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { z } from 'zod'
import type { MillraceConfig } from '../../src/runtime/config.ts'
import { readConfigFile } from '../../src/runtime/config-file.ts'
import { type configSchema, EVERYTHING, type Needs, type ParsedConfig, parseConfig } from '../../src/runtime/config-schema.ts'
import { Secrets } from '../../src/runtime/secrets.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-config-'))
  await writeFile(join(folder, 'password'), 'first-Secret1\n')
})
afterAll(() => rm(folder, { recursive: true }))

const ENV = { DATABASE_URL: 'postgres://relay@db.example/shop', PORT: '9000', WORD: 'abc' }

function parse(config: unknown, needs: Needs = EVERYTHING, secrets = new Secrets()): ParsedConfig {
  return parseConfig(config, 'millrace.yaml', { env: ENV, folder, secrets }, needs)
}

function refusal(config: unknown): readonly string[] {
  try {
    parse(config)
  } catch (error) {
    expect(error).toMatchObject({ code: 'MILLRACE_CONFIG_INVALID' })
    const [first, ...lines] = (error as Error).message.split('\n')
    expect(first).toBe('millrace.yaml is not valid:')
    return lines.map((line) => line.trim())
  }
  throw new Error('the config was accepted')
}

const url = 'postgres://relay@127.0.0.1/shop'

describe('what is wrong in a config is said with its path, what was expected and what was found', () => {
  test.each<[what: string, config: unknown, issues: string[]]>([
    ['nothing', undefined, ['expected an object, found nothing']],
    ['a list', [], ['expected an object, found an array']],
    ['no name', {}, ['name: expected a lower-case letter, then at most 39 of a-z, 0-9 and _, found nothing']],
    [
      'a name that no slot can have',
      { name: 'My-Shop' },
      ['name: expected a lower-case letter, then at most 39 of a-z, 0-9 and _, found "My-Shop"'],
    ],
    ['a misspelt section', { name: 's', sorce: {} }, ['sorce: unknown key: did you mean "source"?']],
    [
      'a section nobody knows',
      { name: 's', elephants: 1 },
      ['elephants: unknown key: expected one of name, source, queue, sinks, checkpoints, http, log'],
    ],
    ['a source without a url', { name: 's', source: {} }, ['source.url: expected a string, found nothing']],
    [
      'a url of another database',
      { name: 's', source: { url: 'mysql://u:Secret123@h/d' } },
      ['source.url: the url begins with mysql://, expected postgres://'],
    ],
    [
      'a url that is none',
      { name: 's', source: { url: 'shop' } },
      [
        'source.url: the url is not a Postgres URL: expected postgres://user:password@host:port/database, each part percent-encoded',
      ],
    ],
    [
      'a url that does not verify the server',
      { name: 's', source: { url: `${url}?sslmode=require` } },
      ['source.url: the url says sslmode=require, which does not verify the server: expected verify-full, verify-ca or disable'],
    ],
    [
      'a url that contradicts tls',
      { name: 's', source: { url: `${url}?sslmode=disable`, tls: {} } },
      ['source.url: the url says sslmode=disable, tls.mode says verify-full: say one of them'],
    ],
    [
      'an unsafe tls mode',
      { name: 's', source: { url, tls: { mode: 'require' } } },
      ['source.tls.mode: expected "verify-full", "verify-ca" or "disable", found "require"'],
    ],
    [
      'a password that is none',
      { name: 's', source: { url, password: 7 } },
      ['source.password: expected a string or a function, found 7'],
    ],
    [
      'a slot that Postgres refuses',
      { name: 's', source: { url, slot: 'My Slot' } },
      ['source.slot: expected 1 to 63 of the characters a-z, 0-9 and _, found "My Slot"'],
    ],
    [
      'a word for a switch',
      { name: 's', source: { url, acceptUnlimitedWal: 'yes' } },
      ['source.acceptUnlimitedWal: expected true or false, found "yes"'],
    ],
    [
      'an outbox',
      { name: 's', source: { url, outbox: { retention: 'soon', maxEventBytes: 1, columns: { payloda: 'p' } } } },
      [
        'source.outbox.columns.id: expected the name of a column, found nothing',
        'source.outbox.columns.aggregateType: expected the name of a column, found nothing',
        'source.outbox.columns.aggregateId: expected the name of a column, found nothing',
        'source.outbox.columns.type: expected the name of a column, found nothing',
        'source.outbox.columns.payload: expected the name of a column, found nothing',
        'source.outbox.columns.payloda: unknown key: did you mean "payload"?',
        'source.outbox.retention: expected a duration such as "30s", "12h" or "7d", or a number of milliseconds, or "forever", found "soon"',
        'source.outbox.maxEventBytes: expected at least 1024 bytes, found 1',
      ],
    ],
    [
      'a queue without its kind',
      { name: 's', queue: {} },
      ['queue.kind: expected "kafka", "local" or the path of a module, found nothing'],
    ],
    [
      'a topic name that Kafka refuses',
      { name: 's', queue: { kind: 'local', topics: { name: 'a b' } } },
      ['queue.topics.name: expected letters, digits, . _ - and at most one {aggregate_type}, found "a b"'],
    ],
    ['sinks as a list', { name: 's', sinks: [] }, ['sinks: expected an object, found an array']],
    [
      'a sink name that no group can have',
      { name: 's', sinks: { 'My Sink': { kind: 'stdout' } } },
      ['sinks.My Sink: expected a sink name: a lower-case letter, then at most 39 of a-z, 0-9, _ and -'],
    ],
    ['a sink that is none', { name: 's', sinks: { a: 3 } }, ['sinks.a: expected an object, found 3']],
    [
      'a start without its zone',
      { name: 's', sinks: { a: { kind: 'stdout', start: '2026-11-20T10:00' } } },
      ['sinks.a.start: expected "earliest", "latest" or a time such as "2026-11-20T10:00Z", found "2026-11-20T10:00"'],
    ],
    [
      'no sources',
      { name: 's', sinks: { a: { kind: 'stdout', sources: [] } } },
      ['sinks.a.sources: expected at least one source, found an array'],
    ],
    ['checkpoints as a switch', { name: 's', checkpoints: true }, ['checkpoints: expected false or an object, found true']],
    [
      'checkpoints that are kept for less than their interval',
      { name: 's', checkpoints: { every: '2h', keep: '1h' } },
      ['checkpoints.keep: expected no less than every, found "1h"'],
    ],
    [
      'more checkpoints than anybody can look at',
      { name: 's', checkpoints: { every: '1s', keep: '1d' } },
      ['checkpoints.keep: expected at most 1000 times every, found "1d"'],
    ],
    [
      'checkpoints without a pause',
      { name: 's', checkpoints: { every: 1 } },
      ['checkpoints.every: expected at least 1s, found 1'],
    ],
    ['http as a switch', { name: 's', http: true }, ['http: expected false or an object, found true']],
    ['a misspelt port', { name: 's', http: { prot: 1 } }, ['http.prot: unknown key: did you mean "port"?']],
    ['a port beyond the last', { name: 's', http: { port: 70_000 } }, ['http.port: expected a port, 0 to 65535, found 70000']],
    [
      'a port that is a word, from the environment',
      { name: 's', http: { port: '${env:WORD}' } },
      ['http.port: expected a port, 0 to 65535, found "${env:WORD}"'],
    ],
    [
      'a log level',
      { name: 's', log: { level: 'loud' } },
      ['log.level: expected "debug", "info", "warn", "error" or "silent", found "loud"'],
    ],
    [
      'a variable that is not set',
      { name: 's', source: { url: '${env:NOPE}' } },
      ['source.url: ${env:NOPE}: the environment variable NOPE is not set'],
    ],
    [
      'a misspelt reference',
      { name: 's', source: { url: '${evn:DATABASE_URL}' } },
      ['source.url: ${evn:DATABASE_URL} is not a reference: expected ${env:NAME} or ${file:PATH} ($${ for a plain ${)'],
    ],
  ])('%s', (_, config, issues) => {
    expect(refusal(config)).toEqual(issues)
  })

  test('a file that cannot be read', () => {
    expect(refusal({ name: 's', source: { url, tls: { ca: '${file:ca.pem}' } } })).toEqual([
      `source.tls.ca: \${file:ca.pem}: cannot read ${join(folder, 'ca.pem')} (ENOENT)`,
    ])
  })
})

describe('references', () => {
  test('are replaced inside strings, and $${ stands for itself', () => {
    const config = parse({
      name: 's',
      source: { url: '${env:DATABASE_URL}', publication: '$${env:WORD} ${env:WORD}' },
      http: { port: '${env:PORT}' },
    })
    expect(config.source).toMatchObject({ url: ENV.DATABASE_URL, publication: '${env:WORD} abc' })
    expect(config.http).toEqual({ host: '127.0.0.1', port: 9000 })
  })

  test('a password from a file is read again at every connect', async () => {
    const secrets = new Secrets()
    const { source } = parse({ name: 's', source: { url, password: '${file:password}' } }, EVERYTHING, secrets)
    const password = source?.password as () => Promise<string>
    expect(await password()).toBe('first-Secret1')
    await writeFile(join(folder, 'password'), 'second-Secret2\n')
    expect(await password()).toBe('second-Secret2')
    expect(secrets.scrub('first-Secret1, then second-Secret2')).toBe('[redacted], then [redacted]')
  })

  test('what a role does not need is not read: a sink runs without the secrets of the source', () => {
    const config = {
      name: 's',
      source: { url: '${env:NOPE}' },
      sinks: { a: { kind: 'stdout' }, b: { kind: 'postgres', url: '${env:NOPE}' } },
    }
    const parsed = parse(config, { source: false, queue: true, sinks: ['a'] })
    expect(parsed.source).toBeUndefined()
    expect(Object.keys(parsed.sinks)).toEqual(['a'])
  })
})

test('what is not said has its default', () => {
  const { source, queue, sinks, http, log } = parse({
    name: 's',
    source: { url },
    queue: { kind: 'local' },
    sinks: { a: { kind: 'stdout' } },
  })
  expect(source).toEqual({ url, outbox: { table: 'millrace.outbox', retention: 86_400_000 }, acceptUnlimitedWal: false })
  expect(queue).toEqual({ kind: 'local', topics: { name: 'outbox.event.{aggregate_type}' } })
  expect(sinks).toEqual({ a: { kind: 'stdout', start: 'earliest' } })
  expect(http).toEqual({ host: '127.0.0.1', port: 9464 })
  expect(log).toEqual({ level: 'info' })
})

test('no message shows a secret, wherever it was put', () => {
  const canary = 'Canary-5ecret!'
  const config = {
    name: canary,
    source: { url: `mysql://u:${canary}@h/d`, password: { value: canary } },
    sinks: { a: { kind: 'stdout', start: '${env:WORD}' } },
  }
  const said = refusal({ ...config, name: 's' }).join('\n')
  expect(said).not.toContain(canary)
})

describe('the file', () => {
  test('is millrace.yaml of the folder, or what -c names', async () => {
    const home = await mkdtemp(join(folder, 'yaml-'))
    await expect(readConfigFile(undefined, home)).rejects.toThrow(
      `there is neither millrace.config.ts nor millrace.yaml in ${home}`,
    )
    await expect(readConfigFile('no.yaml', home)).rejects.toThrow(`there is no config at ${join(home, 'no.yaml')}`)
    await writeFile(join(home, 'millrace.yaml'), 'name: shop\n')
    expect(await readConfigFile(undefined, home)).toEqual({
      path: join(home, 'millrace.yaml'),
      folder: home,
      raw: { name: 'shop' },
    })
    await writeFile(join(home, 'millrace.config.ts'), 'export default { name: "typed" as string }\n')
    await expect(readConfigFile(undefined, home)).rejects.toThrow('has both millrace.config.ts and millrace.yaml')
    expect((await readConfigFile('millrace.config.ts', home)).raw).toEqual({ name: 'typed' })
  })

  test('a key that stands twice, a broken line and a module without a default export are refused', async () => {
    await writeFile(join(folder, 'twice.yaml'), 'name: a\nname: b\n')
    await expect(readConfigFile('twice.yaml', folder)).rejects.toThrow('line 2, column 1: duplicate key')
    await writeFile(join(folder, 'broken.yaml'), 'name: [\n')
    await expect(readConfigFile('broken.yaml', folder)).rejects.toThrow('is not YAML')
    await writeFile(join(folder, 'empty.config.ts'), 'export const config = {}\n')
    await expect(readConfigFile('empty.config.ts', folder)).rejects.toThrow(
      'has no default export: expected export default defineConfig({ … })',
    )
    await writeFile(join(folder, 'throws.config.ts'), 'throw new Error("not today")\n')
    await expect(readConfigFile('throws.config.ts', folder)).rejects.toThrow(
      /cannot be loaded: Error at .*throws\.config\.ts:1:7$/,
    )
    await writeFile(join(folder, 'config.toml'), '')
    await expect(readConfigFile('config.toml', folder)).rejects.toThrow('expected a config that ends in .yaml, .json, .ts or .js')
  })
})

test('the types written for users are what the schema takes', () => {
  const config: z.input<typeof configSchema> = {} as MillraceConfig
  expect(config).toEqual({})
})
