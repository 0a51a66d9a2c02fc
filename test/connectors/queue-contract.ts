import { afterAll, beforeAll, describe, test } from 'vitest'
import { queueContract as contract, type QueueUnderTest } from '../../src/testing/index.ts'

export { QUEUE_PARTITIONS as PARTITIONS } from '../../src/testing/index.ts'

/** The contract that users get, for a queue of the house: its tests share one, in which each uses topics of its own. */
export function queueContract(name: string, start: () => Promise<QueueUnderTest>): void {
  describe(`${name} holds to the contract of queues`, () => {
    let under: QueueUnderTest
    beforeAll(async () => {
      under = await start()
    })
    afterAll(() => under?.remove())
    contract({ test, start: async () => ({ ...under, remove: async () => {} }) })
  })
}
