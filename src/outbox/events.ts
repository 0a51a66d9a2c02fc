/** `millrace/events`: for the package that writers and readers share. It imports no database. */
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
} from './registry.ts'
export { defineEvents, tombstone } from './registry.ts'
