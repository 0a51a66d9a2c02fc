import { randomBytes } from 'node:crypto'
import { mkdtemp, open as openHandle, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, onTestFinished, test } from 'vitest'
import { commitFailure, fileFailure } from '../../connectors/queues/local/failure.ts'
import { type LocalOptions, localOptions } from '../../connectors/queues/local/options.ts'
import local from '../../connectors/queues/local.ts'
import type { ConnectorDeps, Log } from '../../src/core/connector.ts'
import type { OffsetRange, Queue, StoredRecord } from '../../src/core/queue.ts'
import { eventually } from '../support/eventually.ts'
import { startQueueProcess } from './local/start-queue-process.ts'
import { PARTITIONS, queueContract } from './queue-contract.ts'

const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent }
const deps: ConnectorDeps = { log: silent, pipeline: 'shop', now: Date.now }
const NOT_READY = { code: 'MILLRACE_QUEUE_NOT_READY' }
const place = { topic: 'orders', partition: 0 }
/** ms; until a process has started, on a machine that has other things to do */
const STARTING = 30_000

queueContract('local', async () => {
  const folder = await newFolder()
  const path = join(folder, 'made', 'on the way', 'shop.db')
  let topics = 0
  return {
    open: () => openLocal({ path, topics: { partitions: PARTITIONS } }),
    topic: () => `topic-${String(topics++).padStart(3, '0')}`,
    async trim({ topic, partition }, before) {
      const db = new DatabaseSync(path)
      db.prepare('update partition set log_start = ? where topic = ? and number = ?').run(before, topic, partition)
      db.close()
    },
    remove: () => rm(folder, { recursive: true }),
  }
})

describe('the file', () => {
  test('another application’s database is refused and left as it was', async () => {
    const path = await newPath()
    const theirs = new DatabaseSync(path)
    theirs.exec('create table theirs (id integer)')
    theirs.close()
    await expect(openLocal({ path })).rejects.toMatchObject({
      ...NOT_READY,
      message: expect.stringContaining('not a queue') as string,
    })
    const after = new DatabaseSync(path)
    expect(after.prepare('select name from sqlite_schema').all()).toMatchObject([{ name: 'theirs' }])
    expect(after.prepare('pragma journal_mode').get()).toMatchObject({ journal_mode: 'delete' })
    after.close()
  })

  test('one that a later version has made is refused', async () => {
    const { path, queue } = await newQueue()
    await queue.close()
    const db = new DatabaseSync(path)
    db.exec('pragma user_version = 2')
    db.close()
    await expect(openLocal({ path })).rejects.toMatchObject({
      ...NOT_READY,
      message: expect.stringContaining('format 2') as string,
    })
  })

  test('one that is no database, or whose folder cannot be written, is refused', async () => {
    const path = await newPath()
    await writeFile(path, 'these are not the bytes of a database'.repeat(100))
    await expect(openLocal({ path })).rejects.toMatchObject({ ...NOT_READY, message: expect.stringContaining(path) as string })
    await expect(openLocal({ path: join(path, 'below a file') })).rejects.toMatchObject(NOT_READY)
  })

  test('damage is found by the reader, who is given nothing in its place', async () => {
    const { path, queue } = await newQueue()
    await queue.createTopic('orders')
    await publish(queue, 2_000, 300)
    await queue.close()
    const { size } = await stat(path)
    const file = await openHandle(path, 'r+')
    await file.write(randomBytes(64 << 10), 0, 64 << 10, Math.floor(size / 2))
    await file.close()
    const damaged = await openLocal({ path })
    onTestFinished(() => damaged.close())
    await expect(readAll(damaged, await rangeOf(damaged))).rejects.toMatchObject(NOT_READY)
  })

  test('a batch that is missing between others is never passed over', async () => {
    const { path, queue } = await newQueue()
    await queue.createTopic('orders')
    for (let n = 0; n < 4; n++) await publish(queue, 10)
    const db = new DatabaseSync(path)
    db.exec('delete from batch where base = 20')
    db.close()
    expect(await readAll(queue, { start: 0n, end: 20n })).toHaveLength(20)
    const missing = { ...NOT_READY, message: expect.stringContaining('offset 20') as string }
    await expect(readAll(queue, { start: 0n, end: 40n })).rejects.toMatchObject(missing)
    await expect(readAll(queue, { start: 25n, end: 40n })).rejects.toMatchObject(NOT_READY)
    expect(await readAll(queue, { start: 30n, end: 40n })).toHaveLength(10)
  })

  test('nothing is written into a file that was removed under it', async () => {
    const { path, queue } = await newQueue()
    await queue.createTopic('orders')
    await publish(queue, 1)
    await rename(path, `${path}.away`)
    await expect(publish(queue, 1)).rejects.toMatchObject({
      ...NOT_READY,
      message: expect.stringContaining('removed or replaced') as string,
    })
    await expect(queue.state.write('a/1', 'x')).rejects.toMatchObject(NOT_READY)
    await rename(`${path}.away`, path)
    expect(await publish(queue, 1)).toBe(1n)
  })

  test('it is readable by its owner only', async () => {
    const { path, queue } = await newQueue()
    await queue.createTopic('orders')
    for (const file of [path, `${path}-wal`]) expect((await stat(file)).mode & 0o077).toBe(0)
  })

  test('what SQLite reports becomes an error that is retried, or one that a person must decide', () => {
    const sqlite = (errcode: number): Error => Object.assign(new Error('sqlite'), { errcode, errstr: 'what it said' })
    const code = (errcode: number) => fileFailure(sqlite(errcode), 'q.db', 'x').code
    const [busy, diskFull, ioError, ioErrorFsync, corrupt, notADatabase, readonly] = [5, 13, 10, 10 | (4 << 8), 11, 26, 8]
    for (const errcode of [busy, diskFull, ioError, ioErrorFsync]) expect(code(errcode)).toBe('MILLRACE_QUEUE_UNREACHABLE')
    for (const errcode of [corrupt, notADatabase, readonly]) expect(code(errcode)).toBe('MILLRACE_QUEUE_NOT_READY')
    expect(commitFailure(sqlite(ioErrorFsync), 'q.db').code).toBe('MILLRACE_PUBLISH_UNKNOWN')
    expect(commitFailure(sqlite(diskFull), 'q.db').code).toBe('MILLRACE_QUEUE_UNREACHABLE')
    expect(commitFailure(sqlite(corrupt), 'q.db').code).toBe('MILLRACE_QUEUE_NOT_READY')
  })
})

describe('topics', () => {
  test('one that exists keeps its partitions, whatever the options say by now', async () => {
    const { path, queue } = await newQueue({ partitions: 2 })
    await queue.createTopic('orders')
    const later = await openLocal({ path, topics: { partitions: 5 } })
    onTestFinished(() => later.close())
    await later.createTopic('orders')
    await later.createTopic('customers')
    expect(await queue.topics(['*'])).toEqual(
      new Map([
        ['customers', 5],
        ['orders', 2],
      ]),
    )
  })

  test('none is made when somebody else is to make them', async () => {
    const { queue } = await newQueue({ create: false })
    await expect(queue.createTopic('orders')).rejects.toMatchObject(NOT_READY)
    expect(await queue.check(['orders'])).toContainEqual(expect.objectContaining({ level: 'blocker' }))
  })

  test('pipelines that share a file share no state', async () => {
    const { path, queue } = await newQueue()
    const other = await local.open(localOptions.parse({ path }), { ...deps, pipeline: 'billing' })
    onTestFinished(() => other.close())
    await queue.state.write('a/1', 'shop')
    await other.state.write('a/1', 'billing')
    expect(await queue.state.read('a/')).toEqual(new Map([['a/1', 'shop']]))
  })
})

describe('retention', () => {
  test('what is older goes, from the start of each log, and nothing else', async () => {
    const clock = { now: 1_000_000_000 }
    const { queue } = await newQueue({ retention: '1h' }, { ...deps, now: () => clock.now })
    await queue.createTopic('orders')
    await publish(queue, 700)
    clock.now += 50 * 60_000
    await publish(queue, 300)
    const other = { topic: 'orders', partition: 1 }
    const publisher = await queue.publisher()
    onTestFinished(() => publisher.close())
    expect(await queue.check([])).not.toContainEqual(expect.objectContaining({ level: 'warning' }))
    clock.now += 20 * 60_000
    await eventually(async () => (await rangeOf(queue)).start === 700n, { what: 'the first 700 records are removed' })
    expect(await rangeOf(queue)).toEqual({ start: 700n, end: 1_000n })
    expect(await readAll(queue, await rangeOf(queue))).toHaveLength(300)
    expect(await queue.offsetAt('orders', 0, 0)).toBe(700n)
    await expect(readAll(queue, { start: 699n, end: 1_000n })).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_OFFSET_GONE' })
    clock.now += 60 * 60_000
    await eventually(async () => (await rangeOf(queue)).start === 1_000n, { what: 'the partition is emptied' })
    expect(await rangeOf(queue)).toEqual({ start: 1_000n, end: 1_000n })
    expect(
      await publisher.publish([
        { ...place, records: records(1) },
        { ...other, records: records(1) },
      ]),
    ).toEqual([1_000n, 0n])
  })

  test('a reader that retention overtakes is told', async () => {
    const clock = { now: 1_000_000_000 }
    const { queue } = await newQueue({ retention: '1h' }, { ...deps, now: () => clock.now })
    await queue.createTopic('orders')
    await publish(queue, 3_000)
    const publisher = await queue.publisher()
    onTestFinished(() => publisher.close())
    const reading = queue.read(place, await rangeOf(queue))[Symbol.asyncIterator]()
    await reading.next()
    clock.now += 2 * 3_600_000
    await eventually(async () => (await rangeOf(queue)).start === 3_000n, { what: 'the partition is emptied' })
    await expect(reading.next()).rejects.toMatchObject({ code: 'MILLRACE_QUEUE_OFFSET_GONE' })
  })

  test('a file that may not grow loses its oldest records, and no others', async () => {
    const maxBytes = 16 << 20
    const { path, queue } = await newQueue({}, deps, { maxBytes })
    await queue.createTopic('orders')
    const publisher = await queue.publisher()
    onTestFinished(() => publisher.close())
    for (let n = 0; n < 24; n++) await publisher.publish([{ ...place, records: records(100, 10_000) }])
    const used = (): number => {
      const db = new DatabaseSync(path)
      const pragma = (name: string): number => Number(db.prepare(`pragma ${name}`).get()?.[name])
      const bytes = (pragma('page_count') - pragma('freelist_count')) * pragma('page_size')
      db.close()
      return bytes
    }
    await eventually(() => used() <= maxBytes, { what: `the file occupies at most ${maxBytes} bytes` })
    const { start, end } = await rangeOf(queue)
    expect(end).toBe(2_400n)
    expect(start).toBeGreaterThan(700n)
    expect(start).toBeLessThan(1_100n)
    expect(await readAll(queue, { start, end })).toHaveLength(Number(end - start))
  })

  test('a retention of less than an hour is warned of', async () => {
    const { queue } = await newQueue({ retention: '10m' })
    expect(await queue.check([])).toContainEqual(expect.objectContaining({ level: 'warning' }))
  })
})

describe('several processes', () => {
  test('whatever was acknowledged to processes that were killed is there, in whole runs', async () => {
    const { path, queue } = await newQueue()
    await queue.createTopic('orders')
    const writers = ['a', 'b'].map((name) => startQueueProcess({ path, role: 'publish', topic: 'orders', name }))
    for (const writer of writers)
      await eventually(() => writer.said.length >= 100, { within: STARTING, what: 'each of two writers publishes' })
    await Promise.all(writers.map((writer) => writer.kill()))
    const runs = (await readAll(queue, await rangeOf(queue))).map(keyOf)
    expect(runs.length % 7).toBe(0)
    const starts = runs.filter((run, at) => run !== runs[at - 1])
    expect(new Set(starts).size).toBe(starts.length)
    expect(starts.length * 7).toBe(runs.length)
    for (const writer of writers)
      for (const said of writer.said) if ('acknowledged' in said) expect(runs[Number(said.acknowledged)]).toBe(said.run)
  })

  test('what one process publishes reaches the follower in another promptly', async () => {
    const { path, queue } = await newQueue()
    await queue.createTopic('orders')
    const follower = startQueueProcess({ path, role: 'consume', topic: 'orders', name: 'follower' })
    await eventually(() => follower.said.length === 3, { within: STARTING, what: 'it is assigned all partitions' })
    for (let n = 0; n < 10; n++) {
      await publish(queue, 1, 10, `${n}: `)
      await eventually(() => follower.said.some((said) => 'record' in said && said.record === `${n}: 0`), {
        within: 3_000,
        what: `record ${n} arrives`,
      })
    }
    await follower.kill()
  })

  test('a member that is suspended loses its partitions to the other, and knows it when it goes on', async () => {
    const { path, queue } = await newQueue()
    await queue.createTopic('orders')
    const [first, second] = ['first', 'second'].map((name) =>
      startQueueProcess({ path, role: 'consume', topic: 'orders', name }),
    ) as [ReturnType<typeof startQueueProcess>, ReturnType<typeof startQueueProcess>]
    await eventually(
      () => first.holds().length + second.holds().length === 3 && first.holds().length > 0 && second.holds().length > 0,
      {
        within: STARTING,
        what: 'two members share three partitions',
      },
    )
    first.suspend()
    await eventually(() => second.holds().length === 3, { within: STARTING, what: 'the other one holds all of them' })
    first.resume()
    await eventually(() => first.said.some((said) => 'revoked' in said), { what: 'the first knows that it lost them' })
    await second.kill()
    await eventually(() => first.holds().length === 3, {
      within: 15_000,
      what: 'the first holds all of them when the second has died',
    })
    await first.kill()
  })
})

async function newFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'millrace-local-'))
}

async function newPath(): Promise<string> {
  const folder = await newFolder()
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return join(folder, 'queue.db')
}

function openLocal(options: LocalOptions, surroundings = deps): Promise<Queue> {
  return local.open(localOptions.parse(options), surroundings)
}

async function newQueue(
  topics: LocalOptions['topics'] = {},
  surroundings = deps,
  more: Partial<LocalOptions> = {},
): Promise<{ readonly path: string; readonly queue: Queue }> {
  const path = await newPath()
  const queue = await openLocal({ path, topics, ...more }, surroundings)
  onTestFinished(() => queue.close())
  return { path, queue }
}

const records = (count: number, bytes = 10, prefix = '') =>
  Array.from({ length: count }, (_, n) => ({ key: Buffer.from(`${prefix}${n}`), value: Buffer.alloc(bytes, 'v'), headers: [] }))

const keyOf = ({ key }: StoredRecord): string => Buffer.from(key as Uint8Array).toString()

/** to the partition `place`; gives the first offset */
async function publish(queue: Queue, count: number, bytes = 10, prefix = ''): Promise<bigint> {
  const publisher = await queue.publisher()
  try {
    const [base] = await publisher.publish([{ ...place, records: records(count, bytes, prefix) }])
    return base as bigint
  } finally {
    await publisher.close()
  }
}

async function rangeOf(queue: Queue): Promise<OffsetRange> {
  const [range] = await queue.ranges(place.topic)
  return range as OffsetRange
}

async function readAll(queue: Queue, range: OffsetRange): Promise<readonly StoredRecord[]> {
  const read: StoredRecord[] = []
  for await (const batch of queue.read(place, range)) read.push(...batch)
  return read
}
