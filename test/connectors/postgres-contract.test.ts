import { createDatabase } from '../support/database.ts'
import { ORDERS, openSink, topic } from './postgres-fixture.ts'
import { sinkContract, UNFIT } from './sink-contract.ts'

for (const guard of ['column', 'table'] as const)
  sinkContract(
    `postgres, guard: ${guard}`,
    async () => {
      const database = await createDatabase()
      await database.query(guard === 'column' ? ORDERS : ORDERS.replace(', _millrace_position text collate "C"', ''))
      return {
        open: () =>
          openSink({
            url: database.url,
            tables: [{ from: 'order', into: 'orders', key: 'id', guard, on: { Changed: 'upsert', Erased: 'delete' } }],
          }),
        topic,
        types: { write: 'Changed', remove: 'Erased' },
        payload: (id, note) => ({ id, total: 1, note }),
        refusing: async (refused) => {
          await database.query('alter table orders drop constraint if exists fit')
          if (refused) await database.query(`alter table orders add constraint fit check (note <> '${UNFIT}') not valid`)
        },
        unfit: (id) => ({ id, total: 'much', note: '' }),
        rows: async () => new Map((await database.query('select id, note from orders')).rows.map(({ id, note }) => [id, note])),
        damage: async (id, note) => {
          if (note === null) await database.query('delete from orders where id = $1', [id])
          else
            await database.query(
              'insert into orders (id, total, note) values ($1, 1, $2) on conflict (id) do update set note = excluded.note',
              [id, note],
            )
        },
        remove: () => database.drop(),
      }
    },
    { parking: true, copies: true },
  )
