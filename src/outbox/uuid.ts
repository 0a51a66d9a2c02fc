const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

let lastMs = 0
let sequence = 0

/**
 * A UUID of version 7 (RFC 9562): 48 bits of Unix time in ms, a 12-bit counter within the ms, 62 random bits. Those of
 * one process grow, so that inserts stay at the right edge of the outbox's index.
 */
export function newId(now: number = Date.now()): string {
  // a clock that was set back, or a counter that is full, borrows from the ms to come
  if (now > lastMs) {
    lastMs = now
    sequence = 0
  } else if (++sequence > 0xfff) {
    lastMs++
    sequence = 0
  }
  const random = crypto.getRandomValues(new Uint8Array(8))
  const time = lastMs.toString(16).padStart(12, '0')
  const hex = (at: number): string => HEX[random[at] as number] as string
  const variant = HEX[((random[0] as number) & 0x3f) | 0x80] as string
  return `${time.slice(0, 8)}-${time.slice(8)}-7${sequence.toString(16).padStart(3, '0')}-${variant}${hex(1)}-${hex(2)}${hex(3)}${hex(4)}${hex(5)}${hex(6)}${hex(7)}`
}
