import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { requires } from '../support/requires.ts'

interface Service {
  readonly image: string
  readonly build?: string
  readonly ports?: readonly string[]
  readonly volumes?: readonly string[]
  readonly configs?: readonly { readonly source: string; readonly target: string }[]
}

const root = join(import.meta.dirname, '../..')
const IMAGES: Readonly<Record<string, string | undefined>> = {
  'postgres:17': process.env['MILLRACE_TEST_POSTGRES_IMAGE'],
  'apache/kafka:4.1.1': process.env['MILLRACE_TEST_KAFKA_IMAGE'],
}

requires('docker', 'docker-compose')('docker-compose.yml', () => {
  let folder: string
  const run = promisify(execFile)
  const compose = async (...args: string[]): Promise<string> =>
    (await run('docker-compose', ['--project-name', `millrace-${process.pid}`, ...args], { cwd: folder })).stdout.trim()
  const url = async (service: string, database: string): Promise<string> =>
    `postgres://postgres:postgres@${await compose('port', service, '5432')}/${database}`

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'millrace-compose-'))
    await writeFile(join(folder, 'docker-compose.yml'), await asTested(folder))
    await compose('up', '--detach', '--build').catch(async (error) => {
      throw new Error(`${error.message}\n${await compose('logs', '--no-color', '--tail=50')}`)
    })
  }, 600_000)
  afterAll(async () => {
    await compose('down', '--volumes', '--timeout=0', '--rmi=local')
    await rm(folder, { recursive: true, force: true })
  })

  test('takes an event from the source to the warehouse through Kafka', async () => {
    await query(
      await url('source', 'shop'),
      `select millrace.emit(aggregate_type => 'order', aggregate_id => '1', type => 'OrderPlaced', payload => '{"id":1,"total":"10.00"}')`,
    )
    const warehouse = await url('warehouse', 'warehouse')
    await expect
      .poll(() => query(warehouse, 'select id, total::text from orders'), { timeout: 60_000, interval: 200 })
      .toEqual([{ id: '1', total: '10.00' }])
  }, 90_000)

  test('the service is ready, does not run as root, and drains when it is stopped', async () => {
    const ready = await fetch(`http://${await compose('port', 'millrace', '9464')}/readyz`)
    expect(ready.status).toBe(200)
    const container = await compose('ps', '--quiet', 'millrace')
    expect((await run('docker', ['exec', container, 'id', '-u'])).stdout.trim()).not.toBe('0')
    await compose('stop', 'millrace')
    expect((await run('docker', ['inspect', '--format={{.State.ExitCode}}', container])).stdout.trim()).toBe('0')
  }, 90_000)
})

/**
 * The file as it is, but for what the machine dictates: images where the public hub is out of reach, free ports, and the
 * configs as mounted files, since Compose 1.29, which Debian has, knows none.
 */
async function asTested(folder: string): Promise<string> {
  const file = parse(await readFile(join(root, 'docker-compose.yml'), 'utf8'), { merge: true })
  for (const [name, { content }] of Object.entries<{ content: string }>(file.configs))
    await writeFile(join(folder, name), content)
  const node = process.env['MILLRACE_TEST_NODE_IMAGE']
  const services = Object.entries<Service>(file.services).map(([name, { image, build, ports, configs, volumes, ...service }]) => [
    name,
    {
      ...service,
      image: IMAGES[image] ?? image,
      ...(build && { build: { context: root, network: 'host', args: node ? { NODE_IMAGE: node } : {} } }),
      ports: ports?.map((port) => port.replace(/:\d+:/, '::')) ?? [],
      volumes: [...(volumes ?? []), ...(configs ?? []).map(({ source, target }) => `./${source}:${target}:ro`)],
    },
  ])
  return stringify({ version: '3.9', services: Object.fromEntries(services), volumes: file.volumes })
}

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  await client.connect()
  try {
    return (await client.query(text)).rows
  } finally {
    await client.end()
  }
}
