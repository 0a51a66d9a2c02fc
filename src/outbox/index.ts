export type {
  Aggregate,
  AggregateId,
  AggregateTypes,
  EventDefinition,
  EventOf,
  EventOptions,
  Events,
  EventTypes,
  Payload,
  PayloadOf,
  StandardSchema,
  Tombstone,
  TombstoneOf,
} from './events.ts'
export { defineEvents, tombstone } from './events.ts'
export { createOutbox, type FreeEvent, type FreeTombstone, type Outbox } from './outbox.ts'
export type { Statement } from './statement.ts'
export type { KyselyTransaction, OutboxTransaction, PgTransaction, RawQuery, SqlExecutor } from './transaction.ts'
