import pg from 'pg'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Event } from '../../../src/core/event.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { Lane, LaneBatch } from '../../../src/core/sink.ts'
import { type Bookkeeping, type Claim, fenced } from './bookkeeping.ts'
import { type Fault, faultOf, type Said, STATE_MEANS, said, sinkError } from './failure.ts'
import { misfit } from './misfit.ts'
import { eventFields, type Planning, planEvents, rejected } from './plan.ts'
import { inOneTransaction, type Statement, StatementFailure } from './transaction.ts'

export interface LaneDeps {
  readonly pool: pg.Pool
  readonly bookkeeping: Bookkeeping
  readonly schema: string
  readonly planning: Planning
  /** @throws MILLRACE_SOURCE_REFUSED when a table that the events feed belongs to another source */
  readonly admit: (events: readonly Event[]) => Promise<void>
  /** after a batch was applied */
  readonly applied: () => void
}

/** deadlocks and serialization failures of one batch, before it is left to the applier's backoff */
const MAX_ATTEMPTS = 5

export function openLane(deps: LaneDeps, claimed: Claim): Lane {
  const { bookkeeping, planning, schema, pool } = deps
  const { partition } = planning
  const move = moveSql(schema)
  const lock = lockSql(schema)
  const sharedTargets = [...new Set(planning.feeds.flatMap(({ feed }) => (feed.target.shared ? [feed.target.name] : [])))].sort()
  let claim = claimed

  /** the statements before the events: the checkpoint's, and the locks of tables that other partitions write too */
  function prologue(batch: LaneBatch): readonly Statement[] {
    const moved: Statement = {
      name: 'millrace_move',
      text: move,
      values: [
        planning.sink,
        partition.topic,
        String(partition.partition),
        String(claim.epoch),
        String(batch.offset),
        textArray(batch.moves.map(({ source }) => source)),
        textArray(batch.moves.map(({ from }) => from)),
        textArray(batch.moves.map(({ to }) => to)),
        String(new Set([...claim.sources, ...batch.moves.map(({ source }) => source)]).size),
      ],
    }
    if (sharedTargets.length === 0 || batch.events.length === 0) return [moved]
    return [moved, { name: 'millrace_lock', text: lock, values: [planning.sink, textArray(sharedTargets)] }]
  }

  async function run(statements: readonly Statement[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const failure = await attemptOnce(statements)
      if (failure === null) return
      if (failure.statement === 0 && said(failure).state === DIVISION_BY_ZERO) throw fenced(partition)
      if (faultOf(said(failure)) !== 'concurrency' || attempt === MAX_ATTEMPTS) throw failure
    }
  }

  async function attemptOnce(statements: readonly Statement[]): Promise<StatementFailure | null> {
    const client = await pool.connect()
    let failure: StatementFailure | null = null
    try {
      await inOneTransaction(client, statements)
    } catch (error) {
      failure = error as StatementFailure
    } finally {
      client.release(failure !== null && failure.statement === null)
    }
    return failure
  }

  /** Commit order, one by one: what a set could not take may pass, and what cannot is told by its own statement. */
  async function oneByOne(batch: LaneBatch): Promise<void> {
    const before = prologue(batch)
    const planned = batch.events.map((event) => planEvents(planning, [event]))
    try {
      await run([...before, ...planned.flat()])
    } catch (error) {
      if (!(error instanceof StatementFailure) || error.statement === null) throw error
      const why = said(error)
      const fault = faultOf(why)
      if (fault !== 'data' && fault !== 'constraint') throw error
      // it is at the commit that a deferred constraint fails: then no event is known to be at fault
      const at = error.statement - before.length
      const statement = planned.flat()[at]
      const culprit = planned.flatMap((own, index) => own.map(() => batch.events[index] as Event))[at]
      if (statement === undefined || culprit === undefined) throw unfit(partition, null, fault, why)
      const table = why.table ?? statement.feed.target.name
      const column =
        why.column ?? (fault === 'data' ? ((await misfit(pool, statement).catch(() => null)) ?? undefined) : undefined)
      throw unfit(partition, culprit, fault, { ...why, table, column })
    }
  }

  return {
    checkpoint: claimed.checkpoint,

    async apply(batch) {
      try {
        const statements = planEvents(planning, batch.events)
        await deps.admit(batch.events)
        try {
          await run([...prologue(batch), ...statements])
        } catch (error) {
          const fault = error instanceof StatementFailure ? faultOf(said(error)) : 'other'
          if (fault !== 'data' && fault !== 'constraint') throw error
          await oneByOne(batch)
        }
      } catch (error) {
        throw sinkError(error)
      }
      claim = { ...claim, sources: new Set([...claim.sources, ...batch.moves.map(({ source }) => source)]) }
      deps.applied()
    },

    async reread() {
      try {
        claim = await bookkeeping.reread(partition, claim.epoch)
        return claim.checkpoint
      } catch (error) {
        throw sinkError(error)
      }
    },

    async release() {},
  }
}

const DIVISION_BY_ZERO = '22012'

/**
 * Moves the checkpoint, as the first statement: its rows stay locked until the commit, so what follows is seen by no other
 * owner and sees all that a former one did. Fails, and the whole transaction with it, by a division by zero unless every
 * row of the partition is the owner's and every source stands where it must.
 */
function moveSql(schema: string): string {
  const checkpoint = `${pg.escapeIdentifier(schema)}.checkpoint`
  return `with moved as (
  update ${checkpoint} c
  set position = coalesce(($8::text[])[array_position($6::text[], c.source)], c.position), "offset" = $5::bigint, updated_at = clock_timestamp()
  where c.sink = $1 and c.topic = $2 and c.partition = $3::int and c.owner_epoch = $4::bigint
    and (array_position($6::text[], c.source) is null or c.position is not distinct from ($7::text[])[array_position($6::text[], c.source)])
  returning c.source
), founded as (
  insert into ${checkpoint} (sink, source, topic, partition, position, "offset", owner_epoch)
  select $1, m.source, $2, $3::int, m.till, $5::bigint, $4::bigint
  from unnest($6::text[], $7::text[], $8::text[]) as m(source, since, till)
  where m.since is null and not exists (select from ${checkpoint} c where c.sink = $1 and c.topic = $2 and c.partition = $3::int and c.source = m.source)
  on conflict do nothing
  returning source
)
select 1 / (case when (select count(*) from moved) + (select count(*) from founded) = $9::bigint then 1 else 0 end)`
}

function lockSql(schema: string): string {
  return `select from ${pg.escapeIdentifier(schema)}.target where sink = $1 and target = any($2::text[]) order by target for update`
}

function textArray(values: readonly (string | null)[]): string {
  return `{${values.map((value) => (value === null ? 'null' : `"${value.replace(/[\\"]/g, '\\$&')}"`)).join(',')}}`
}

function unfit(partition: TopicPartition, event: Event | null, fault: Fault, why: Said): MillraceError {
  const { state, table, column, constraint } = why
  const means = STATE_MEANS[state ?? ''] ?? 'the database refuses it'
  const where = [column && `column ${column}`, constraint && `constraint ${constraint}`, table && `table ${table}`, state]
    .filter(Boolean)
    .join(', ')
  const fields = {
    ...(state !== null && { cause: state }),
    ...(table !== undefined && { table }),
    ...(column !== undefined && { column }),
    ...(constraint !== undefined && { constraint }),
  }
  if (fault === 'data' && event !== null) return rejected(partition, null, event, `${means} (${where})`, fields)
  if (fault === 'data')
    return new MillraceError(
      'MILLRACE_EVENT_REJECTED',
      `an event of a batch of ${partition.topic}/${partition.partition} cannot be applied: ${means} (${where})`,
      { fields },
    )
  const which = event === null ? 'a batch' : `the event ${event.position} (${event.type}, id ${event.id})`
  return new MillraceError(
    'MILLRACE_EVENT_CONFLICT',
    `${which} of ${partition.topic}/${partition.partition} cannot be applied: ${means} (${where})`,
    {
      remedy:
        'it is tried again while other partitions may still bring what it waits for; if it stays, correct the row or the constraint',
      fields: {
        ...(event === null ? { topic: partition.topic, partition: partition.partition } : eventFields(partition, event)),
        ...fields,
      },
    },
  )
}
