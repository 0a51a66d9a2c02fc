import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { Queue } from '../../src/core/queue.ts'
import { fromRecord } from '../../src/core/record.ts'
import { checkpointKey, checkpointPrefix, type SavedCheckpoint } from '../../src/core/saved-checkpoint.ts'
import type { MillraceConfig, Pipeline } from '../../src/index.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { parseConfig } from '../../src/runtime/config-schema.ts'
import { openQueue } from '../../src/runtime/open.ts'
import { Secrets } from '../../src/runtime/secrets.ts'
import { quietLog } from '../faults/parts.ts'
import { createDatabase, type Database } from '../support/database.ts'
import { eventually } from '../support/eventually.ts'
import { sharedKafka } from '../support/kafka.ts'
import { requires } from '../support/requires.ts'
import { REPLICA, type Stream, streamOf } from './stream.ts'

/** Named checkpoints of a stream that flows, on either queue. */

type QueueOptions = Parameters<typeof streamOf>[0]['queue']

function checkpointsOn(kind: QueueOptions['kind'], queueOf: (home: string) => QueueOptions): void {
  let home: string
  let source: Database
  let replica: Database
  let stream: Stream
  beforeEach(async () => {
    home = await mkdtemp(join(tmpdir(), 'millrace-checkpoint-'))
    source = await createDatabase()
    replica = await createDatabase()
    await replica.query(REPLICA)
    const queue = queueOf(home)
    stream = streamOf({ name: source.name.slice(0, 40), sourceUrl: source.url, replicaUrl: replica.url, queue })
    await stream.pipeline().init()
  })
  afterEach(async () => {
    await stream.stop()
    await stream.pipeline().teardown({ slot: true })
    await Promise.all([source.drop(), replica.drop()])
    await rm(home, { recursive: true, force: true })
  })

  async function opened(): Promise<Queue> {
    const context = { env: {}, folder: '/', secrets: new Secrets() }
    const around = { origin: 'test', folder: '/', log: quietLog, clock: systemClock, random: Math.random }
    const queue = await openQueue(parseConfig(stream.config, 'test', context), around)
    onTestFinished(() => queue.close())
    return queue
  }

  test('one that is saved while the stream flows is one moment of it', async () => {
    const { checkpoints } = stream.pipeline()
    await stream.run()
    const saved: SavedCheckpoint[] = []
    for (let n = 0; n < 5; n++) {
      await stream.write(40)
      saved.push(await checkpoints.save(`moment-${n}`))
    }
    await stream.arrived()
    // the relay's state follows what it has published
    await eventually(async () => (await checkpoints.save(`late-${Date.now()}`)).topics.size > 0, {
      what: 'the state knows the topic',
    })
    const last = (await checkpoints.list()).at(-1) as SavedCheckpoint
    await stream.stop()

    expect((await checkpoints.list()).filter(({ name }) => name.startsWith('moment-'))).toEqual(saved)
    const queue = await opened()
    for (const checkpoint of [...saved, last])
      for (const [topic, tails] of checkpoint.topics)
        for (const [partition, range] of (await queue.ranges(topic)).entries()) {
          const tail = tails[partition]
          if (range.start === range.end) continue
          for await (const records of queue.read({ topic, partition }, range))
            for (const record of records) {
              const at = fromRecord(record)?.position as string
              if (record.offset === tail?.offset) expect(at).toBe(tail.position)
              // what was committed below its position stands before its place, whatever stands behind came later
              if (record.offset > (tail?.offset ?? -1n))
                expect(at >= checkpoint.position && at > (tail?.position ?? '')).toBe(true)
            }
        }
  })

  test('it is shown with what the queue still holds, and dropped', async () => {
    const { checkpoints } = stream.pipeline()
    await stream.write(3)
    await stream.flow({ checkpoints: false })
    const saved = await checkpoints.save('noon')
    await expect(checkpoints.save('noon')).rejects.toMatchObject({ code: 'MILLRACE_CHECKPOINT_EXISTS' })
    expect(await checkpoints.show('noon')).toMatchObject({ ...saved, current: true })
    const shown = await checkpoints.show('noon')
    expect(shown.partitions).toHaveLength(3)
    expect(shown.partitions.every(({ retained }) => retained)).toBe(true)
    const queue = await opened()
    const ranges = await queue.ranges(shown.partitions[0]?.topic as string)
    expect(shown.partitions.map(({ offset }) => offset)).toEqual(ranges.map(({ end }) => end))
    await checkpoints.drop('noon')
    for (const ask of [() => checkpoints.show('noon'), () => checkpoints.drop('noon'), () => checkpoints.show('no')])
      await expect(ask()).rejects.toMatchObject({ code: 'MILLRACE_CHECKPOINT_UNKNOWN' })
    expect(await checkpoints.list()).toEqual([])
  })

  test('the next relay goes on beside them, and a torn down stream takes them along', async () => {
    await stream.write(3)
    await stream.flow()
    await stream.pipeline().checkpoints.save('noon')
    await stream.write(3)
    await stream.flow()
    expect(await stream.pipeline().checkpoints.show('noon')).toMatchObject({ current: true })
    await stream.pipeline().teardown({ slot: true, publication: true, schema: true })
    expect(await (await opened()).state.read('')).toEqual(new Map())
  })

  // where the state is kept makes no difference to these
  if (kind !== 'local') return

  test('the relay takes them on its interval and lets them go, and saved ones stay', async () => {
    const config: Partial<MillraceConfig> = { checkpoints: { every: '1s', keep: '3s' } }
    const { checkpoints } = stream.pipeline(config)
    const automatic = async (): Promise<readonly string[]> =>
      (await checkpoints.list()).flatMap(({ name, automatic }) => (automatic ? [name] : []))
    await stream.run(config)
    await eventually(async () => (await automatic()).length > 0, { what: 'the first one is taken' })
    const [first] = await automatic()
    await checkpoints.save('noon')
    expect(first).toMatch(/^auto-\d{8}t\d{6}z$/)
    await eventually(async () => !(await automatic()).includes(first as string), {
      within: 20_000,
      what: 'the first one is gone',
    })
    expect((await automatic()).length).toBeGreaterThan(0)
    expect((await automatic()).length).toBeLessThan(6)
    expect((await checkpoints.list()).map(({ name }) => name)).toContain('noon')
  })

  test('none is taken where the config says so', async () => {
    await stream.write(1)
    await stream.flow({ checkpoints: false })
    expect(await stream.pipeline().checkpoints.list()).toEqual([])
  })

  test('a record that nobody can read is in nobody’s way', async () => {
    const queue = await opened()
    await queue.state.write(checkpointKey(stream.name, 'broken'), '{')
    const { checkpoints } = stream.pipeline()
    await checkpoints.save('noon')
    expect((await checkpoints.list()).map(({ name }) => name)).toEqual(['noon'])
    await expect(checkpoints.show('broken')).rejects.toMatchObject({ code: 'MILLRACE_STATE_CONFLICT' })
    await checkpoints.drop('broken')
    expect([...(await queue.state.read(checkpointPrefix(stream.name))).keys()]).toEqual([checkpointKey(stream.name, 'noon')])
  })
}

describe('on the embedded queue', () => {
  checkpointsOn('local', (home) => ({ kind: 'local', path: join(home, 'queue.db') }))
})

requires('kafka')('on Kafka', () => {
  let brokers: string[]
  beforeAll(async () => {
    brokers = await sharedKafka()
  })
  checkpointsOn('kafka', () => ({ kind: 'kafka', brokers }))
})

describe('what cannot be', () => {
  let home: string
  let pipeline: Pipeline
  beforeAll(async () => {
    home = await mkdtemp(join(tmpdir(), 'millrace-checkpoint-'))
    const { createPipeline } = await import('../../src/index.ts')
    // the source is never asked
    pipeline = createPipeline(
      { name: 'shop', source: { url: '${env:NOT_SET}' }, queue: { kind: 'local', path: join(home, 'queue.db') } },
      { logLevel: 'silent' },
    )
  })
  afterAll(() => rm(home, { recursive: true, force: true }))

  test('there is nothing to save before the stream is founded', async () => {
    await expect(pipeline.checkpoints.save('noon')).rejects.toMatchObject({ code: 'MILLRACE_STATE_MISSING' })
    expect(await pipeline.checkpoints.list()).toEqual([])
  })
  test('a name that reads as something else is refused', async () => {
    for (const name of ['0/16b3748', '2026-11-20', 'Noon', 'auto-noon'])
      await expect(pipeline.checkpoints.save(name)).rejects.toMatchObject({ code: 'MILLRACE_USAGE' })
  })
})
