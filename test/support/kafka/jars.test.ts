import { mkdtemp, readdir, rm, stat, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { requires } from '../requires.ts'
import { kafkaJars } from './jars.ts'

// servers start here, on machines that are busy
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 })

requires('maven')('the cache of Kafka', () => {
  let cache: string
  beforeAll(async () => {
    cache = await mkdtemp(join(tmpdir(), 'millrace-jars-'))
  })
  afterAll(() => rm(cache, { recursive: true, force: true }))

  test('two that fetch at once end with one complete folder and no litter', async () => {
    const [first, second] = await Promise.all([kafkaJars(cache), kafkaJars(cache)])
    expect(first).toBe(second)
    expect(await readdir(cache)).toHaveLength(1)
    expect(await readdir(first)).toContain('kafka_2.13-4.1.1.jar')
  })

  test('a jar that was cut short is fetched again', async () => {
    const folder = await kafkaJars(cache)
    const jar = join(folder, 'kafka_2.13-4.1.1.jar')
    const { size } = await stat(jar)
    await truncate(jar, size - 1)
    expect(await kafkaJars(cache)).toBe(folder)
    expect((await stat(jar)).size).toBe(size)
  })
})
