/**
 * The public API of those who test a connector of their own: the contract that the house's connectors are held to, for any
 * test runner. It loads nothing from npm.
 */

export { copiesContract } from './copies-contract.ts'
export { batchOf, type EventSpec, type EventStream, eventStream } from './events.ts'
export { QUEUE_PARTITIONS, type QueueContract, type QueueUnderTest, queueContract } from './queue-contract.ts'
export { type SinkContract, sinkContract } from './sink-contract.ts'
export { type SinkPromises, type SinkUnderTest, UNFIT } from './sink-under-test.ts'
