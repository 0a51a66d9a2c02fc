/**
 * Reads the fields of an answer in Kafka's classic encoding, one after the other.
 * @throws RangeError where a length leads out of the answer: none is trusted, and none leads backwards
 */
export class WireReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  int16(): number {
    this.#at += 2
    return this.#bytes.readInt16BE(this.#at - 2)
  }

  int32(): number {
    this.#at += 4
    return this.#bytes.readInt32BE(this.#at - 4)
  }

  int64(): bigint {
    this.#at += 8
    return this.#bytes.readBigInt64BE(this.#at - 8)
  }

  string(): string {
    const length = this.int16()
    const start = this.#advance(length)
    return this.#bytes.toString('utf8', start, start + length)
  }

  /** a view; empty for null */
  bytes(): Buffer {
    const length = Math.max(0, this.int32())
    const start = this.#advance(length)
    return this.#bytes.subarray(start, start + length)
  }

  /** a null array is an empty one */
  array<Item>(item: () => Item): Item[] {
    const items: Item[] = []
    for (let left = this.int32(); left > 0; left--) items.push(item())
    return items
  }

  skip(bytes: number): void {
    this.#advance(bytes)
  }

  /** @returns where the bytes begin */
  #advance(bytes: number): number {
    const start = this.#at
    if (bytes < 0 || bytes > this.#bytes.length - start) throw new RangeError(`${bytes} bytes at ${start} are not in the answer`)
    this.#at = start + bytes
    return start
  }
}
