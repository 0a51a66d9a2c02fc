import { openCodecs } from '../../../connectors/queues/kafka/codecs.ts'
import { crc32c } from '../../../connectors/queues/kafka/crc32c.ts'
import { decodeFetch } from '../../../connectors/queues/kafka/fetch.ts'
import { decodeProduce } from '../../../connectors/queues/kafka/produce.ts'
import { ATTRIBUTES_AT, CRC_AT } from '../../../connectors/queues/kafka/record-batch.ts'
import { offsetAfter, RecordReader } from '../../../connectors/queues/kafka/record-reader.ts'
import { decodeBatch } from '../../../connectors/queues/local/record-batch.ts'
import { payloadReader } from '../../../connectors/sinks/postgres/payload.ts'
import type { Epoch } from '../../../src/core/epoch.ts'
import { MillraceError } from '../../../src/core/errors.ts'
import { murmur2 } from '../../../src/core/murmur2.ts'
import { fromRecord } from '../../../src/core/record.ts'
import { decodeState } from '../../../src/core/state-text.ts'
import { Capture } from '../../../src/postgres/capture.ts'
import { ChangeBuffer } from '../../../src/postgres/change-buffer.ts'
import { FrameReader } from '../../../src/postgres/frames.ts'
import { DEFAULT_OUTBOX } from '../../../src/postgres/options.ts'
import { OutboxRows } from '../../../src/postgres/outbox-row.ts'
import { parseYaml } from '../../../src/runtime/config-file.ts'
import { parseConfig } from '../../../src/runtime/config-schema.ts'
import { Secrets } from '../../../src/runtime/secrets.ts'

const TABLE = { schema: 'millrace', name: 'outbox' }
const EPOCH: Epoch = { epoch: 1, systemId: '1', timeline: 1, began: 0n, from: 0n }
const codecs = await openCodecs('none')
const reader = payloadReader([['id'], ['__proto__'], ['constructor', 'name'], ['a', 'b'], ['a']])

/** What reads bytes that somebody else wrote, each in the way that it is called. */
export const TARGETS = {
  replication(bytes: Buffer): void {
    const buffer = new ChangeBuffer()
    const capture = new Capture(new OutboxRows(TABLE, DEFAULT_OUTBOX.columns), buffer, () => {})
    capture.countEpochs([EPOCH])
    const frames = new FrameReader({ copyData: (chunk, start, end) => capture.message(chunk, start, end), message() {} })
    const half = bytes.length >> 1
    frames.push(bytes.subarray(0, half))
    frames.push(bytes.subarray(half))
    buffer.take({ maxChanges: 1e6, maxBytes: 1e9 })
  },

  kafkaAnswers(bytes: Buffer): void {
    for (const decode of [decodeFetch, decodeProduce]) orRange(() => decode(bytes))
  },

  /** as they are, and with their checksum made right: who writes to the topic makes it so */
  async kafkaRecords(bytes: Buffer): Promise<void> {
    await eachRecord(bytes).catch(ofOurs)
    for (let at = 0; at + 61 <= bytes.length; ) {
      const end = at + 12 + bytes.readInt32BE(at + 8)
      if (end < at + 61 || end > bytes.length) break
      bytes.writeUInt32BE(crc32c(bytes, at + ATTRIBUTES_AT, end), at + CRC_AT)
      at = end
    }
    await eachRecord(bytes)
  },

  localBatch(bytes: Buffer): void {
    orRange(() => {
      for (const record of decodeBatch({ base: 0, count: 3, timestamp: 0, data: bytes }, 0, 1e9)) fromRecord(record)
    })
  },

  /** with its check made right as well: whoever alters it by hand may know how */
  relayState(bytes: Buffer): void {
    const json = bytes.toString().slice(9)
    const check = (murmur2(Buffer.from(json)) >>> 0).toString(16).padStart(8, '0')
    decodeState(`${check} ${json}`)
  },

  payload(bytes: Buffer): void {
    try {
      reader.read(bytes)
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      if (error.message.length > 200) throw new Error(`quotes what it read: ${error.message}`)
      throw new MillraceError('MILLRACE_EVENT_REJECTED', error.message)
    }
  },

  /** as far as a config goes before a connector is asked */
  config(bytes: Buffer): void {
    const raw = parseYaml(bytes.toString(), 'millrace.yaml')
    const context = { env: {}, folder: '/nowhere', secrets: new Secrets() }
    parseConfig(raw, 'millrace.yaml', context)
  },
} satisfies Readonly<Record<string, (bytes: Buffer) => void | Promise<void>>>

export type Target = keyof typeof TARGETS

async function eachRecord(bytes: Buffer): Promise<void> {
  const records = new RecordReader(bytes, codecs, 0n, 2n ** 62n)
  for (let batch = await records.next(1e6); batch; batch = await records.next(1e6)) for (const record of batch) fromRecord(record)
  offsetAfter(bytes, 0n)
}

function ofOurs(error: unknown): void {
  if (!(error instanceof MillraceError)) throw error
}

/** their callers say whose answer, or which file, it was that did not hold what it said */
function orRange(work: () => void): void {
  try {
    work()
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new MillraceError('MILLRACE_STREAM_INVALID', error.message)
  }
}
