import type { CompiledQuery, ControlledTransaction, Kysely, Transaction } from 'kysely'
import type pg from 'pg'
import { expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import {
  createOutbox,
  defineEvents,
  type EventOf,
  type FreeEvent,
  type KyselyTransaction,
  type OutboxTransaction,
  type PgTransaction,
  type RawQuery,
  type SqlExecutor,
  type TombstoneOf,
  tombstone,
} from '../../src/outbox/index.ts'

// what is proved here is proved by the compiler: `tsc --noEmit` fails where a line does not hold

interface Tables {
  orders: { id: number }
}

test('the transactions of Kysely and the clients of pg are taken by their structure', () => {
  expectTypeOf<Transaction<Tables>>().toExtend<KyselyTransaction>()
  expectTypeOf<ControlledTransaction<Tables>>().toExtend<KyselyTransaction>()
  expectTypeOf<ControlledTransaction<Tables, ['point']>>().toExtend<OutboxTransaction>()
  expectTypeOf<pg.Client>().toExtend<PgTransaction>()
  expectTypeOf<pg.PoolClient>().toExtend<PgTransaction>()
  expectTypeOf<Omit<pg.PoolClient, 'getTransactionStatus'>>().toExtend<PgTransaction>()
  expectTypeOf<{ executeSql(text: string, values: unknown[]): Promise<void> }>().toExtend<SqlExecutor>()
  expectTypeOf<RawQuery>().toExtend<CompiledQuery>()
})

test('what commits by itself is not taken', () => {
  expectTypeOf<Kysely<Tables>>().not.toExtend<OutboxTransaction>()
  expectTypeOf<pg.Pool>().not.toExtend<OutboxTransaction>()
  expectTypeOf<object>().not.toExtend<OutboxTransaction>()
})

const placed = z.object({ id: z.number(), total: z.string(), note: z.string().default('') })
const paid = z.object({ id: z.number(), paidAt: z.string() })
const shop = defineEvents({
  order: {
    id: (order) => {
      // what every type of the aggregate has, as the schemas give it out
      expectTypeOf(order).toEqualTypeOf<z.output<typeof placed> | z.output<typeof paid>>()
      return order.id
    },
    types: { OrderPlaced: placed, OrderPaid: paid, OrderErased: tombstone },
  },
  customer: {
    id: (customer) => customer.email,
    types: { CustomerMoved: z.object({ email: z.string() }), CustomerErased: tombstone },
  },
})
type Registry = typeof shop extends { readonly registry?: infer R } ? NonNullable<R> : never

test('the payload follows from the type', () => {
  type Events = EventOf<Registry>
  type Tombstones = TombstoneOf<Registry>
  expectTypeOf<Events['type']>().toEqualTypeOf<'OrderPlaced' | 'OrderPaid' | 'CustomerMoved'>()
  expectTypeOf<Tombstones['type']>().toEqualTypeOf<'OrderErased' | 'CustomerErased'>()
  expectTypeOf<{ type: 'OrderPlaced'; payload: { id: number; total: string } }>().toExtend<Events>()
  expectTypeOf<{ type: 'OrderPlaced'; payloadText: string }>().toExtend<Events>()
  expectTypeOf<{ type: 'OrderPaid'; payload: { id: number; total: string } }>().not.toExtend<Events>()
  expectTypeOf<{ type: 'OrderPlaced'; payload: { id: string; total: string } }>().not.toExtend<Events>()
  expectTypeOf<{ type: 'OrderPlaced' }>().not.toExtend<Events>()
  expectTypeOf<{ type: 'OrderErased'; payload: null }>().not.toExtend<Events>()
  expectTypeOf<{ type: 'OrderErased'; aggregateId: bigint }>().toExtend<Tombstones>()
  expectTypeOf<{ type: 'OrderErased' }>().not.toExtend<Tombstones>()
  expectTypeOf<{ type: 'Unheard'; payload: object }>().not.toExtend<Events>()
})

test('without a registry an event names its aggregate', () => {
  expectTypeOf(createOutbox().emit).parameter(1).toEqualTypeOf<FreeEvent>()
  expectTypeOf<{ type: 'Any'; aggregateType: 'order'; aggregateId: bigint; payload: object }>().toExtend<FreeEvent>()
  expectTypeOf<{ type: 'Any'; aggregateId: bigint; payload: object }>().not.toExtend<FreeEvent>()
})
