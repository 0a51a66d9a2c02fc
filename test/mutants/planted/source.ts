import { type Mutant, test } from '../mutant.ts'

/** Between the WAL and the relay. */
export const SOURCE_MUTANTS: readonly Mutant[] = [
  {
    bug: 'the status update says the confirmed LSN + 1',
    harm: 'the next transaction, whose commit begins at that very end, never comes again',
    file: 'src/postgres/status-update.ts',
    edits: [{ find: 'const frame = Buffer.alloc(39)', replace: 'confirmed += 1n\n  const frame = Buffer.alloc(39)' }],
    caughtBy: test(
      'postgres/session-timing',
      'the confirmed LSN is said every interval, exactly, and nothing that was only received',
    ),
  },
  {
    bug: 'a keepalive inside a transaction is an end',
    harm: 'the transaction that is being read is confirmed before it is published',
    file: 'src/postgres/capture.ts',
    edits: [{ find: 'if (!this.inTransaction) this.buffer.complete(walEnd)', replace: 'this.buffer.complete(walEnd)' }],
    caughtBy: test('postgres/capture', 'a keepalive inside a transaction is no end'),
  },
  {
    bug: 'rows are skipped by their own LSN',
    harm: 'they run backwards between interleaved transactions: the one that commits last is taken for seen',
    file: 'src/postgres/capture.ts',
    edits: [
      { find: 'private index = 0\n', replace: 'private index = 0\n  private rowLsn = 0n\n' },
      {
        find: 'if (end - start <= X_LOG_DATA_HEADER)',
        replace: `const rowLsn = buffer.readBigUInt64BE(start + 1)
      const isRow = buffer[start + X_LOG_DATA_HEADER] === 0x49
      if (isRow && rowLsn < this.rowLsn) return
      if (isRow) this.rowLsn = rowLsn
      if (end - start <= X_LOG_DATA_HEADER)`,
      },
    ],
    caughtBy: test('postgres/capture', 'the LSNs of rows, which run backwards where transactions were written side by side'),
  },
  {
    bug: 'an end is given out before the last change in front of it',
    harm: 'a transaction is confirmed of which a part still waits in the buffer',
    file: 'src/postgres/change-buffer.ts',
    edits: [
      { find: '(this.ends[reached] as End).after <= this.taken', replace: '(this.ends[reached] as End).after <= this.added' },
    ],
    caughtBy: test('postgres/change-buffer', 'an end is given out with the last change before it, never sooner'),
  },
  {
    bug: 'the name of a publication is not escaped in the replication command',
    harm: 'a name from a config breaks out of the statement',
    file: 'src/postgres/replication.ts',
    edits: [
      {
        find: `const list = \`"\${publication.replaceAll('"', '""')}"\`.replaceAll("'", "''")`,
        replace: 'const list = publication',
      },
    ],
    caughtBy: test('postgres/source', 'names that could break out of the replication command are refused or quoted'),
  },
  {
    bug: 'housekeeping deletes rows that were not relayed',
    harm: 'a row that leaves the outbox before it is confirmed cannot be refilled when the slot is lost',
    file: 'src/postgres/housekeeping.ts',
    edits: [{ find: ' and confirmed_flush_lsn >= $2::text::pg_lsn)', replace: ' and $2::text::pg_lsn is not null)' }],
    caughtBy: test(
      'postgres/housekeeping',
      'a row of a transaction that stayed open past the retention waits for its own confirmation',
    ),
  },
]
