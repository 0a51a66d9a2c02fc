import { type Mutant, test } from '../mutant.ts'

const CONTRACT = 'the sink contract: postgres, guard: column'

/** In the Postgres sink: what the simulation's store takes for granted. */
export const SINK_MUTANTS: readonly Mutant[] = [
  {
    bug: 'a delete leaves no marker',
    harm: 'an older event that comes later brings the row back',
    file: 'connectors/sinks/postgres/statements.ts',
    edits: [
      { find: `clock_timestamp() from e where e.o = 'd' order by`, replace: `clock_timestamp() from e where e.o = 'x' order by` },
    ],
    caughtBy: test('connectors/postgres-guard', 'guard: column > does not bring back what a newer event deleted'),
  },
  {
    bug: 'the guard is < instead of <=',
    harm: 'replay and repair cannot mend a row from the very position that it shows',
    file: 'connectors/sinks/postgres/statements.ts',
    edits: [
      {
        find: 't.${id(GUARD_COLUMN)} <= excluded.${id(GUARD_COLUMN)}',
        replace: 't.${id(GUARD_COLUMN)} < excluded.${id(GUARD_COLUMN)}',
      },
    ],
    caughtBy: test('connectors/postgres-guard', 'guard: column > repairs a row from the very position that it shows'),
  },
  {
    bug: 'a row is written whatever position it shows',
    harm: 'an older event overwrites what a newer one wrote',
    file: 'connectors/sinks/postgres/statements.ts',
    edits: [
      {
        find: ' where t.${id(GUARD_COLUMN)} is null or t.${id(GUARD_COLUMN)} <= excluded.${id(GUARD_COLUMN)}',
        replace: '',
      },
    ],
    caughtBy: test('connectors/postgres-guard', 'guard: column > writes a row only from a position that is not older'),
  },
  {
    bug: 'identifiers are not escaped',
    harm: 'the name of a column is run as SQL',
    file: 'connectors/sinks/postgres/statements.ts',
    edits: [{ find: 'const id = pg.escapeIdentifier', replace: 'const id = (name: string): string => `"${name}"`' }],
    caughtBy: test('connectors/postgres-names', 'hostile names of schema, table and column are names, and nothing else'),
  },
  {
    bug: 'two partitions write one table without a shared lock',
    harm: 'an insert beside a delete that saw no row leaves a resurrected row beside its marker',
    file: 'connectors/sinks/postgres/locks.ts',
    edits: [{ find: ' order by target for update`', replace: ' order by target`' }],
    caughtBy: test('connectors/postgres-guard', 'share a lock, so that an insert waits for a delete that saw no row'),
  },
  {
    bug: 'an owner that another one followed writes on',
    harm: 'two owners apply to one partition, each from what it knows',
    file: 'connectors/sinks/postgres/lane.ts',
    edits: [{ find: ' and c.owner_epoch = $4::bigint', replace: '' }],
    caughtBy: test('connectors/postgres-contract', `${CONTRACT} > fences an owner that another one followed`),
  },
  {
    bug: 'a batch is applied wherever the checkpoint stands',
    harm: 'a batch whose outcome was unknown has its effect twice, or a gap is bridged',
    file: 'connectors/sinks/postgres/lane.ts',
    edits: [
      {
        find: '\n    and (array_position($6::text[], c.source) is null or c.position is not distinct from ($7::text[])[array_position($6::text[], c.source)])',
        replace: '',
      },
    ],
    caughtBy: test('connectors/postgres-contract', `${CONTRACT} > refuses a batch that does not begin where its source stands`),
  },
  {
    bug: 'it is not looked whether the parked keys have changed',
    harm: 'an owner parks an event behind a key that was redriven: nobody takes it up, or the store refuses it and the partition halts',
    file: 'connectors/sinks/postgres/lane.ts',
    edits: [{ find: ' when changed > 0 then ln((changed - changed)::numeric) end', replace: ' when changed < 0 then 0 end' }],
    caughtBy: test(
      'connectors/postgres-contract',
      `${CONTRACT} > parking > does not let an owner park behind what was redriven meanwhile`,
    ),
  },
  {
    bug: 'a redrive takes no lock of the partition',
    harm: 'a write of the parked key and a delete of the owner do not see each other: the row stays beside its marker',
    file: 'connectors/sinks/postgres/redrive.ts',
    edits: [
      {
        find: 'where sink = $1 and topic = $2 and partition = $3 order by source for update`',
        replace: 'where sink = $1 and topic = $2 and partition = $3 order by source`',
      },
    ],
    caughtBy: test('connectors/postgres-redrive', 'waits for what the owner of the partition has under way'),
  },
  {
    bug: 'a delete marker is forgotten while an older event is parked',
    harm: 'the event that is redriven a year later brings the row back',
    file: 'connectors/sinks/postgres/markers.ts',
    edits: [
      {
        find: '\n    and position <= coalesce((select min(p.position) from ${s}.parked p where p.sink = $1), position)',
        replace: '',
      },
    ],
    caughtBy: test('connectors/postgres-redrive', 'finds the markers that were made since its event was parked'),
  },
  {
    bug: 'a column that the payload lacks is set to null',
    harm: 'a writer that forgets a field empties a column of the replica',
    file: 'connectors/sinks/postgres/plan.ts',
    edits: [
      {
        find: 'if (start === -1) throw absent(planning.partition, feed, event, column)',
        replace: `if (start === -1) {
      writer.slice(column.field, Buffer.from('null'), 0, 4)
      continue
    }`,
      },
    ],
    caughtBy: test('connectors/postgres-mapping', 'refuses an absent field by the names of column and path'),
  },
  {
    bug: 'a merge sets the columns that its payload lacks to null',
    harm: 'each partial write empties the rest of the row',
    file: 'connectors/sinks/postgres/plan.ts',
    edits: [
      {
        find: 'else if (whole) throw absent(planning.partition, feed, event, column)',
        replace: `else if (whole) throw absent(planning.partition, feed, event, column)
    else values.set(index, { bytes: Buffer.from('null'), start: 0, end: 4 })`,
      },
    ],
    caughtBy: test(
      'connectors/postgres-mapping',
      'merge > writes the columns that are present and leaves the others, event by event',
    ),
  },
  {
    bug: 'an event of a type that no table maps is passed over',
    harm: 'a new type of event never reaches the replica, and nobody is told',
    file: 'connectors/sinks/postgres/plan.ts',
    edits: [
      { find: 'if (!feed.operations.has(event.type)) return', replace: 'if (event.type === "") return' },
      {
        find: "if (operation !== 'ignore') writeRow",
        replace: "if (operation !== 'ignore' && operation !== undefined) writeRow",
      },
    ],
    caughtBy: test('connectors/postgres-mapping', 'halts on a type that is not mapped'),
  },
  {
    bug: 'a table is fed by a second source',
    harm: 'positions of two sources are compared as if they were one: the smaller one is taken for stale',
    file: 'connectors/sinks/postgres/sink.ts',
    edits: [{ find: 'if (source !== event.source) throw sourceRefused(partition, target, source, event)', replace: '' }],
    caughtBy: test('connectors/postgres-mapping', 'refuses a second source'),
  },
  {
    bug: 'a changed mapping goes on',
    harm: 'rows that were written before stay as the old mapping made them, for ever',
    file: 'connectors/sinks/postgres/sink.ts',
    edits: [{ find: 'if (changed !== null) throw changed\n', replace: '' }],
    caughtBy: test('connectors/postgres-mapping', 'halts at a claim when it is not the one the rows were written by'),
  },
  {
    bug: 'replay without the lock',
    harm: 'a row is brought back that a live transaction is deleting: it stays beside its marker',
    file: 'connectors/sinks/postgres/mend.ts',
    edits: [{ find: 'order by topic, partition, source for update`', replace: 'order by topic, partition, source`' }],
    caughtBy: test('runtime/replay-races', 'a row that a live transaction is deleting is not brought back'),
  },
  {
    bug: 'a fold that is behind what the sink has forgotten is written all the same',
    harm: 'a row is brought back half-way whose later delete has left no trace',
    file: 'connectors/sinks/postgres/mend.ts',
    edits: [{ find: 'return rows[0]?.behind === true', replace: 'return false' }],
    caughtBy: test('runtime/replay-races', 'a row whose later delete has left no trace any more is not brought back half-way'),
  },
  {
    bug: 'a replay that ends folds no further than its end',
    harm: 'keys that have gone on since are taken back to a past state',
    file: 'src/pipeline/replay.ts',
    edits: [{ find: 'const meetsMore = range.to !== null || ', replace: 'const meetsMore = ' }],
    caughtBy: test('pipeline/replay', 'random stories of damage, live traffic and crashes end with what was applied last'),
  },
]
