import pg from 'pg'
import { MillraceError } from '../../../src/core/errors.ts'
import { orderOf } from '../../../src/core/event.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { ParkedEvent, ParkReason } from '../../../src/core/sink.ts'
import type { PostgresSinkSettings } from './options.ts'
import { asciiJson, base64, digestOf, encodeEvent, parkedBytes } from './parked-event.ts'
import type { Statement } from './transaction.ts'

/** How a lane parks events, in the transaction that moves its checkpoint past them. */
export interface Parker {
  /** of a lane's transaction, after its checkpoint is locked; where there are limits, the last of them is {@link CHECK_LIMITS} */
  statements(partition: TopicPartition, parked: readonly ParkedEvent[]): Promise<readonly Statement[]>
  /** MILLRACE_PARKING_FULL, with what fills it; null: there are no limits */
  readonly full: ((partition: TopicPartition, parked: readonly ParkedEvent[]) => Promise<MillraceError>) | null
}

export type ParkingLimits = Exclude<PostgresSinkSettings['parking'], false>

/** Fails by a logarithm of zero when more is parked than may be. Keys that another partition parks meanwhile are not seen. */
export const CHECK_LIMITS = 'millrace_check_parked'

export function openParker(pool: pg.Pool, schema: string, sink: string, limits: ParkingLimits): Parker {
  const s = pg.escapeIdentifier(schema)
  const park = parkSql(s)
  const check = `select ln(case when count(*) > $2::bigint or sum(bytes) > $3::numeric then 0 else 1 end) from ${s}.parked where sink = $1`

  return {
    statements: async ({ topic, partition }, parked) => [
      { name: 'millrace_park', text: park, values: [sink, topic, String(partition), rowsOf(parked)] },
      { name: CHECK_LIMITS, text: check, values: [sink, String(limits.maxKeys), String(limits.maxBytes)] },
    ],

    async full({ topic, partition }, parked) {
      const { rows } = await pool.query<StoredKey>(
        `select digest, reason::text, events, bytes from ${s}.parked where sink = $1 order by parked_at`,
        [sink],
      )
      const known = new Set(rows.map(({ digest }) => digest.toString('hex')))
      const fresh = parked.flatMap(({ event, reason }) =>
        reason === null || known.has(digestOf(orderOf(event)).toString('hex')) ? [] : [reason],
      )
      const reasons = [...rows.map(({ reason }) => JSON.parse(reason) as ParkReason), ...fresh]
      const [code, most] = [...Map.groupBy(reasons, (reason) => reason.code)].sort((a, b) => b[1].length - a[1].length)[0] ?? [
        'MILLRACE_INTERNAL',
        [],
      ]
      const bytes = rows.reduce((sum, row) => sum + Number(row.bytes), 0)
      const events = rows.reduce((sum, row) => sum + Number(row.events), 0)
      return new MillraceError(
        'MILLRACE_PARKING_FULL',
        `the sink ${sink} parks no more: ${rows.length} of at most ${limits.maxKeys} keys wait, with ${events} events of ${bytes} of at most ${limits.maxBytes} bytes, and ${topic}/${partition} has ${fresh.length} keys and ${parked.length} events more. ` +
          `${most.length} of the ${reasons.length} keys wait for ${code}, the latest because ${most.at(-1)?.message}`,
        {
          remedy: `so many at once are seldom the events' fault: look for a column that was dropped, a type or a constraint that was changed. Then millrace parked redrive ${sink} --all, and start again. If they are meant to wait, raise parking.maxKeys or parking.maxBytes of the sink`,
          fields: { sink, topic, partition, keys: rows.length, events, bytes, code, keysOfCode: most.length },
        },
      )
    },
  }
}

interface StoredKey {
  readonly digest: Buffer
  readonly reason: string
  readonly events: string
  readonly bytes: string
}

/** What goes into columns of type json is text within this JSON: as JSON in it, an escape such as \u0000 would be decoded. */
function rowsOf(parked: readonly ParkedEvent[]): string {
  const rows = parked.map(({ event, offset, reason }) => {
    const order = orderOf(event)
    return {
      digest: digestOf(order).toString('base64'),
      order: asciiJson(order),
      position: event.position,
      offset: String(offset),
      event: encodeEvent(event),
      value: event.value === null ? null : base64(event.value),
      reason: reason === null ? null : asciiJson(reason),
      bytes: parkedBytes(event),
    }
  })
  return JSON.stringify(rows)
}

/** An event that is parked already stays as it is: a sink whose checkpoint was taken back by a person meets it again. */
function parkSql(s: string): string {
  return `with e as materialized (
  select decode(r.digest, 'base64') as digest, r."order", r.position, r."offset", r.event, decode(r.value, 'base64') as value, r.reason, r.bytes
  from json_to_recordset($4::json) as r(digest text, "order" text, position text, "offset" bigint, event text, value text, reason text, bytes bigint)
), stored as (
  insert into ${s}.parked_event (sink, topic, partition, digest, position, "offset", event, value, reason, bytes)
  select $1, $2, $3::int, digest, position, "offset", event::json, value, reason::json, bytes from e
  on conflict do nothing
  returning digest, bytes
), own as (
  select digest, count(*) as events, sum(bytes) as bytes from stored group by digest
), grown as (
  update ${s}.parked p set events = p.events + own.events, bytes = p.bytes + own.bytes
  from own where p.sink = $1 and p.topic = $2 and p.partition = $3::int and p.digest = own.digest
  returning p.digest
)
insert into ${s}.parked (sink, topic, partition, digest, "order", position, reason, events, bytes)
select distinct on (e.digest) $1, $2, $3::int, e.digest, e."order"::json, e.position, e.reason::json, own.events, own.bytes
from e join own on own.digest = e.digest
where not exists (select from grown where grown.digest = e.digest)
order by e.digest, e.position collate "C"`
}
