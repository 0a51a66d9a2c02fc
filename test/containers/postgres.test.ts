import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type PostgresContainer, startPostgresContainer } from '../support/postgres-container.ts'
import { requires } from '../support/requires.ts'

requires('docker')('Postgres in a container', () => {
  let postgres: PostgresContainer
  let client: pg.Client
  beforeAll(async () => {
    postgres = await startPostgresContainer()
    client = new pg.Client({ connectionString: postgres.url() })
    await client.connect()
  })
  afterAll(async () => {
    await client?.end()
    await postgres?.remove()
  })

  test('gives a slot the changes of a committed transaction, and none of one that rolled back', async () => {
    await client.query('create table outbox (id int primary key, payload json)')
    await client.query('create publication millrace for table outbox')
    await client.query(`select pg_create_logical_replication_slot('millrace', 'pgoutput')`)
    await client.query(`insert into outbox values (1, '{}')`)
    await client.query('begin')
    await client.query(`insert into outbox values (2, '{}')`)
    await client.query('rollback')

    const { rows } = await client.query<{ kind: string }>(
      `select chr(get_byte(data, 0)) as kind
       from pg_logical_slot_get_binary_changes('millrace', null, null, 'proto_version', '1', 'publication_names', 'millrace')`,
    )
    expect(rows.map(({ kind }) => kind)).toEqual(['B', 'R', 'I', 'C'])
    await client.query(`select pg_drop_replication_slot('millrace')`)
  })

  test('takes its settings from us, so that a suite can ask for what it needs', async () => {
    expect((await client.query(`select current_setting('max_slot_wal_keep_size') as size`)).rows).toEqual([{ size: '1GB' }])
  })
})
