import { expect, test } from 'vitest'
import { CODES } from '../../src/core/errors.ts'
import { formatLsn, parseLsn, parsePosition, position } from '../../src/core/position.ts'
import { HEADER } from '../../src/core/record.ts'
import { DEFAULT_TOPIC } from '../../src/core/topic-template.ts'
import { DEFAULT_OUTBOX, settle } from '../../src/postgres/options.ts'
import { fingerprint } from '../../src/runtime/fingerprint.ts'

/** What users, their dashboards and their data depend on. A change here breaks somebody: think twice, then write it into the CHANGELOG. */

test('the text of a position', () => {
  expect(position(1, parseLsn('16/B374D848'), 10)).toBe('00000001-00000016b374d848-0000000a')
  expect(parsePosition('00000001-00000016b374d848-0000000a')).toEqual({ epoch: 1, commitLsn: 0x16_b374_d848n, index: 10 })
  expect(formatLsn(0x16_b374_d848n)).toBe('16/B374D848')
})

test('what a name becomes in the database', () => {
  expect(settle({ name: 'shop', url: 'postgres://h/d' })).toMatchObject({
    slot: 'millrace_shop',
    publication: 'millrace_shop',
    table: { schema: 'millrace', name: 'outbox' },
  })
})

test('the columns of the outbox', () => {
  expect(DEFAULT_OUTBOX.columns).toEqual({
    id: 'id',
    aggregateType: 'aggregate_type',
    aggregateId: 'aggregate_id',
    type: 'type',
    payload: 'payload',
    headers: 'headers',
    orderingKey: 'ordering_key',
    version: 'version',
  })
})

test('topics and headers', () => {
  expect(DEFAULT_TOPIC).toBe('outbox.event.{aggregate_type}')
  expect(HEADER).toEqual({
    id: 'id',
    type: 'type',
    source: 'millrace-source',
    position: 'millrace-position',
    prev: 'millrace-prev',
    committedAt: 'millrace-committed-at',
    format: 'millrace-format',
    version: 'schema-version',
    orderingKey: 'millrace-ordering-key',
    placeholder: 'millrace-placeholder',
  })
})

test('the fingerprint of a stream: a change would halt every relay there is', () => {
  expect(fingerprint({ ...DEFAULT_OUTBOX, topicTemplate: DEFAULT_TOPIC })).toMatchInlineSnapshot(`"58cf999ff4fa1f33"`)
  const { columns } = DEFAULT_OUTBOX
  const reordered = Object.fromEntries(Object.entries(columns).reverse())
  expect(fingerprint({ ...DEFAULT_OUTBOX, columns: reordered, topicTemplate: DEFAULT_TOPIC })).toBe(
    fingerprint({ ...DEFAULT_OUTBOX, topicTemplate: DEFAULT_TOPIC }),
  )
  const others = [
    { ...DEFAULT_OUTBOX, table: 'public.outbox', topicTemplate: DEFAULT_TOPIC },
    { ...DEFAULT_OUTBOX, columns: { ...columns, orderingKey: null }, topicTemplate: DEFAULT_TOPIC },
    { ...DEFAULT_OUTBOX, topicTemplate: 'events' },
  ].map(fingerprint)
  expect(new Set([fingerprint({ ...DEFAULT_OUTBOX, topicTemplate: DEFAULT_TOPIC }), ...others]).size).toBe(4)
})

test('error codes are never renamed', () => {
  expect(CODES).toMatchSnapshot()
})
