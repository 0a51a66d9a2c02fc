import { gzipSync, zstdCompressSync } from 'node:zlib'
import { BATCH_OVERHEAD, RequestWriter } from '../../../connectors/queues/kafka/record-batch.ts'
import { BatchEncoder } from '../../../connectors/queues/local/record-batch.ts'
import { position } from '../../../src/core/position.ts'
import type { QueueRecord } from '../../../src/core/queue.ts'
import { toRecord } from '../../../src/core/record.ts'
import type { RelayState } from '../../../src/core/relay-state.ts'
import { encodeState } from '../../../src/core/state-text.ts'
import { SCHEMA } from '../../postgres/outbox-fixture.ts'
import { frame } from '../../postgres/pgoutput-writer.ts'
import { createDatabase } from '../../support/database.ts'

/** What the targets read when nothing is wrong, to be wounded. */

const RECORDS: readonly QueueRecord[] = [1, 2, 3].map((index) =>
  toRecord({
    source: 'shop',
    position: position(1, 0x100n, index),
    prev: index === 1 ? null : position(1, 0x100n, index - 1),
    id: 'b6c5e0a2-0000-4000-8000-000000000000',
    type: 'OrderPlaced',
    key: Buffer.from('42'),
    value: Buffer.from('{"id":42,"total":1.10,"note":"ä"}'),
    headers: [['traceparent', Buffer.from('00-1-2-01')]],
    committedAt: 1_763_727_000_123,
    version: '1',
    orderingKey: index === 2 ? 'customer-7' : null,
    placeholder: null,
  }),
)

export function kafkaBatches(): readonly Buffer[] {
  const codecs = [(plain: Buffer) => plain, gzipSync, null, null, zstdCompressSync] as const
  return codecs.flatMap((compress, codec) => {
    if (compress === null) return []
    const writer = new RequestWriter(64)
    const start = writer.beginBatch()
    RECORDS.forEach((record, delta) => {
      writer.record(record, delta)
    })
    const content = compress(Buffer.from(writer.view().subarray(BATCH_OVERHEAD)))
    writer.length = start + BATCH_OVERHEAD
    writer.raw(content)
    writer.endBatch(start, RECORDS.length, 1_763_727_000_123, codec)
    return [Buffer.from(writer.view())]
  })
}

/** a Fetch answer with every batch in it, and a Produce answer */
export function kafkaAnswers(): readonly Buffer[] {
  const batches = Buffer.concat(kafkaBatches())
  const fetch = new RequestWriter(64)
  fetch.int32(0)
  fetch.int16(0)
  fetch.int32(0)
  fetch.int32(1)
  fetch.string('outbox.event.order')
  fetch.int32(1)
  fetch.int32(0)
  fetch.int16(0)
  for (const offset of [9n, 9n, 0n]) fetch.int64(offset)
  fetch.int32(0)
  fetch.int32(-1)
  fetch.int32(batches.length)
  fetch.raw(batches)
  const produce = new RequestWriter(64)
  produce.int32(1)
  produce.string('outbox.event.order')
  produce.int32(1)
  produce.int32(0)
  produce.int16(0)
  for (const offset of [9n, -1n, 0n]) produce.int64(offset)
  produce.int32(0)
  return [Buffer.from(fetch.view()), Buffer.from(produce.view())]
}

export function localBatches(): readonly Buffer[] {
  const encoder = new BatchEncoder(1_000_000)
  encoder.begin()
  return encoder.encode(RECORDS).map(({ data }) => Buffer.from(data))
}

export function relayStates(): readonly Buffer[] {
  const state: RelayState = {
    streamId: 's-1',
    session: 4,
    source: 'shop',
    slot: 'millrace_shop',
    publication: '16/17',
    epochs: [{ epoch: 1, systemId: '7301', timeline: 1, began: 0n, from: 0n }],
    intent: 0x1_0000_00a0n,
    fingerprint: 'f',
    topics: new Map([
      [
        'outbox.event.order',
        [
          { position: position(1, 9n, 2), offset: 41n },
          { position: null, offset: -1n },
        ],
      ],
    ]),
    copied: { epoch: 1, session: 4, intent: 0x1_0000_00a0n },
    gaps: [{ at: 1, epoch: 2, from: 1n, to: 2n, refill: { published: 1, ambiguous: 0 } }],
    drained: { lsn: 7n, at: 1 },
    floor: position(1, 7n, 0),
  }
  return [Buffer.from(encodeState(state)), Buffer.from(encodeState({ ...state, gaps: [], drained: null, floor: null }))]
}

export function payloads(): readonly Buffer[] {
  return [
    '{"id":42,"total":1.10,"a":{"b":[1,2,{"c":null}]},"constructor":{"name":"x"},"__proto__":{"polluted":true}}',
    `{"a":${'['.repeat(400)}${']'.repeat(400)},"\\u0069d":"\\ud83d\\ude00\\u0000","e":-1.5e+400,"t":true,"f":false}`,
  ].map((text) => Buffer.from(text))
}

/** What a real server sends of real transactions, in the frames of a replication connection. */
export async function replicationStream(): Promise<readonly Buffer[]> {
  const database = await createDatabase('fuzz')
  try {
    await database.query(SCHEMA)
    await database.query('create publication fuzz for table millrace.outbox')
    const slot = `fuzz_${process.pid}_${Date.now()}`
    await database.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [slot])
    for (const payload of ['{"id":1,"total":1.10}', '{"note":"ä"}', 'null'])
      await database.query(
        `select millrace.emit(aggregate_type => 'order', aggregate_id => n::text, type => 'OrderPlaced', payload => $1::json) from generate_series(1, 3) n`,
        [payload],
      )
    await database.query(`select millrace.tombstone(aggregate_type => 'order', aggregate_id => '1', type => 'OrderErased')`)
    const { rows } = await database.query(
      `select lsn - '0/0'::pg_lsn as lsn, data from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', 'fuzz')`,
      [slot],
    )
    const frames = (rows as { lsn: string; data: Buffer }[]).map(({ lsn, data }) => {
      const head = Buffer.alloc(25)
      head[0] = 0x77
      head.writeBigUInt64BE(BigInt(lsn), 1)
      head.writeBigUInt64BE(BigInt(lsn), 9)
      return frame('d', Buffer.concat([head, data]))
    })
    return [Buffer.concat(frames), ...frames]
  } finally {
    await database.drop()
  }
}

export function configs(): readonly Buffer[] {
  return [
    `name: shop
source: { url: "\${env:DATABASE_URL}", tls: { ca: "-----BEGIN" } }
queue: { kind: kafka, brokers: ["b-1:9094"], sasl: { mechanism: scram-sha-512, username: u, password: &p "x" } }
sinks:
  warehouse:
    kind: postgres
    url: *p
    tables:
      - { from: order, into: public.orders, key: id, on: { OrderPlaced: upsert } }
  __proto__: { kind: stdout }
  <<: { constructor: 1 }
http: { port: 0x1f }
log: !!set { ? a }
`,
    '{"name":"shop","__proto__":{"name":"x"},"sinks":{"constructor":{"kind":"stdout"}},"http":false}',
    `name: ${'['.repeat(300)}${']'.repeat(300)}\nlog: |\n  text\n--- \n? [a, b]\n: !!binary "AAA="\n`,
  ].map((text) => Buffer.from(text))
}
