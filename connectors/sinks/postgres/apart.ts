import pg from 'pg'
import { orderOf } from '../../../src/core/event.ts'
import type { ParkedEvent } from '../../../src/core/sink.ts'
import { faultOf, said } from './failure.ts'
import type { Parker } from './park.ts'
import { asciiJson, digestOf } from './parked-event.ts'
import { keyRow, type Planning } from './plan.ts'
import { keyAsText, named } from './statements.ts'

/**
 * What a copy's lane does with events that are parked: it keeps which rows they are about, and not the events. Those rows
 * are left alone. An event whose row cannot be told is kept by its position: should it be redriven, its row will show that.
 */
export function openApart(pool: pg.Pool, schema: string, planning: Planning): Parker {
  const s = pg.escapeIdentifier(schema)
  const { sink } = planning
  const waits = named(`insert into ${s}.parked (sink, topic, partition, digest, "order", position, reason, events, bytes)
select $1, $2, $3::int, decode(r.digest, 'base64'), r."order"::json, r.position, '{}', 0, 0
from json_to_recordset($4::json) as r(digest text, "order" text, position text)
on conflict do nothing`)
  const apart = named(`insert into ${s}.apart (sink, target, key, position)
select $1, r.target, r.key, r.position from json_to_recordset($2::json) as r(target text, key text, position text)
on conflict do nothing`)

  /** the keys of the rows, in the order of the events; null: it has none of the column's type */
  async function keysOf(index: number, rows: readonly (Buffer | null)[]): Promise<readonly (string | null)[]> {
    const { feed } = planning.feeds[index] as Planning['feeds'][number]
    const keys = feed.columns.flatMap((column, at) =>
      column.inKey ? [{ name: at === feed.aggregateKey ? 'k' : String(at), type: column.type }] : [],
    )
    const text = `select ${keyAsText(keys.map(({ name }) => `"${name}"::text`))} as key from json_to_recordset($1::json) as r(${keys.map(({ name, type }) => `"${name}" ${type}`).join(', ')})`
    const read = async (list: readonly Buffer[]): Promise<readonly (string | null)[]> => {
      const { rows: found } = await pool.query<{ key: string | null }>(text, [
        `[${list.map((row) => row.subarray(1, -1).toString()).join(',')}]`,
      ])
      return found.map(({ key }) => key)
    }
    const known = rows.filter((row) => row !== null)
    try {
      const found = known.length === 0 ? [] : await read(known)
      let next = 0
      return rows.map((row) => (row === null ? null : (found[next++] as string | null)))
    } catch (error) {
      if (faultOf(said(error)) !== 'data') throw error
      if (rows.length === 1) return [null]
      const each: (string | null)[] = []
      for (const row of rows) each.push(...(await keysOf(index, [row])))
      return each
    }
  }

  return {
    async statements({ topic, partition }, parked) {
      const orders = new Map<string, ParkedEvent>()
      for (const one of parked) {
        const order = orderOf(one.event)
        if (!orders.has(order)) orders.set(order, one)
      }
      const waiting = [...orders].map(([order, { event }]) => ({
        digest: digestOf(order).toString('base64'),
        order: asciiJson(order),
        position: event.position,
      }))
      const rows: { target: string; key: string | null; position: string }[] = []
      for (const [index, { feed }] of planning.feeds.entries()) {
        const own = parked.filter(({ event }) => feed.operations.get(event.type) !== 'ignore')
        const keys = await keysOf(
          index,
          own.map(({ event }) => keyRow(planning, feed, event)),
        )
        for (const [at, { event }] of own.entries())
          rows.push({ target: feed.target.name, key: keys[at] ?? null, position: event.position })
      }
      return [
        { ...waits, values: [sink, topic, String(partition), JSON.stringify(waiting)] },
        { ...apart, values: [sink, JSON.stringify(rows)] },
      ]
    },
    // no events are kept, so there is nothing that could be too much
    full: null,
  }
}
