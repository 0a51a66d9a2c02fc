/** A process that uses the local queue as `argv` says, and tells what it does in lines of JSON. */

import { localOptions } from '../../../connectors/queues/local/options.ts'
import local from '../../../connectors/queues/local.ts'
import type { Log } from '../../../src/core/connector.ts'

const { path, role, topic, name } = JSON.parse(process.argv[2] as string) as QueueProcessOptions

export interface QueueProcessOptions {
  readonly path: string
  /** `publish`: runs of 7 records to partition 0, without end; `consume`: joins the group `group` and follows what it gets */
  readonly role: 'publish' | 'consume'
  readonly topic: string
  readonly name: string
}

export type Said =
  | { readonly acknowledged: string; readonly run: string }
  | { readonly assigned: number }
  | { readonly revoked: number }
  | { readonly record: string; readonly partition: number }

const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent }
const say = (said: Said): void => void process.stdout.write(`${JSON.stringify(said)}\n`)
const queue = await local.open(localOptions.parse({ path }), { log: silent, pipeline: 'shop', now: Date.now })

if (role === 'publish') {
  const publisher = await queue.publisher()
  for (let n = 0; ; n++) {
    const run = `${name}/${n}`
    const records = Array.from({ length: 7 }, () => ({ key: Buffer.from(run), value: Buffer.alloc(700, 'x'), headers: [] }))
    const [base] = await publisher.publish([{ topic, partition: 0, records }])
    say({ acknowledged: String(base), run })
  }
}
const consumer = await queue.consume({ group: 'group', topics: [topic], clientId: name, signal: new AbortController().signal })
for await (const assignment of consumer) {
  const { partition, signal } = assignment
  say({ assigned: partition })
  signal.addEventListener('abort', () => say({ revoked: partition }))
  void (async () => {
    for await (const records of assignment.read((await assignment.range()).start))
      for (const { key } of records) say({ record: Buffer.from(key as Uint8Array).toString(), partition })
  })()
}
