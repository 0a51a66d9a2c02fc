import { describe, expect, test } from 'vitest'
import { position } from '../../src/core/position.ts'
import { statePrefix } from '../../src/core/relay-state.ts'
import {
  automaticName,
  CHECKPOINT_LIMITS,
  checkpointKey,
  checkpointOf,
  checkpointPrefix,
  decodeCheckpoint,
  encodeCheckpoint,
  nameFault,
  outlived,
} from '../../src/core/saved-checkpoint.ts'
import { epoch, state } from './stream.ts'

const HOUR = 3_600_000

test('a checkpoint is the tails of the state, and the position below which all stands up to them', () => {
  const saved = checkpointOf(state, 'noon', 1_795_000_000_000, false)
  expect(saved).toMatchObject({ name: 'noon', source: 'shop', streamId: 's-1', position: position(1, 0x1_0000_00a0n, 0) })
  expect(saved.topics).toEqual(state.topics)
  expect(decodeCheckpoint(checkpointKey('shop', 'noon'), encodeCheckpoint(saved))).toEqual(saved)
})

test('below the switch point of a promoted standby its position is still of the former epoch', () => {
  const promoted = { ...state, epochs: [epoch(1), epoch(2, { timeline: 2, began: 0x2_0000_0000n, from: 0x2_0000_0000n })] }
  expect(checkpointOf(promoted, 'noon', 0, false).position).toBe(position(1, state.intent, 0))
  expect(checkpointOf({ ...promoted, intent: 0x2_0000_0010n }, 'noon', 0, false).position).toBe(position(2, 0x2_0000_0010n, 0))
})

test('no relay takes a checkpoint for a state of its own, whatever its source is called', () => {
  for (const source of ['shop', 'checkpoint']) expect(checkpointPrefix(source).startsWith(statePrefix('checkpoint'))).toBe(false)
  expect(checkpointPrefix('shop').startsWith(checkpointPrefix('sho'))).toBe(false)
})

describe('a name', () => {
  test.each(['noon', '2026-11-20-before-the-move', 'v1.2_3', 'a'.repeat(63)])('%s can be given', (name) => {
    expect(nameFault(name)).toBeNull()
  })
  test.each([
    ['Noon', 'expected'],
    ['', 'expected'],
    ['-a', 'expected'],
    ['a/b', 'expected'],
    ['a b', 'expected'],
    ['a'.repeat(64), 'expected'],
    ['00000001-00000000000010a0-00000002', 'position'],
    ['0193b6e8-4d2c-7c1b-9a67-2f1d8e1b0c11', 'event id'],
    ['2026-11-20', 'time'],
    ['2026-11-20t10', 'time'],
    ['42', 'number'],
    ['auto-noon', 'automatic'],
  ])('%s cannot: it reads as something else', (name, why) => {
    expect(nameFault(name)).toContain(why)
  })
})

test('what is no checkpoint, or stands under another name, is not read as one', () => {
  const text = encodeCheckpoint(checkpointOf(state, 'noon', 0, false))
  const key = checkpointKey('shop', 'noon')
  for (const broken of [
    '',
    '{}',
    text.replace('"format":1', '"format":2'),
    text.replace('"41"', '"4x"'),
    text.replace('s-1"', 's-1'),
  ])
    expect(() => decodeCheckpoint(key, broken)).toThrow(expect.objectContaining({ code: 'MILLRACE_STATE_CONFLICT' }))
  const evil = 'a\u001b[2J'
  expect(() => decodeCheckpoint(checkpointKey('shop', evil), text.replace('noon', JSON.stringify(evil).slice(1, -1)))).toThrow(
    expect.objectContaining({ code: 'MILLRACE_STATE_CONFLICT' }),
  )
  expect(() => decodeCheckpoint(checkpointKey('shop', 'night'), text)).toThrow(
    expect.objectContaining({ code: 'MILLRACE_STATE_CONFLICT' }),
  )
})

describe('automatic checkpoints', () => {
  const at = (hours: number, automatic = true) => ({
    checkpoint: checkpointOf(state, automatic ? automaticName(hours * HOUR) : `c${hours}`, hours * HOUR, automatic),
    bytes: 100,
  })
  const gone = (kept: readonly ReturnType<typeof at>[], keep: number, now: number): readonly number[] =>
    outlived(kept, keep, now).map((checkpoint) => checkpoint.at / HOUR)

  test('are named by their time', () => {
    expect(automaticName(Date.parse('2026-11-21T18:00:05.999Z'))).toBe('auto-20261121t180005z')
  })
  test('go when their time is over; a saved one stays', () => {
    expect(gone([at(1), at(2, false), at(3), at(4)], 1.5 * HOUR, 5 * HOUR)).toEqual([1, 3])
  })
  test('are at most so many, and so many bytes, and the oldest go first', () => {
    const many = Array.from({ length: CHECKPOINT_LIMITS.automatic + 2 }, (_, hour) => at(hour))
    expect(gone(many, 1e6 * HOUR, many.length * HOUR)).toEqual([0, 1])
    const large = [1, 2, 3].map((hour) => ({ ...at(hour), bytes: CHECKPOINT_LIMITS.automaticBytes / 2 }))
    expect(gone(large, 1e6 * HOUR, 4 * HOUR)).toEqual([1])
    expect(gone([{ ...at(1), bytes: CHECKPOINT_LIMITS.automaticBytes * 2 }], 1e6 * HOUR, 4 * HOUR)).toEqual([])
  })
})
