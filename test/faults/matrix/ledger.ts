import { randomUUID } from 'node:crypto'
import type { Committed, Row } from '../workload.ts'

/** An event of a row that writes by itself, in the form of the workload's. */
export interface Written {
  readonly id: string
  readonly key: string
  readonly row: Row
  readonly payload: string
}

/** What a row that writes by itself knows of what it committed: for the same judges. */
export class Ledger {
  readonly #idsByKey = new Map<string, string[]>()
  readonly #ids = new Set<string>()
  readonly #rolledBack = new Set<string>()
  readonly #rows = new Map<string, Row>()
  #count = 0

  /** an event that is not settled yet; `payload` gives it another one than its row's */
  next(key: string, body: string, payload?: (version: string) => string): Written {
    const row = { version: String(++this.#count), body, amount: '1.50' }
    const plain = `{"id":${JSON.stringify(key)},"version":${row.version},"body":${JSON.stringify(body)},"amount":${row.amount}}`
    return { id: randomUUID(), key, row, payload: payload?.(row.version) ?? plain }
  }

  settle(written: readonly Written[], committed = true): void {
    for (const { id, key, row } of written) {
      if (!committed) {
        this.#rolledBack.add(id)
        continue
      }
      this.#ids.add(id)
      const own = this.#idsByKey.get(key)
      if (own === undefined) this.#idsByKey.set(key, [id])
      else own.push(id)
      this.#rows.set(key, row)
    }
  }

  get committed(): Committed {
    return { idsByKey: this.#idsByKey, ids: this.#ids, rolledBack: this.#rolledBack, rows: this.#rows, unknownOutcomes: 0 }
  }
}
