import type { Tap } from '../../support/tcp-proxy.ts'

/** Kafka's wire: requests and answers are frames of a length (i32); a request begins with its api key (i16) and version, and both carry a correlation id (i32). */
export const PRODUCE = 0

/**
 * Lets requests of one kind reach the broker and be answered, and loses the answer: with its connection, or alone. `lost`
 * is asked for each such request.
 */
export function losingAnswers(apiKey: number, lost: () => 'pass' | 'cut' | 'lose'): () => Tap {
  return () => {
    const doomed = new Map<number, 'cut' | 'lose'>()
    const requests = frames((head) => {
      if (head.readInt16BE(4) !== apiKey) return
      const fate = lost()
      if (fate !== 'pass') doomed.set(head.readInt32BE(8), fate)
    }, 12)
    let fate: 'pass' | 'cut' | 'lose' = 'pass'
    const answers = frames((head) => {
      fate = doomed.get(head.readInt32BE(4)) ?? fate
    }, 8)
    return (direction, bytes) => {
      fate = 'pass'
      if (direction === 'to-server') requests(bytes)
      else answers(bytes)
      return fate
    }
  }
}

/** Shows the first bytes of every frame that passes, in pieces of any size. */
function frames(show: (head: Buffer) => void, headBytes: number): (bytes: Buffer) => void {
  let head = Buffer.alloc(0)
  let left = 0
  return (bytes) => {
    let rest = bytes
    while (rest.length > 0) {
      if (left > 0) {
        const skipped = Math.min(left, rest.length)
        rest = rest.subarray(skipped)
        left -= skipped
        continue
      }
      const wanted = headBytes - head.length
      head = Buffer.concat([head, rest.subarray(0, wanted)])
      rest = rest.subarray(wanted)
      if (head.length < headBytes) return
      show(head)
      left = head.readInt32BE(0) + 4 - headBytes
      head = Buffer.alloc(0)
    }
  }
}
