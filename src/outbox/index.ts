/** `millrace/outbox`: the service's side. It loads nothing from npm. */
export {
  type BackfillControl,
  type BackfillDefinition,
  type Backfiller,
  type BackfillModule,
  type BackfillOptions,
  type BackfillProgress,
  defineBackfill,
} from './backfill.ts'
export type { BackfillDatabase, KyselyDatabase, PgClient, PgPool } from './backfill-database.ts'
export type { BackfillSelect } from './backfill-table.ts'
export type * from './events.ts'
export { defineEvents, tombstone } from './events.ts'
export { createOutbox, type FreeEvent, type FreeTombstone, type Outbox } from './outbox.ts'
export type { Statement } from './statement.ts'
export type { KyselyTransaction, OutboxTransaction, PgTransaction, RawQuery, SqlExecutor } from './transaction.ts'
