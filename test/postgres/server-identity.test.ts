import { expect, test } from 'vitest'
import { parseHistory } from '../../src/postgres/server-identity.ts'
import { createDatabase } from '../support/database.ts'
import { sourceOn } from './outbox-fixture.ts'

test('a history file tells each former timeline and where it was left', () => {
  expect(parseHistory('')).toEqual([])
  expect(parseHistory('1\t0/1769648\tno recovery target specified\n')).toEqual([{ timeline: 1, end: 0x176_9648n }])
  expect(parseHistory('# by hand\n1\t0/5000000\tat restore point "x"\n\n 3  1/FFFFFFFF\n')).toEqual([
    { timeline: 1, end: 0x500_0000n },
    { timeline: 3, end: 0x1_ffff_ffffn },
  ])
  for (const damaged of ['1', '1\t', 'x\t0/1', '1\t5', '1\t0/123456789', '<html>'])
    expect(() => parseHistory(damaged), damaged).toThrow(expect.objectContaining({ code: 'MILLRACE_STREAM_INVALID' }))
})

test('a server says who it is without a slot', async () => {
  const database = await createDatabase()
  try {
    const { rows } = await database.query('select system_identifier::text as id from pg_control_system()')
    const identity = await sourceOn(database.url).identify()
    expect(identity).toMatchObject({ systemId: rows[0].id, timeline: 1, history: [] })
    expect(identity.walEnd).toBeGreaterThan(0n)
  } finally {
    await database.drop()
  }
})
