import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import { parseConfig } from '../../src/runtime/config-schema.ts'
import { loadQueue, loadSink } from '../../src/runtime/registry.ts'
import { Secrets } from '../../src/runtime/secrets.ts'

interface Compose {
  readonly services: Readonly<Record<string, Service>>
  readonly configs: Readonly<Record<string, { readonly content: string }>>
}

interface Service {
  readonly ports?: readonly string[]
}

const root = join(import.meta.dirname, '../..')
let compose: Compose

beforeAll(async () => {
  compose = parse(await readFile(join(root, 'docker-compose.yml'), 'utf8'), { merge: true })
})

test('the config that docker-compose.yml carries is one that Millrace takes', async () => {
  const raw = parse(compose.configs['millrace.yaml']?.content ?? '')
  const at = { origin: 'docker-compose.yml', folder: root }
  const config = parseConfig(raw, at.origin, { env: {}, folder: root, secrets: new Secrets() })
  const { kind, ...options } = config.queue as NonNullable<typeof config.queue>
  expect(await (await loadQueue(kind, at)).options['~standard'].validate(options)).not.toHaveProperty('issues')
  for (const [name, { kind, start: _start, sources: _sources, ...options }] of Object.entries(config.sinks)) {
    expect(await (await loadSink(kind, name, at)).options['~standard'].validate(options)).not.toHaveProperty('issues')
  }
})

test('it opens no port to other machines', () => {
  const ports = Object.values(compose.services).flatMap(({ ports = [] }) => ports)
  expect(ports).not.toHaveLength(0)
  expect(ports.filter((port) => !port.startsWith('127.0.0.1:'))).toEqual([])
})
