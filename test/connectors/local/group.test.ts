import fc from 'fast-check'
import { expect, test } from 'vitest'
import { share } from '../../../connectors/queues/local/group.ts'

const partition = (id: number, topic: string) => ({ id, topic })
const member = (id: string, ...topics: string[]) => ({ id, topics: new Set(topics) })

test('partitions are shared evenly among members of equal wishes', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 1, max: 10 }), (partitions, members) => {
      const shares = share(
        Array.from({ length: partitions }, (_, id) => partition(id, `topic-${id % 3}`)),
        Array.from({ length: members }, (_, id) => member(`${id}`, 'topic-0', 'topic-1', 'topic-2')),
      )
      expect(shares.size).toBe(partitions)
      const counts = Array.from(
        { length: members },
        (_, id) => [...shares.values()].filter((holder) => holder === `${id}`).length,
      )
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
    }),
  )
})

test('a partition goes to a member that wants its topic, or to nobody', () => {
  const shares = share(
    [partition(1, 'orders'), partition(2, 'orders'), partition(3, 'customers'), partition(4, 'nobody’s')],
    [member('a', 'orders', 'customers'), member('b', 'customers')],
  )
  expect(shares).toEqual(
    new Map([
      [1, 'a'],
      [2, 'a'],
      [3, 'b'],
    ]),
  )
})
