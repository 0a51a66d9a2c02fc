/** A stream of numbers that its seed tells (mulberry32). */
export function dice(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

/** what lengths and counts are worst at being */
const NUMBERS = [0, 1, 2, 3, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]

/** One to eight wounds: flipped bits, lengths that lie, cuts, repeats, and pieces of another message. */
export function mutate(corpus: readonly Uint8Array[], roll: (below: number) => number): Buffer {
  let bytes = Buffer.from(corpus[roll(corpus.length)] as Uint8Array)
  for (let left = 1 + roll(8); left > 0; left--) {
    const at = roll(bytes.length + 1)
    const kind = bytes.length < 4 ? 6 : roll(8)
    if (kind === 0) bytes[at % bytes.length] = (bytes[at % bytes.length] as number) ^ (1 << roll(8))
    else if (kind === 1) bytes[at % bytes.length] = roll(256)
    else if (kind === 2) bytes.writeUInt32BE(NUMBERS[roll(NUMBERS.length)] as number, at % (bytes.length - 3))
    else if (kind === 3) bytes.writeUInt32LE(NUMBERS[roll(NUMBERS.length)] as number, at % (bytes.length - 3))
    else if (kind === 4) bytes = bytes.subarray(0, at)
    else if (kind === 5) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(roll(at + 1))])
    else {
      const other = corpus[roll(corpus.length)] as Uint8Array
      const from = roll(other.length + 1)
      bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(from, from + roll(64)), bytes.subarray(at)])
    }
    if (bytes.length > 1 << 20) bytes = bytes.subarray(0, 1 << 20)
  }
  return bytes
}
