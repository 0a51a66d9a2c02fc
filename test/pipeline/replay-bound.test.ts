import { describe, expect, test } from 'vitest'
import { checkpointOf } from '../../src/core/saved-checkpoint.ts'
import { parseBound } from '../../src/pipeline/replay-bound.ts'
import { state } from '../core/stream.ts'

const saved = checkpointOf(state, 'before-the-move', 0, false)
const bound = (text: string) => parseBound(text, [saved])

test('a text is taken for what it can only be', () => {
  expect(bound('before-the-move')).toMatchObject({ kind: 'checkpoint', checkpoint: saved })
  expect(bound('00000001-00000000000010A0-00000002')).toMatchObject({
    kind: 'position',
    position: '00000001-00000000000010a0-00000002',
  })
  expect(bound('16/b374D848')).toMatchObject({ kind: 'lsn', lsn: 0x16_b374d848n })
  expect(bound('0193B6E8-4D2C-7C1B-9A67-2F1D8E1B0C11')).toMatchObject({
    kind: 'event',
    id: '0193b6e8-4d2c-7c1b-9a67-2f1d8e1b0c11',
  })
  expect(bound('event:Order/17')).toMatchObject({ kind: 'event', id: 'Order/17' })
})

test.each([
  ['2026-11-20T10:00Z', '2026-11-20T10:00:00.000Z'],
  ['2026-11-20T10:00:07z', '2026-11-20T10:00:07.000Z'],
  ['2026-11-20T11:30+01:30', '2026-11-20T10:00:00.000Z'],
  ['2026-11-20T05:00:00.5-0500', '2026-11-20T10:00:00.500Z'],
  // as Postgres prints it: what is below a millisecond is cut off, never rounded up
  ['2026-11-20 10:00:00.123987+00', '2026-11-20T10:00:00.123Z'],
  ['2024-02-29T00:00Z', '2024-02-29T00:00:00.000Z'],
])('%s is a time', (text, iso) => {
  expect(bound(text)).toMatchObject({ kind: 'time', time: Date.parse(iso) })
})

describe('what two people could read differently is refused', () => {
  test.each([
    ['2026-11-20T10:00', 'the zone is missing'],
    ['2026-11-20 10:00:00', 'the zone is missing'],
    ['2026-11-20', 'a day has no zone'],
    ['2026-02-29T10:00Z', 'there is no such time'],
    ['2026-11-20T24:00Z', 'there is no such time'],
    ['2026-11-20T10:60Z', 'there is no such time'],
    ['2026-11-20T10:00+19:00', 'there is no such time'],
    ['2026-11-20Tten', 'expected a time such as'],
    ['1/2/3', 'expected an LSN'],
    ['16/g', 'expected an LSN'],
    ['Before', 'expected a checkpoint, a position'],
    ['', 'expected a checkpoint, a position'],
    ['event:', 'expected a checkpoint, a position'],
    ['-1h', 'expected a checkpoint, a position'],
  ])('%s', (text, why) => {
    expect(() => bound(text)).toThrow(
      expect.objectContaining({ code: 'MILLRACE_USAGE', message: expect.stringContaining(why) as string }),
    )
  })

  test('a name that no checkpoint has', () => {
    for (const text of ['before-the-mov', 'auto-20261121t100000z', '42'])
      expect(() => bound(text)).toThrow(
        expect.objectContaining({ code: 'MILLRACE_CHECKPOINT_UNKNOWN', message: `there is no checkpoint ${text}` }),
      )
  })
})
