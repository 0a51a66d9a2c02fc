// One file and over 400 lines, because a contract is read as a whole: everything that `core/queue.ts` asks of a queue.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type {
  Assignment,
  Consumer,
  OffsetRange,
  PartitionRecords,
  Queue,
  QueueRecord,
  StoredRecord,
  TopicPartition,
} from '../core/queue.ts'
import { recordBytes } from '../core/record.ts'
import { equal, rejects } from './expect.ts'

/** One queue under test: what the contract needs of it, beside the contract itself. */
export interface QueueUnderTest {
  /** opens the same queue again, as another process of the same pipeline would, with topics of {@link QUEUE_PARTITIONS} partitions */
  open(): Promise<Queue>
  /** the name of a topic that does not exist and that nobody else uses; none of them is the beginning of another */
  topic(): string
  /** removes the partition's records below the offset, as retention would */
  trim(partition: TopicPartition, before: bigint): Promise<void>
  /** ends the queue */
  remove(): Promise<void>
}

export interface QueueContract {
  /** your runner's: `test` of vitest, jest, node:test, `it` of mocha … Tests must not run at the same time; give them a minute each. */
  readonly test: (name: string, run: () => Promise<void>) => unknown
  /** a queue of its own; called, and removed, for each test */
  readonly start: () => Promise<QueueUnderTest>
}

export const QUEUE_PARTITIONS = 3

/** ms; a rebalance of Kafka's takes seconds */
const JOINING = 30_000
/** ms; from the publisher's acknowledgement to a follower */
const PROMPTLY = 2_000
const MiB = 1 << 20

/** What every queue must hold to; the proofs of the relay and the appliers stand on it. */
export function queueContract({ test, start }: QueueContract): void {
  // of the test that runs
  let under: QueueUnderTest
  let queue: Queue
  const ends: (() => Promise<unknown>)[] = []
  const atEnd = (end: () => Promise<unknown>): void => void ends.push(end)

  const promised = (name: string, run: () => Promise<void>): void =>
    void test(name, async () => {
      under = await start()
      atEnd(() => under.remove())
      try {
        queue = await reopened()
        await run()
      } finally {
        for (const end of ends.splice(0).reverse()) await end()
      }
    })

  async function newTopic(): Promise<string> {
    const topic = under.topic()
    await queue.createTopic(topic)
    return topic
  }

  async function reopened(): Promise<Queue> {
    const other = await under.open()
    atEnd(() => other.close())
    return other
  }

  /** by a publisher of its own */
  async function publish(...batches: readonly PartitionRecords[]): Promise<readonly bigint[]> {
    const publisher = await queue.publisher()
    try {
      return await publisher.publish(batches)
    } finally {
      await publisher.close()
    }
  }

  async function rangeOf({ topic, partition }: TopicPartition): Promise<OffsetRange> {
    return (await queue.ranges(topic))[partition] as OffsetRange
  }

  async function readAll(place: TopicPartition, range?: OffsetRange): Promise<readonly StoredRecord[]> {
    const records: StoredRecord[] = []
    for await (const batch of queue.read(place, range ?? (await rangeOf(place)))) records.push(...batch)
    return records
  }

  promised('records stand in the order they were published in, from the offsets that were acknowledged', async () => {
    const place = { topic: await newTopic(), partition: 1 }
    const publisher = await queue.publisher()
    atEnd(() => publisher.close())
    const bases: bigint[] = []
    for (const count of [1, 200, 3]) {
      const [base] = await publisher.publish([{ ...place, records: numbered(count, `after ${bases.length}: `) }])
      bases.push(base as bigint)
    }
    const records = await readAll(place)
    equal(records.map(keyOf), [
      ...numbered(1, 'after 0: ').map(keyOf),
      ...numbered(200, 'after 1: ').map(keyOf),
      ...numbered(3, 'after 2: ').map(keyOf),
    ])
    equal(bases, [records[0]?.offset, records[1]?.offset, records[201]?.offset])
    equal(growing(records), true)
    equal((await rangeOf(place)).end, (records[203]?.offset as bigint) + 1n)
  })

  promised('one publish reaches several partitions, and acknowledges each by its own first offset', async () => {
    const topic = await newTopic()
    await publish({ topic, partition: 2, records: numbered(5, 'earlier ') })
    const bases = await publish(
      { topic, partition: 2, records: numbered(40, 'two ') },
      { topic, partition: 0, records: numbered(30, 'zero ') },
    )
    const [zero, one, two] = await Promise.all([0, 1, 2].map((partition) => readAll({ topic, partition })))
    equal(zero?.map(keyOf), numbered(30, 'zero ').map(keyOf))
    equal(one, [])
    equal(two?.map(keyOf), [...numbered(5, 'earlier ').map(keyOf), ...numbered(40, 'two ').map(keyOf)])
    equal(bases, [two?.[5]?.offset, zero?.[0]?.offset])
  })

  promised('the records of one publish stand together although somebody else publishes at the same time', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    const other = await reopened()
    const writers = await Promise.all([queue.publisher(), other.publisher()])
    atEnd(() => Promise.all(writers.map((writer) => writer.close())).then(() => {}))
    await Promise.all(
      writers.map(async (writer, who) => {
        for (let run = 0; run < 5; run++) await writer.publish([{ ...place, records: numbered(20, `${who}/${run} `) }])
      }),
    )
    const runs = (await readAll(place)).map((record) => keyOf(record).split(' ')[0] as string)
    equal(runs.length, 200)
    const together = runs.filter((run, at) => run !== runs[at - 1])
    equal(together.length, 10)
  })

  promised('keys, values and headers come back byte for byte', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    const everyByte = Uint8Array.from({ length: 256 }, (_, byte) => byte)
    const records: QueueRecord[] = [
      { key: utf8('tombstone'), value: null, headers: [] },
      { key: utf8('empty'), value: new Uint8Array(0), headers: [] },
      { key: everyByte, value: everyByte, headers: [['bytes', everyByte]] },
      { key: utf8('schlüssel 🌊'), value: utf8('"wörtlich \\u0000"'), headers: [['grüße', 'an alle 🌊']] },
      {
        key: utf8('repeated'),
        value: utf8('1'),
        headers: [
          ['tag', 'first'],
          ['other', ''],
          ['tag', new Uint8Array(0)],
          ['tag', 'third'],
        ],
      },
      { key: utf8('many'), value: utf8('2'), headers: numbered(300).map(({ key }, n) => [`header-${n}`, key] as const) },
      { key: utf8('long header'), value: null, headers: [['long', randomBytes(100_000)]] },
    ]
    await publish({ ...place, records })
    const stored = await readAll(place)
    equal(stored.map(textOf), records.map(textOf))
    equal(
      stored.map(({ value }) => value === null),
      records.map(({ value }) => value === null),
    )
  })

  promised('a record carries the time at which it was published', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    const before = Date.now()
    await publish({ ...place, records: numbered(1) })
    const [{ timestamp }] = (await readAll(place)) as [StoredRecord]
    assert.ok(before <= timestamp && timestamp <= Date.now(), `${timestamp} was asked for after ${before}`)
  })

  promised('a record as large as the queue takes is taken, and several of them in one publish', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    const { maxRecordBytes } = queue.traits
    const records = [maxRecordBytes, Math.floor(maxRecordBytes * 0.7), Math.floor(maxRecordBytes * 0.7)].map(recordOf)
    equal(recordBytes(records[0] as QueueRecord), maxRecordBytes)
    await publish({ ...place, records })
    const stored = await readAll(place)
    equal(stored.length, 3)
    equal(growing(stored), true)
    for (const [at, { value }] of stored.entries())
      equal(Buffer.compare(value as Uint8Array, records[at]?.value as Uint8Array), 0)
  })

  promised('a record too large is refused before anything of its publish is written', async () => {
    const topic = await newTopic()
    const tooLarge = { key: utf8('k'), value: randomBytes(queue.traits.maxRecordBytes), headers: [] }
    await rejects(
      publish(
        { topic, partition: 0, records: numbered(3) },
        { topic, partition: 1, records: [...numbered(3), tooLarge, ...numbered(3)] },
      ),
      { code: 'MILLRACE_EVENT_TOO_LARGE' },
    )
    equal(
      (await queue.ranges(topic)).map(({ start, end }) => end - start),
      [0n, 0n, 0n],
    )
  })

  promised('a publish to a topic that does not exist is refused and does not make it', async () => {
    const topic = under.topic()
    await rejects(publish({ topic, partition: 0, records: numbered(1) }), {})
    equal((await queue.topics([topic])).size, 0)
  })

  promised('publishes that overlap are refused', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    const publisher = await queue.publisher()
    atEnd(() => publisher.close())
    const first = publisher.publish([{ ...place, records: numbered(3, 'first ') }])
    await rejects(publisher.publish([{ ...place, records: numbered(3, 'second ') }]), {})
    await first
    equal((await readAll(place)).map(keyOf), numbered(3, 'first ').map(keyOf))
  })

  promised('a closed publisher refuses, and closing it again does no harm', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    const publisher = await queue.publisher()
    await publisher.close()
    await publisher.close()
    await rejects(publisher.publish([{ ...place, records: numbered(1) }]), {})
    equal(await readAll(place), [])
  })

  promised('a range is read exactly, in order', async () => {
    const place = { topic: await newTopic(), partition: 2 }
    await publish({ ...place, records: numbered(2_500) })
    const all = await readAll(place)
    equal(all.map(keyOf), numbered(2_500).map(keyOf))
    const at = (index: number): bigint => all[index]?.offset as bigint
    for (const [from, to] of [
      [0, 1],
      [1, 2_499],
      [700, 1_900],
      [2_499, 2_500],
    ] as const) {
      const part = await readAll(place, { start: at(from), end: to === 2_500 ? at(2_499) + 1n : at(to) })
      equal(part.map(keyOf), all.slice(from, to).map(keyOf))
    }
    equal(await readAll(place, { start: at(7), end: at(7) }), [])
  })

  promised('batches are bounded in bytes', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    for (let n = 0; n < 12; n++) await publish({ ...place, records: [recordOf(500_000), recordOf(500_000)] })
    let records = 0
    for await (const batch of queue.read(place, await rangeOf(place))) {
      records += batch.length
      assert.ok(batch.length > 0)
      assert.ok(weight(batch) < 4 * MiB)
    }
    equal(records, 24)
  })

  promised('reading ends with its signal', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    for (let n = 0; n < 10; n++) await publish({ ...place, records: [recordOf(500_000)] })
    const stop = new AbortController()
    let records = 0
    for await (const batch of queue.read(place, await rangeOf(place), stop.signal)) {
      records += batch.length
      stop.abort()
    }
    assert.ok(records < 10)
  })

  promised('the log of a new topic is empty, and its ranges tell what is in it', async () => {
    const topic = await newTopic()
    const before = await queue.ranges(topic)
    equal(before.length, QUEUE_PARTITIONS)
    for (const { start, end } of before) equal(end, start)
    const [base] = await publish({ topic, partition: 1, records: numbered(4) })
    const after = await queue.ranges(topic)
    equal(after[0], before[0])
    equal(after[1], { start: base, end: (base as bigint) + 4n })
    equal(after[2], before[2])
  })

  promised('an offset that retention has taken is an error, and so is one that was never written', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    await publish({ ...place, records: numbered(10) })
    await publish({ ...place, records: numbered(10, 'kept ') })
    const { start: first, end } = await rangeOf(place)
    await under.trim(place, first + 10n)
    equal(await rangeOf(place), { start: first + 10n, end })
    equal((await readAll(place)).map(keyOf), numbered(10, 'kept ').map(keyOf))
    const gone = { code: 'MILLRACE_QUEUE_OFFSET_GONE' }
    await rejects(readAll(place, { start: first, end }), gone)
    await rejects(readAll(place, { start: first + 9n, end }), gone)
    await rejects(readAll(place, { start: end + 5n, end: end + 6n }), gone)
  })

  promised('a partition that retention has emptied still tells where it ends', async () => {
    const place = { topic: await newTopic(), partition: 0 }
    await publish({ ...place, records: numbered(10) })
    const { end } = await rangeOf(place)
    await under.trim(place, end)
    equal(await rangeOf(place), { start: end, end })
    equal((await (await reopened()).ranges(place.topic))[0], { start: end, end })
    equal(await publish({ ...place, records: numbered(1) }), [end])
  })

  promised('a time leads to the first record published at or after it', async () => {
    const { topic, partition } = { topic: await newTopic(), partition: 0 }
    const place = { topic, partition }
    const [early] = await publish({ ...place, records: numbered(5) })
    const [{ timestamp }] = (await readAll(place)) as [StoredRecord]
    await eventually(() => Date.now() > timestamp + 1, { what: 'the clock goes on' })
    const [late] = await publish({ ...place, records: numbered(5) })
    const { end } = await rangeOf(place)
    equal(await queue.offsetAt(topic, partition, 0), early)
    equal(await queue.offsetAt(topic, partition, timestamp), early)
    equal(await queue.offsetAt(topic, partition, timestamp + 1), late)
    equal(await queue.offsetAt(topic, partition, Date.now() + 3_600_000), end)
    equal(await queue.offsetAt(topic, 1, 0), (await rangeOf({ topic, partition: 1 })).end)
  })

  promised('those that exist are found by name, and by the beginning of their names', async () => {
    const [one, two, missing] = [await newTopic(), await newTopic(), under.topic()]
    equal(await queue.topics([one, missing]), new Map([[one, QUEUE_PARTITIONS]]))
    equal(await queue.topics([missing]), new Map())
    const begun = await queue.topics([`${one}*`, `${missing}*`])
    equal(begun, new Map([[one, QUEUE_PARTITIONS]]))
    const both = await queue.topics([`${commonPrefix(one, two)}*`])
    equal(both.get(one), QUEUE_PARTITIONS)
    equal(both.get(two), QUEUE_PARTITIONS)
    equal(both.has(missing), false)
  })

  promised('making a topic again leaves it as it is', async () => {
    const topic = await newTopic()
    await publish({ topic, partition: 2, records: numbered(3) })
    await queue.createTopic(topic)
    await (await reopened()).createTopic(topic)
    equal(await queue.topics([topic]), new Map([[topic, QUEUE_PARTITIONS]]))
    equal((await readAll({ topic, partition: 2 })).length, 3)
  })

  promised('two who make a topic at once both find it made', async () => {
    const topic = under.topic()
    await Promise.all([queue.createTopic(topic), (await reopened()).createTopic(topic)])
    equal(await queue.topics([topic]), new Map([[topic, QUEUE_PARTITIONS]]))
  })

  promised('what would make it unusable is said as a finding', async () => {
    const findings = await queue.check([await newTopic()])
    for (const { level, subject, message } of findings) {
      assert.ok(['blocker', 'warning', 'ok'].includes(level))
      assert.ok(`${subject}${message}`.length > 5)
    }
  })

  let scopes = 0
  const key = (): string => `s${scopes++}-${process.pid}`

  promised('values are read by the beginning of their keys', async () => {
    const { state } = queue
    const scope = key()
    const long = JSON.stringify({ text: 'größer '.repeat(5_000) })
    await state.write(`${scope}/1`, 'one')
    await state.write(`${scope}/2`, long)
    await state.write(`${scope}%/1`, 'of another')
    equal(
      await state.read(`${scope}/`),
      new Map([
        [`${scope}/1`, 'one'],
        [`${scope}/2`, long],
      ]),
    )
    equal(await state.read(`${scope}/2`), new Map([[`${scope}/2`, long]]))
    equal(await state.read(`${scope}_/`), new Map())
    equal(await state.read(`${key()}/`), new Map())
  })

  promised('the last write wins, and a removed key is gone', async () => {
    const { state } = queue
    const scope = key()
    await state.write(`${scope}/1`, 'one')
    await state.write(`${scope}/2`, 'two')
    await state.write(`${scope}/1`, 'one again')
    await state.remove(`${scope}/2`)
    await state.remove(`${scope}/never written`)
    equal(await state.read(scope), new Map([[`${scope}/1`, 'one again']]))
  })

  promised('another process reads what was written as soon as the write has resolved', async () => {
    const other = await reopened()
    const scope = key()
    for (let n = 0; n < 5; n++) {
      await queue.state.write(`${scope}/a`, `${n}`)
      equal((await other.state.read(scope)).get(`${scope}/a`), `${n}`)
    }
    equal(await (await reopened()).state.read(scope), new Map([[`${scope}/a`, '4']]))
  })

  let groups = 0
  async function join(topics: readonly string[], group: string, handle: Queue = queue): Promise<Member> {
    const stop = new AbortController()
    const consumer = await handle.consume({ group, topics, clientId: 'contract', signal: stop.signal })
    const member = new Member(consumer, stop)
    atEnd(() => member.leave())
    return member
  }
  const newGroup = (): string => `${under.topic()}.group-${groups++}`

  promised('a single member is assigned every partition, and reads from where it asks to', async () => {
    const [one, two] = [await newTopic(), await newTopic()]
    for (let partition = 0; partition < QUEUE_PARTITIONS; partition++)
      await publish({ topic: one, partition, records: numbered(10, `${partition}: `) })
    const group = newGroup()
    const member = await join([one, two], group)
    await member.holds(2 * QUEUE_PARTITIONS)
    equal(member.assigned.length, 2 * QUEUE_PARTITIONS)
    for (let partition = 0; partition < QUEUE_PARTITIONS; partition++) {
      const assignment = member.of({ topic: one, partition })
      const range = await rangeOf({ topic: one, partition })
      equal(await assignment.range(), range)
      equal((await take(assignment, range.start, 10)).map(keyOf), numbered(10, `${partition}: `).map(keyOf))
      assignment.report(range.end)
      // the group's offset is behind us by now; again from the start, and from the middle
      equal((await take(assignment, range.start, 10)).map(keyOf), numbered(10, `${partition}: `).map(keyOf))
      const [seventh] = await take(assignment, range.start + 6n, 1)
      equal(keyOf(seventh as StoredRecord), `${partition}: 6`)
    }
    await member.leave()
    const again = await join([one], group)
    await again.holds(QUEUE_PARTITIONS)
    const assignment = again.of({ topic: one, partition: 0 })
    equal((await take(assignment, (await assignment.range()).start, 10)).length, 10)
  })

  promised('what is published while it follows arrives promptly, from the end of the log too', async () => {
    const topic = await newTopic()
    const member = await join([topic], newGroup())
    await member.holds(QUEUE_PARTITIONS)
    const assignment = member.of({ topic, partition: 1 })
    const publisher = await (await reopened()).publisher()
    atEnd(() => publisher.close())
    const { end } = await assignment.range()
    const batches = assignment.read(end)[Symbol.asyncIterator]()
    let expected = end
    for (let n = 0; n < 20; n++) {
      const next = batches.next()
      await publisher.publish([{ topic, partition: 1, records: numbered(1, `${n}: `) }])
      const published = performance.now()
      const { value } = await next
      assert.ok(performance.now() - published < PROMPTLY)
      equal(
        value?.map((record: StoredRecord) => record.offset),
        [expected],
      )
      expected++
    }
    await batches.return?.()
  })

  promised('leaving the loop of one partition leaves the others flowing, and it can be read again', async () => {
    const topic = await newTopic()
    const member = await join([topic], newGroup())
    await member.holds(QUEUE_PARTITIONS)
    const [left, followed] = [member.of({ topic, partition: 0 }), member.of({ topic, partition: 1 })]
    const { start } = await followed.range()
    const following = take(followed, start, 30)
    for (let n = 0; n < 3; n++) {
      await publish({ topic, partition: 0, records: numbered(10) }, { topic, partition: 1, records: numbered(10, `${n}: `) })
      if (n === 0) equal((await take(left, start, 5)).length, 5)
    }
    equal(
      (await following).map(keyOf),
      [0, 1, 2].flatMap((n) => numbered(10, `${n}: `).map(keyOf)),
    )
    equal(left.signal.aborted, false)
    equal((await take(left, start + 5n, 25)).length, 25)
  })

  promised('a partition whose reader takes its time is not read ahead, and holds back no other', async () => {
    const topic = await newTopic()
    const large = Array.from({ length: 8 }, () => recordOf(500_000))
    for (let n = 0; n < 8; n++)
      await publish({ topic, partition: 0, records: large }, { topic, partition: 1, records: large.slice(4) })
    const member = await join([topic], newGroup())
    await member.holds(QUEUE_PARTITIONS)
    const [slow, quick] = [member.of({ topic, partition: 0 }), member.of({ topic, partition: 1 })]
    const held = slow.read((await slow.range()).start)[Symbol.asyncIterator]()
    const first = (await held.next()).value as readonly StoredRecord[]
    const before = memoryInUse()
    let passed = 0
    for await (const batch of quick.read((await quick.range()).start)) {
      passed += batch.length
      if (passed === 32) break
    }
    // buffers are freed some time after the collection that found them unused
    await eventually(() => memoryInUse() - before < 12 * MiB, { what: 'little is held for the slow reader' })
    let seen = first.length
    while (seen < 64) seen += ((await held.next()).value as readonly StoredRecord[]).length
    equal(seen, 64)
    await held.return?.()
  })

  promised('an offset outside the log is an error to the reader that asks for it', async () => {
    const topic = await newTopic()
    await publish({ topic, partition: 0, records: numbered(10) })
    const { start, end } = await rangeOf({ topic, partition: 0 })
    await under.trim({ topic, partition: 0 }, start + 4n)
    const member = await join([topic], newGroup())
    await member.holds(QUEUE_PARTITIONS)
    const assignment = member.of({ topic, partition: 0 })
    const gone = { code: 'MILLRACE_QUEUE_OFFSET_GONE' }
    await rejects(take(assignment, start, 1), gone)
    await rejects(take(assignment, end + 3n, 1), gone)
    equal(assignment.signal.aborted, false)
    const { start: kept } = await assignment.range()
    await publish({ topic, partition: 0, records: numbered(1, 'after ') })
    const records = await take(assignment, kept, Number(end - kept) + 1)
    equal(keyOf(records.at(-1) as StoredRecord), 'after 0')
  })

  promised('two groups each get every partition', async () => {
    const topic = await newTopic()
    const members = await Promise.all([join([topic], newGroup()), join([topic], newGroup())])
    await Promise.all(members.map((member) => member.holds(QUEUE_PARTITIONS)))
  })

  promised('two members share the partitions, and what one leaves goes to the other, who reads on from any offset', async () => {
    const topic = await newTopic()
    for (let partition = 0; partition < QUEUE_PARTITIONS; partition++)
      await publish({ topic, partition, records: numbered(20, `${partition}: `) })
    const group = newGroup()
    const first = await join([topic], group)
    await first.holds(QUEUE_PARTITIONS)
    const second = await join([topic], group, await reopened())
    await eventually(
      () => {
        const places = [...first.held, ...second.held].map(({ partition }) => partition)
        return first.held.length > 0 && second.held.length > 0 && places.sort().join() === '0,1,2'
      },
      { within: JOINING, what: 'each partition is held by one of two members, and both hold some' },
    )
    const [leaving] = first.held as [Assignment]
    const { start } = await leaving.range()
    const waiting = take(leaving, start, 1_000)
    await first.leave()
    equal(
      first.assigned.every(({ signal }) => signal.aborted),
      true,
    )
    // a reader that waits for more ends with its signal
    assert.ok((await waiting).length <= 20)
    await second.holds(QUEUE_PARTITIONS)
    const taken = second.of(leaving)
    equal((await take(taken, start + 15n, 5)).map(keyOf), numbered(20, `${leaving.partition}: `).map(keyOf).slice(15))
  })

  promised('a member ends with the signal it was given, its assignments first', async () => {
    const topic = await newTopic()
    const member = await join([topic], newGroup())
    await member.holds(QUEUE_PARTITIONS)
    const reading = take(member.of({ topic, partition: 0 }), 0n, 1)
    member.stop.abort()
    await member.ended
    equal(member.held, [])
    equal(await reading, [])
    await member.consumer.close()
    await member.consumer.close()
  })
}

/** One member of a consumer group and what it was assigned. */
class Member {
  readonly consumer: Consumer
  readonly stop: AbortController
  readonly assigned: Assignment[] = []
  readonly ended: Promise<void>

  constructor(consumer: Consumer, stop: AbortController) {
    this.consumer = consumer
    this.stop = stop
    this.ended = (async () => {
      for await (const assignment of consumer) this.assigned.push(assignment)
    })()
    this.ended.catch(() => {})
  }

  /** those that were not taken away */
  get held(): readonly Assignment[] {
    return this.assigned.filter(({ signal }) => !signal.aborted)
  }

  of({ topic, partition }: TopicPartition): Assignment {
    return this.held.find((held) => held.topic === topic && held.partition === partition) as Assignment
  }

  async holds(count: number): Promise<void> {
    await eventually(() => this.held.length === count, { within: JOINING, what: `a member holds ${count} partitions` })
    equal(new Set(this.held.map(({ topic, partition }) => `${topic}/${partition}`)).size, count)
  }

  async leave(): Promise<void> {
    await this.consumer.close()
    await this.ended
  }
}

/** The next records from the offset, in order; fewer when the reading ends before. */
async function take(assignment: Assignment, from: bigint, count: number): Promise<readonly StoredRecord[]> {
  const records: StoredRecord[] = []
  for await (const batch of assignment.read(from)) {
    records.push(...batch)
    if (records.length >= count) break
  }
  return records.slice(0, count)
}

const encoder = new TextEncoder()
const utf8 = (text: string): Uint8Array => encoder.encode(text)

function numbered(count: number, prefix = ''): readonly QueueRecord[] {
  return Array.from({ length: count }, (_, n) => ({
    key: utf8(`${prefix}${n}`),
    value: utf8(`{"n":${n}}`),
    headers: [['n', `${n}`]],
  }))
}

/** a record that weighs exactly so many bytes */
function recordOf(bytes: number): QueueRecord {
  const empty = { key: utf8('large'), value: new Uint8Array(0), headers: [['kind', 'large']] as const }
  return { ...empty, value: randomBytes(bytes - recordBytes(empty)) }
}

const keyOf = ({ key }: { readonly key: Uint8Array | null }): string => Buffer.from(key as Uint8Array).toString()

function textOf({ key, value, headers }: QueueRecord | StoredRecord): object {
  const hex = (bytes: Uint8Array | string | null): string | null => (bytes === null ? null : Buffer.from(bytes).toString('hex'))
  return { key: hex(key), value: hex(value), headers: headers.map(([name, header]) => [name, hex(header)]) }
}

const growing = (records: readonly StoredRecord[]): boolean =>
  records.every(({ offset }, at) => at === 0 || offset > (records[at - 1]?.offset as bigint))

const weight = (records: readonly StoredRecord[]): number =>
  records.reduce((sum, { key, value }) => sum + (key?.length ?? 0) + (value?.length ?? 0), 0)

function commonPrefix(one: string, two: string): string {
  let length = 0
  while (one[length] === two[length]) length++
  return one.slice(0, length)
}

/** bytes, after a full collection */
function memoryInUse(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

async function eventually(check: () => boolean, { what, within = 10_000 }: { what: string; within?: number }): Promise<void> {
  const deadline = performance.now() + within
  while (!check()) {
    if (performance.now() > deadline) assert.fail(`it was expected that ${what} within ${within} ms`)
    await wait(15)
  }
}
