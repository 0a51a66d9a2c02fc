import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Change } from '../../src/core/change.ts'
import { MillraceError } from '../../src/core/errors.ts'
import { type Position, position } from '../../src/core/position.ts'
import { recordBytes } from '../../src/core/record.ts'
import type { Tail } from '../../src/core/relay-state.ts'
import { createPlan, type PlanRules, planRecords, type Tails, tailsAfter } from '../../src/pipeline/relay-plan.ts'
import { state } from '../core/stream.ts'

const PARTITIONS = 3
const rules: PlanRules = { source: 'shop', topicFor: (type) => `t.${type}`, maxRecordBytes: 10_000 }
const nothing: Tails = new Map([['t.order', Array.from({ length: PARTITIONS }, (): Tail => ({ position: null, offset: -1n }))]])

function change(commit: number, index: number, key: string, fields: Partial<Change> = {}): Change {
  const aggregateId = Buffer.from(key)
  const payload = Buffer.from('{}')
  return {
    position: position(1, BigInt(commit), index),
    committedAt: 0,
    id: `${commit}-${index}`,
    aggregateType: 'order',
    aggregateId,
    type: 'Put',
    payload,
    headers: null,
    orderingKey: null,
    version: '1',
    fault: null,
    bytes: aggregateId.length + payload.length,
    ...fields,
  }
}

/** acknowledged at the ends of the logs that the tails know */
const acknowledge = (tails: Tails, planned: ReturnType<typeof planRecords>): Tails =>
  tailsAfter(
    tails,
    planned,
    planned.batches.map(({ topic, partition }) => (tails.get(topic)?.[partition]?.offset ?? -1n) + 1n),
  )

const header = (headers: readonly (readonly [string, unknown])[], name: string): unknown =>
  headers.find(([key]) => key === name)?.[1] ?? null

const stream = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c', 'd', 'e'), fc.boolean()), { maxLength: 40 }).map((rows) => {
  let commit = 1
  let index = 0
  return rows.map(([key, newTransaction]) => {
    if (newTransaction) [commit, index] = [commit + 1, 0]
    return change(commit, ++index, key)
  })
})

test('wherever sessions end and however often Postgres sends a transaction again, each partition gets each change once, in order, chained', () => {
  fc.assert(
    fc.property(stream, fc.array(fc.tuple(fc.nat(40), fc.nat(40)), { maxLength: 6 }), (changes, deliveries) => {
      let tails = nothing
      const logs = Array.from({ length: PARTITIONS }, (): [Position, unknown][] => [])
      // each delivery begins at or before where the last one ended, as a slot does
      let reached = 0
      for (const [back, count] of [...deliveries, [0, changes.length] as const]) {
        const from = Math.max(0, reached - back)
        const planned = planRecords(rules, tails, changes.slice(from, from + count))
        for (const { partition, records } of planned.batches)
          for (const { headers } of records)
            logs[partition]?.push([header(headers, 'millrace-position') as Position, header(headers, 'millrace-prev')])
        tails = acknowledge(tails, planned)
        reached = Math.max(reached, Math.min(changes.length, from + count))
      }
      const published = logs.flat().map(([at]) => at)
      expect([...published].sort()).toEqual(changes.map((one) => one.position))
      for (const log of logs)
        for (const [i, [at, prev]] of log.entries()) {
          expect(prev).toBe(log[i - 1]?.[0] ?? null)
          expect(i === 0 || at > (log[i - 1]?.[0] as Position)).toBe(true)
        }
    }),
  )
})

test('one partition that is ahead of another holds nothing of the other back', () => {
  const [a1, b1, a2] = [change(1, 1, 'a'), change(1, 2, 'b'), change(2, 1, 'a')]
  const whole = planRecords(rules, nothing, [a1, b1, a2])
  const [first, second] = whole.batches
  expect(first?.partition).not.toBe(second?.partition)
  // only the first partition's part of the request became durable
  const tails = tailsAfter(nothing, { ...whole, batches: whole.batches.slice(0, 1) }, [0n])
  const again = planRecords(rules, tails, [a1, b1, a2])
  expect(again.batches.map(({ partition, records }) => [partition, records.length])).toEqual([[second?.partition, 1]])
})

test('an acknowledgement at or below the one before it means that the log lost its end', () => {
  const first = planRecords(rules, nothing, [change(1, 1, 'a')])
  const tails = tailsAfter(nothing, first, [5n])
  const second = planRecords(rules, tails, [change(2, 1, 'a')])
  for (const base of [0n, 5n])
    expect(() => tailsAfter(tails, second, [base])).toThrow(expect.objectContaining({ code: 'MILLRACE_QUEUE_LOST_END' }))
  expect(
    tailsAfter(tails, second, [6n])
      .get('t.order')
      ?.some(({ offset }) => offset === 6n),
  ).toBe(true)
})

describe('a change that cannot be published whole', () => {
  const fault = new MillraceError('MILLRACE_OUTBOX_ROW_INVALID', 'no type')

  test('keeps its place in the chain, its key and what it is ordered by', () => {
    const order = Buffer.from('group')
    const poison = change(1, 2, 'a', { fault, type: '', orderingKey: order, headers: '{"trace":"1"}' })
    const planned = planRecords(rules, nothing, [
      change(1, 1, 'x', { orderingKey: order }),
      poison,
      change(1, 3, 'y', { orderingKey: order }),
    ])
    expect(planned).toMatchObject({ count: 3, unpublishable: [fault], refused: null })
    const records = planned.batches[0]?.records ?? []
    expect(records[1]).toMatchObject({ key: Buffer.from('a'), value: null })
    expect(records.map(({ headers }) => header(headers, 'millrace-placeholder'))).toEqual([null, fault.code, null])
    expect(records.map(({ headers }) => header(headers, 'millrace-ordering-key'))).toEqual(['group', 'group', 'group'])
    expect(records[1]?.headers.some(([name]) => name === 'trace')).toBe(false)
    expect(header(records[2]?.headers ?? [], 'millrace-prev')).toBe(poison.position)
  })

  test('whose placeholder does not fit either ends the plan before it', () => {
    const huge = 'k'.repeat(rules.maxRecordBytes)
    const planned = planRecords(rules, nothing, [change(1, 1, 'a'), change(1, 2, huge), change(1, 3, 'b')])
    expect(planned).toMatchObject({ count: 1, refused: { code: 'MILLRACE_EVENT_TOO_LARGE' } })
  })

  test('is told by the bytes of its record, at the limit exactly', () => {
    const bytes = (length: number): number => {
      const { batches } = planRecords({ ...rules, maxRecordBytes: 1e6 }, nothing, [
        change(1, 1, 'a', { payload: Buffer.alloc(length), bytes: length + 1 }),
      ])
      return recordBytes(batches[0]?.records[0] as never)
    }
    const fits = rules.maxRecordBytes - bytes(0)
    for (const [length, count] of [
      [fits, 0],
      [fits + 1, 1],
    ] as const)
      expect(
        planRecords(rules, nothing, [change(1, 1, 'a', { payload: Buffer.alloc(length), bytes: length + 1 })]).unpublishable,
      ).toHaveLength(count)
  })
})

test('what was published before a drain is not published again, though its topic or its partition is a new one', () => {
  const before = [change(7, 1, 'a'), change(8, 1, 'b')]
  const after = [change(9, 1, 'a', { aggregateType: 'customer' }), change(9, 2, 'b', { aggregateType: 'customer' })]
  const topics = new Map(nothing)
  const begin = (floor: Position | null) =>
    createPlan({
      source: 'shop',
      topicTemplate: 't.{aggregate_type}',
      maxRecordBytes: () => 10_000,
      state: { ...state, topics, floor },
    })
  const plan = begin(position(1, 9n, 0))
  expect(plan.unknownTopics([...before, ...after])).toEqual(['t.customer'])
  plan.addTopic('t.customer', [{ position: null, offset: -1n }])
  expect(plan.plan([...before, ...after]).batches.map(({ records }) => records.length)).toEqual([2])
  expect(plan.plan(before).count).toBe(0)
  expect(begin(null).plan(before).count).toBe(2)
})
