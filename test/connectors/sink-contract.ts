import { afterAll, beforeAll, describe, test } from 'vitest'
import { sinkContract as contract, copiesContract, type SinkPromises, type SinkUnderTest } from '../../src/testing/index.ts'

export { type SinkUnderTest, UNFIT } from '../../src/testing/index.ts'

/** The contract that users get, for a sink of the house: its tests share one store, in which each uses partitions of its own. */
export function sinkContract(name: string, start: () => Promise<SinkUnderTest>, promises: Partial<SinkPromises> = {}): void {
  describe(`the sink contract: ${name}`, () => {
    let under: SinkUnderTest
    beforeAll(async () => {
      under = await start()
    })
    afterAll(() => under?.remove())
    contract({ test, start: async () => ({ ...under, remove: async () => {} }), promises })
    if (promises.copies === true) describe('copies', () => copiesContract({ test, start }))
  })
}
