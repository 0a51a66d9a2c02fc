import { parseArgs } from 'node:util'

export const BENCHMARKS = ['a', 'b', 'c', 'd', 'e', 'f'] as const
export type Benchmark = (typeof BENCHMARKS)[number]

export interface BenchOptions {
  readonly only: readonly Benchmark[]
  /** events of each drain; null: each benchmark's own count */
  readonly rows: number | null
  readonly rounds: number
  /** how long latencies are taken, in each round */
  readonly seconds: number
  readonly rivals: boolean
  readonly profile: boolean
  readonly json: boolean
  /** writes docs/benchmarks.md */
  readonly write: boolean
  readonly bin: string | undefined
  /** progress, for people */
  readonly say: (line: string) => void
}

export const USAGE = `npm run bench -- [options]
  --only a,b,c,d,e,f a capture, b relay, c replica, d latency, e one transaction of a million rows, f replay
  --rivals           measure Debezium beside us in (b), (c) and (d); needs Java 17 and Maven, fetches about 70 MB once
  --rows N           events of each drain (default: a, b, e one million; c, f 300,000)
  --rounds N         default 3
  --seconds N        of (d), each round (default 20)
  --profile          profile our processes and print where their time went; costs some of the speed
  --postgres-bin DIR another Postgres than npm's
  --write            generate docs/benchmarks.md
  --json             print JSON`

/** @throws Error with the usage */
export function parseOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string', default: BENCHMARKS.join(',') },
      rivals: { type: 'boolean', default: false },
      rows: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '20' },
      profile: { type: 'boolean', default: false },
      'postgres-bin': { type: 'string' },
      write: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  })
  const only = values.only.split(',').map((name) => {
    const known = BENCHMARKS.find((each) => each === name)
    if (known === undefined) throw new Error(`--only ${values.only}: expected some of ${BENCHMARKS.join(',')}`)
    return known
  })
  return {
    only,
    rows: values.rows === undefined ? null : count('rows', values.rows),
    rounds: count('rounds', values.rounds),
    seconds: count('seconds', values.seconds),
    rivals: values.rivals,
    profile: values.profile,
    json: values.json,
    write: values.write,
    bin: values['postgres-bin'],
    say: (line) => process.stderr.write(`${line}\n`),
  }
}

function count(name: string, text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 1) throw new Error(`--${name} ${text}: expected a whole number of at least 1`)
  return value
}
