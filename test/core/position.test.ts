import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatLsn, isPosition, parseLsn, parsePosition, position, positionAt, positionPrefix } from '../../src/core/position.ts'

const u32 = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.constantFrom(0, 1, 9, 10, 15, 16, 0xffff_ffff))
const u64 = fc.oneof(
  fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  fc.constantFrom(0n, 0x1_0000_0000n, 0xffff_ff00n, 0x1_0000_001an, 0xffff_ffff_ffff_ffffn),
)
const place = fc.tuple(u32, u64, u32)

function compare([epoch, lsn, index]: readonly [number, bigint, number], other: readonly [number, bigint, number]): number {
  if (epoch !== other[0]) return epoch < other[0] ? -1 : 1
  if (lsn !== other[1]) return lsn < other[1] ? -1 : 1
  return Math.sign(index - other[2])
}

describe('a position', () => {
  test('reads as it is documented', () => {
    expect(position(1, 0x1_a2b3_c4d5n, 7)).toBe('00000001-00000001a2b3c4d5-00000007')
    expect(positionAt(positionPrefix(1, 0x1_a2b3_c4d5n), 7)).toBe(position(1, 0x1_a2b3_c4d5n, 7))
  })

  test('compares as text the way its parts compare as numbers', () => {
    fc.assert(
      fc.property(place, place, (one, other) => {
        const [a, b] = [position(...one), position(...other)]
        expect(a < b ? -1 : a > b ? 1 : 0).toBe(compare(one, other))
        expect(Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b)))).toBe(compare(one, other))
      }),
    )
  })

  test('is read back as it was made', () => {
    fc.assert(
      fc.property(place, ([epoch, commitLsn, index]) => {
        expect(parsePosition(position(epoch, commitLsn, index))).toEqual({ epoch, commitLsn, index })
      }),
    )
  })

  test('is not made of what does not fit', () => {
    for (const [epoch, lsn, index] of [
      [-1, 0n, 0],
      [2 ** 32, 0n, 0],
      [1.5, 0n, 0],
      [0, -1n, 0],
      [0, 1n << 64n, 0],
      [0, 0n, -1],
      [0, 0n, 2 ** 32],
      [0, 0n, Number.NaN],
    ] as const)
      expect(() => position(epoch, lsn, index)).toThrow(RangeError)
  })

  test.each([
    '',
    '00000001-00000001a2b3c4d5-0000000',
    '00000001-00000001a2b3c4d5-000000070',
    '00000001-00000001A2B3C4D5-00000007',
    '00000001 00000001a2b3c4d5 00000007',
    '00000001-00000001a2b3c4d5-00000007\n',
    '0000000g-00000001a2b3c4d5-00000007',
  ])('is not %j', (text) => {
    expect(isPosition(text)).toBe(false)
    expect(() => parsePosition(text)).toThrow(RangeError)
  })

  test.each([null, undefined, 7, {}])('is not %j', (value) => {
    expect(isPosition(value)).toBe(false)
  })
})

describe('an LSN', () => {
  test('is read from and written as Postgres’ text', () => {
    expect(parseLsn('1/1A')).toBe(0x1_0000_001an)
    expect(parseLsn('FFFFFFFF/FFFFFFFF')).toBe(0xffff_ffff_ffff_ffffn)
    expect(formatLsn(0x1_0000_001an)).toBe('1/1A')
    expect(formatLsn(0n)).toBe('0/0')
    fc.assert(
      fc.property(u64, (lsn) => {
        expect(parseLsn(formatLsn(lsn))).toBe(lsn)
      }),
    )
  })

  test.each(['', '1', '1/', '/1', '1/1/1', '123456789/0', '0/123456789', '0/0 ', '0x1/0'])('is not %j', (text) => {
    expect(() => parseLsn(text)).toThrow(RangeError)
  })
})
