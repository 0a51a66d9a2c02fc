import pg from 'pg'
import { MillraceError } from '../../../src/core/errors.ts'
import type { Event } from '../../../src/core/event.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { Lane, LaneBatch } from '../../../src/core/sink.ts'
import { type Bookkeeping, type Claim, fenced } from './bookkeeping.ts'
import { faultOf, said, sinkError } from './failure.ts'
import { lockTargets } from './locks.ts'
import { CHECK_LIMITS, type Parker } from './park.ts'
import { type Planning, planEvents } from './plan.ts'
import { named } from './statements.ts'
import { inOneTransaction, type Statement, StatementFailure, textArray } from './transaction.ts'
import { unfit, unfitEvent } from './unfit.ts'

export interface LaneDeps {
  readonly pool: pg.Pool
  readonly bookkeeping: Bookkeeping
  readonly schema: string
  readonly planning: Planning
  /** @throws MILLRACE_SOURCE_REFUSED when a table that the events feed belongs to another source */
  readonly admit: (events: readonly Event[]) => Promise<void>
  /** null: nothing is parked */
  readonly parker: Parker | null
  /** after a batch was applied */
  readonly applied: () => void
}

/** deadlocks and serialization failures of one batch, before it is left to the applier's backoff */
const MAX_ATTEMPTS = 5

export function openLane(deps: LaneDeps, claimed: Claim): Lane {
  const { bookkeeping, planning, schema, pool, parker } = deps
  const { partition } = planning
  const move = named(moveSql(schema))
  const lock = lockTargets(planning, schema)
  let claim = claimed

  /** the statements before the events: the checkpoint's, what waits, and the locks of tables that other partitions write too */
  async function prologue(batch: LaneBatch): Promise<readonly Statement[]> {
    const moved: Statement = {
      ...move,
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
        claim.parkedVersion,
        batch.beginning,
      ],
    }
    const parked = batch.parked.length > 0 && parker !== null ? await parker.statements(partition, batch.parked) : []
    return [moved, ...parked, ...(lock === null || batch.events.length === 0 ? [] : [lock])]
  }

  async function run(statements: readonly Statement[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const failure = await attemptOnce(statements)
      if (failure === null) return
      const refused = refusal(failure, statements, move.name)
      if (refused === 'fenced') throw fenced(partition)
      if (refused === 'changed') throw parkedChanged(partition)
      if (refused === 'full') throw new LimitsPassed()
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
    const before = await prologue(batch)
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
      throw await unfitEvent((text, values) => pool.query(text, values), partition, culprit, statement, fault, why)
    }
  }

  return {
    checkpoint: claimed.checkpoint,

    async apply(batch) {
      try {
        const statements = planEvents(planning, batch.events)
        await deps.admit(batch.events)
        try {
          await run([...(await prologue(batch)), ...statements])
        } catch (error) {
          const fault = error instanceof StatementFailure ? faultOf(said(error)) : 'other'
          if (fault !== 'data' && fault !== 'constraint') throw error
          await oneByOne(batch)
        }
      } catch (error) {
        if (error instanceof LimitsPassed && parker?.full) throw await parker.full(partition, batch.parked)
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
const LOGARITHM_OF_ZERO = '2201E'

/** what parking would pass is told apart from a batch that fails */
class LimitsPassed extends Error {}

/** What our own statements refuse, by the error that they make of it. */
function refusal(
  { statement, cause }: StatementFailure,
  statements: readonly Statement[],
  move: string | null,
): 'fenced' | 'changed' | 'full' | null {
  const name = statement === null ? undefined : statements[statement]?.name
  const { state } = said(cause)
  if (name === move && state === DIVISION_BY_ZERO) return 'fenced'
  if (name === move && state === LOGARITHM_OF_ZERO) return 'changed'
  return name === CHECK_LIMITS && state === LOGARITHM_OF_ZERO ? 'full' : null
}

/**
 * Moves the checkpoint, as the first statement: its rows stay locked until the commit, so what follows is seen by no other
 * owner and sees all that a former one did. Fails, and the whole transaction with it, by a division by zero unless every
 * row of the partition is the owner's, every source stands where it must and the offset does not go back; by a logarithm of zero when a key is parked
 * no more that the owner takes for parked: whoever redrove it raised the version under the lock of these rows.
 */
function moveSql(schema: string): string {
  const checkpoint = `${pg.escapeIdentifier(schema)}.checkpoint`
  return `with moved as (
  update ${checkpoint} c
  set position = coalesce(($8::text[])[array_position($6::text[], c.source)], c.position), "offset" = $5::bigint,
    beginning = coalesce($11::text, c.beginning), updated_at = clock_timestamp()
  where c.sink = $1 and c.topic = $2 and c.partition = $3::int and c.owner_epoch = $4::bigint and (c."offset" <= $5::bigint) is not false
    and (array_position($6::text[], c.source) is null or c.position is not distinct from ($7::text[])[array_position($6::text[], c.source)])
  returning c.parked_version
), founded as (
  insert into ${checkpoint} (sink, source, topic, partition, position, "offset", owner_epoch, parked_version)
  select $1, m.source, $2, $3::int, m.till, $5::bigint, $4::bigint, $10::bigint
  from unnest($6::text[], $7::text[], $8::text[]) as m(source, since, till)
  where m.since is null and not exists (select from ${checkpoint} c where c.sink = $1 and c.topic = $2 and c.partition = $3::int and c.source = m.source)
  on conflict do nothing
  returning parked_version
), held as (
  select count(*) as rows, count(*) filter (where parked_version <> $10::bigint) as changed
  from (select parked_version from moved union all select parked_version from founded) as written
)
select case when rows <> $9::bigint then 1 / (rows - rows) when changed > 0 then ln((changed - changed)::numeric) end from held`
}

function parkedChanged({ topic, partition }: TopicPartition): MillraceError {
  return new MillraceError(
    'MILLRACE_PARKED_CHANGED',
    `the parked keys of ${topic}/${partition} changed since its owner looked; nothing was written`,
    { remedy: 'nothing: the checkpoint is read again by itself', fields: { topic, partition } },
  )
}
