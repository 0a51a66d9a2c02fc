import type { Parking } from '../../../../src/core/sink.ts'
import { eventually } from '../../../support/eventually.ts'
import { openQueue, openSink, topicOfOrders } from '../../parts.ts'
import { judgeReplica, judgeTopic, STREAM_INVARIANTS } from '../../verdict.ts'
import type { Row as ReplicaRow } from '../../workload.ts'
import { Ledger, type Written } from '../ledger.ts'
import { defineRow, over } from '../row.ts'
import type { Trial } from '../trial.ts'

/** Each kind of event that a sink cannot apply, as fields of its payload. The last can be mended, the others are given up. */
const POISONS: readonly { readonly name: string; readonly fields: string }[] = [
  { name: '\\u0000 in a text', fields: '"body":"a\\u0000b","amount":1,"region":null' },
  { name: 'a lone surrogate', fields: '"body":"a\\ud800b","amount":1,"region":null' },
  { name: 'a text where a number should be', fields: '"body":"b","amount":"much","region":null' },
  { name: 'null where none may be', fields: '"body":null,"amount":1,"region":null' },
  { name: 'larger than the queue takes', fields: `"body":"${'x'.repeat(1_300_000)}","amount":1,"region":null` },
  { name: 'a reference to nothing', fields: '"body":"b","amount":1,"region":"nowhere"' },
]
const KEYS = 300
const BY = { actor: 'the fault matrix', note: null }

export const poison = defineRow({
  row: '15',
  fault:
    'events that cannot be applied: \\u0000, a lone surrogate, a wrong type, a null, over the size limit, a broken reference',
  when: 'one in 1,000',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ quiet: true })
    // as an outbox of somebody else: nothing refuses at the writer
    await trial.source.query('alter table millrace.outbox drop constraint outbox_event')
    await trial.replica.query('create table regions (id text primary key)')
    await trial.replica.query('alter table orders add column region text references regions')
    const relay = trial.relay()
    const applier = trial.applier()

    const ledger = new Ledger()
    const parked = new Map<string, { readonly ids: string[]; readonly shown: ReplicaRow | undefined }>()
    const good = (key: string, body: string): Written =>
      ledger.next(key, body, (version) => `{"id":"${key}","version":${version},"body":"${body}","amount":1.50,"region":null}`)
    const emit = async (written: readonly Written[]): Promise<void> => {
      await insert(trial, written)
      for (const one of written) {
        parked.get(one.key)?.ids.push(one.id)
        ledger.settle([one])
      }
    }
    const sink = await openSink(trial.pipeline)
    ctx.defer(() => sink.close())
    const { parking } = sink
    if (parking === null) throw new Error('the sink parks nothing')
    const anyBut = (key: string | null): string => {
      const other = `o${ctx.pick(KEYS)}`
      return other === key ? anyBut(key) : other
    }
    for (let thousand = 0; thousand < ctx.times(POISONS.length, 2 * POISONS.length); thousand++) {
      const { name, fields } = POISONS[thousand % POISONS.length] as (typeof POISONS)[number]
      await emit(Array.from({ length: 500 }, () => good(anyBut(null), 'body')))
      const key = anyBut(null)
      if (!parked.has(key)) parked.set(key, { ids: [], shown: ledger.committed.rows.get(key) })
      await emit([ledger.next(key, 'poison', (version) => `{"id":"${key}","version":${version},${fields}}`)])
      ctx.injected()
      // a good event right behind it would take its place in one batch, and nobody would be poisoned
      await emit(Array.from({ length: 499 }, () => good(anyBut(key), 'body')))
      await eventually(async () => (await parking.keys(1_000)).length === parked.size, {
        within: 90_000,
        what: `the key of ${name} is parked`,
      })
    }
    // every key ends well
    await emit(Array.from({ length: KEYS }, (_, i) => good(`o${i}`, 'last')))

    const queue = await openQueue(trial.pipeline)
    ctx.defer(() => queue.close())
    const topic = () => judgeTopic(queue, topicOfOrders(trial.pipeline), ledger.committed)
    await eventually(async () => (await topic()).missing === 0, { within: 60_000, what: 'every event is in the topic' })
    const verdict = await topic()
    const { violations } = verdict
    if (violations.length > 0) throw new Error(violations.slice(0, 5).join('\n'))

    const rows = new Map(ledger.committed.rows)
    for (const [key, { shown }] of parked)
      if (shown === undefined) rows.delete(key)
      else rows.set(key, shown)
    const blocked = { ...ledger.committed, rows }
    let differences: readonly string[] = []
    await eventually(
      async () => {
        differences = await judgeReplica(trial.replica.directUrl, blocked)
        return differences.length === 0
      },
      { within: 60_000, what: 'all other keys are equal, and those show what stood before' },
    ).catch((error: Error) => {
      throw new Error(`${error.message}: ${differences.slice(0, 5).join('; ')}\n${applier.output()}`)
    })
    await judgeParked(parking, parked, trial)
    ctx.checked('exactly the poisoned keys are parked, each with its events from the poison on, in order')

    await trial.replica.query("insert into regions values ('nowhere')")
    for (const key of await parking.keys(1_000)) {
      let { remaining } = await parking.redrive(key, BY)
      while (remaining > 0) {
        const [first] = await parking.events(key, 1)
        if (first === undefined) throw new Error(`${key.order} has ${remaining} events and none`)
        ;({ remaining } = await parking.skip(key, first.event.position, BY))
      }
    }
    await eventually(async () => (await judgeReplica(trial.replica.directUrl, ledger.committed)).length === 0, {
      within: 90_000,
      what: 'the replica is equal after redrive and skip',
    })
    ctx.judged({ ...verdict, events: ledger.committed.ids.size, unknownOutcomes: 0, invariants: STREAM_INVARIANTS })
    for (const process of [relay, applier]) if (!process.alive) throw new Error(`it ended:\n${process.output()}`)
    ctx.checked('after redrive (where it was mended) and skip the replica is equal')
  },
})

async function judgeParked(
  parking: Parking,
  wanted: ReadonlyMap<string, { readonly ids: readonly string[] }>,
  trial: Trial,
): Promise<void> {
  for (const key of await parking.keys(1_000)) {
    const ids = (await parking.events(key, 10_000)).map(({ event }) => event.id)
    const expected = wanted.get(key.order.slice(trial.pipeline.name.length + 1))?.ids
    if (ids.join() !== expected?.join())
      throw new Error(`${key.order} holds ${ids.length} events, and ${expected?.length ?? 'none'} should wait there`)
    if (key.reason.message === '' || key.reason.code === '') throw new Error(`${key.order} does not say why it is parked`)
  }
}

async function insert(trial: Trial, written: readonly Written[]): Promise<void> {
  await trial.source.query(
    `insert into millrace.outbox (id, aggregate_type, aggregate_id, type, payload)
     select id, 'order', key, 'OrderChanged', payload::json
     from unnest($1::uuid[], $2::text[], $3::text[]) with ordinality as e(id, key, payload, n) order by n`,
    [written.map(({ id }) => id), written.map(({ key }) => key), written.map(({ payload }) => payload)],
  )
}
