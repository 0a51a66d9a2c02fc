import pg from 'pg'
import { createPipeline, type MillraceConfig } from '../../../../src/index.ts'
import { eventually } from '../../../support/eventually.ts'
import { topicTemplate } from '../../parts.ts'
import { defineRow, over } from '../row.ts'
import { storm } from '../storm.ts'
import type { Trial } from '../trial.ts'
import { configOf } from '../trial-config.ts'

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f']
const AGGREGATES = ['order', 'parcel'] as const
const EVERYTHING = { from: '2026-01-01T00:00Z' }
const ON = { OrderChanged: 'upsert', OrderErased: 'delete' }

/** one table, fed by the topics of two aggregate types */
const sinksOf = ({ pipeline }: Trial) => ({
  replica: {
    kind: 'postgres',
    url: pipeline.replicaUrl,
    tables: AGGREGATES.map((from) => ({ from, into: 'public.orders', key: 'id', guard: 'column', on: ON })),
  },
})

export const oneKey = defineRow({
  row: '24',
  fault: 'one key is created and deleted by two topics, its row removed behind the sink, and replayed all the while',
  when: 'steady; two topics into one table',
  runs: over([15, 18], ['kafka', 'local']),
  async run(ctx) {
    const trial = await ctx.trial({ quiet: true })
    const sinks = sinksOf(trial)
    const { pipeline, source, replica } = trial
    const fields = { queue: { ...pipeline.queue, topics: { name: topicTemplate(pipeline), partitions: 3 } }, sinks }
    const running = await trial.millrace(['run'], fields)
    const pipelineAt = createPipeline({ ...configOf(pipeline), ...fields } as unknown as MillraceConfig, { logLevel: 'silent' })
    running.finished.then(({ code, stderr }) => {
      if (code !== null && code !== 0) ctx.say(`the pipeline ended: ${stderr.slice(-2_000)}`)
    })

    // the order of a key's events is that of its own transactions: one writer
    const truth = new Map<string, string | null>()
    const writer = new pg.Client({ connectionString: source.directUrl })
    await writer.connect()
    ctx.defer(() => writer.end())
    let version = 0
    const write = async (): Promise<void> => {
      const key = KEYS[ctx.pick(KEYS.length)] as string
      const aggregate = AGGREGATES[ctx.pick(2)] as string
      const gone = ctx.random() < 0.5
      const row = { id: key, version: ++version, body: `${aggregate} ${version}`, amount: 1 }
      if (gone)
        await writer.query("select millrace.tombstone(aggregate_type => $1, aggregate_id => $2, type => 'OrderErased')", [
          aggregate,
          key,
        ])
      else
        await writer.query(
          "select millrace.emit(aggregate_type => $1, aggregate_id => $2, type => 'OrderChanged', payload => $3)",
          [aggregate, key, JSON.stringify(row)],
        )
      truth.set(key, gone ? null : row.body)
    }
    for (let n = 0; n < 40; n++) await write()
    await eventually(async () => (await replica.query('select 1 from millrace.deleted')).rows.length > 0, {
      within: 60_000,
      what: 'the sink to begin',
    })

    let looks = 0
    let replays = 0
    await storm(ctx, ctx.times(10, 40), [
      { every: 8, strike: write },
      {
        every: 60,
        async strike() {
          const { rowCount } = await replica.query('delete from orders where id = $1', [KEYS[ctx.pick(KEYS.length)]])
          ctx.injected(rowCount ?? 0)
        },
      },
      {
        every: 1,
        async strike() {
          const { outcome } = await pipelineAt.replay('replica', EVERYTHING)
          if (outcome !== 'done') throw new Error(`the replay ended as ${outcome}`)
          replays++
        },
      },
      {
        every: 20,
        async strike() {
          looks++
          const { rows } = await replica.query(
            `select o.id, o._millrace_position as row, d.position as marker from orders o
             join millrace.deleted d on d.target = 'public.orders' and d.key like '%' || o.id || '%'
             and d.position >= o._millrace_position`,
          )
          if (rows.length > 0) throw new Error(`I8: a row stands beside its marker: ${JSON.stringify(rows)}`)
        },
      },
    ])
    const last = await pipelineAt.replay('replica', EVERYTHING)
    if (last.rows?.left.length !== 0) throw new Error(`the last replay left something: ${JSON.stringify(last)}`)
    const expected = [...truth].flatMap(([key, body]) => (body === null ? [] : [`${key} ${body}`])).sort()
    await eventually(
      async () => {
        const { rows } = await replica.query('select id, body from orders')
        return JSON.stringify(rows.map(({ id, body }) => `${id} ${body}`).sort()) === JSON.stringify(expected)
      },
      { within: 90_000, what: `the replica shows ${expected.join(', ')}` },
    )
    running.signal('SIGTERM')
    await running.finished
    ctx.judged({ events: version, partitions: 6, duplicates: 0, unknownOutcomes: 0, invariants: ['I7', 'I8'] })
    ctx.checked('no row ever stands beside its delete marker')
    ctx.say(`${replays} replays, ${looks} looks`)
  },
})
