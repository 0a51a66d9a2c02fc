import { type Mutant, test } from '../mutant.ts'

/** At the writer's end, and in what people run. */
export const OPERATIONS_MUTANTS: readonly Mutant[] = [
  {
    bug: 'a pool is accepted as a transaction',
    harm: 'the event commits by itself: with data that was rolled back, or not with data that was committed',
    file: 'src/outbox/transaction.ts',
    edits: [
      {
        find: `if (typeof given['totalCount'] === 'number') return 'a pool runs each statement in a transaction of its own'\n`,
        replace: `if (typeof given['totalCount'] === 'number') return null\n`,
      },
      // the server would be asked, as for an older client
      { find: 'statusOf(tx) === null ? probe(tx)', replace: `statusOf(tx) === null && !('totalCount' in tx) ? probe(tx)` },
    ],
    caughtBy: test('outbox/outbox', 'what would commit by itself is refused > a pool'),
  },
  {
    bug: 'a client on which no transaction is open is accepted',
    harm: 'the same, for whoever forgot `begin`',
    file: 'src/outbox/transaction.ts',
    edits: [{ find: `=== 'I' ? NONE_OPEN : null`, replace: `=== 'I' ? null : null` }],
    caughtBy: test('outbox/outbox', 'what would commit by itself is refused > a pg client on which no transaction is open'),
  },
  {
    bug: 'of many events a refused one is left out',
    harm: 'the data commits without the event that tells of it',
    file: 'src/outbox/outbox.ts',
    edits: [
      {
        find: 'const prepared = list.map(prepare)\n',
        replace: `const prepared = list.flatMap((event) => {
        try {
          return [prepare(event)]
        } catch {
          return []
        }
      })\n`,
      },
    ],
    caughtBy: test('outbox/outbox', 'many events > of which one is refused send nothing'),
  },
  {
    bug: 'readiness is tied to the slot',
    harm: 'a standby is never ready: an orchestrator kills it, or waits with the upgrade for ever',
    file: 'src/runtime/relay-role.ts',
    edits: [{ find: `return phase === 'running' || phase === 'standby'`, replace: `return phase === 'running'` }],
    caughtBy: test('runtime/pipeline', 'a standby is ready: readiness is not tied to the slot'),
  },
  {
    bug: 'a secret is logged',
    harm: 'whoever reads the logs can read the database',
    file: 'src/runtime/log.ts',
    edits: [
      {
        find: 'write(options.secrets.scrub(pretty ? forPeople(line) : line))',
        replace: 'write(pretty ? forPeople(line) : line)',
      },
    ],
    caughtBy: test('runtime/log', 'no line shows a secret > whoever put it there (for people: false)'),
  },
  {
    bug: 'the row in a constraint violation is logged',
    harm: 'personal data leaves the database by its logs',
    file: 'src/runtime/log.ts',
    edits: [{ find: `if (typeof code === 'string' && /^2[23]\\w{3}$/.test(code)) {`, replace: `if (code === '') {` }],
    caughtBy: test(
      'runtime/log',
      'an error is described without the data it was about > the row in a constraint violation stays out',
    ),
  },
  {
    bug: 'a TLS server is not verified unless it is asked for',
    harm: 'whoever stands between reads everything, the password first',
    file: 'src/core/tls.ts',
    edits: [
      {
        find: '    rejectUnauthorized: true,\n',
        replace: '    rejectUnauthorized: tls?.mode !== undefined as unknown as true,\n',
      },
    ],
    caughtBy: test('core/tls', 'TLS > whoever says anything about it has it verified in full, on this machine too'),
  },
  {
    bug: 'any page of the browser may read the status',
    harm: 'a web page reaches the loopback server by a name of its own (DNS rebinding)',
    file: 'src/server/admin.ts',
    edits: [
      {
        find: 'if (local && !isLocal(hostOf(request.headers.host)))',
        replace: 'if (local && hostOf(request.headers.host) === "")',
      },
    ],
    caughtBy: test('server/admin', 'what comes over loopback must name a loopback host > "attacker.example" is refused'),
  },
]
