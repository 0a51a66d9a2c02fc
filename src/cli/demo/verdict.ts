import pg from 'pg'

/** How the replica compares with the source: every row of both, by the exact text of every column. */
export interface Verdict {
  readonly rows: number
  readonly equal: number
  readonly different: number
  /** at the source only */
  readonly missing: number
  /** in the replica only */
  readonly extra: number
  /** a few rows that are not equal, for people */
  readonly examples: readonly string[]
}

const CHUNK = 5_000
const EXAMPLES = 5

/**
 * A full outer join of the two tables by their key, in chunks of bounded size. Rows are compared as Postgres prints them
 * (`row(…)::text`), so that no value passes through JavaScript's own types on the way.
 */
export async function compareTables(options: {
  readonly source: string
  readonly replica: string
  readonly table: string
  readonly key: string
  readonly columns: readonly string[]
}): Promise<Verdict> {
  const source = await openReader(options.source, options)
  const replica = await openReader(options.replica, options)
  const counts = { rows: 0, equal: 0, different: 0, missing: 0, extra: 0 }
  const examples: string[] = []
  const note = (kind: 'different' | 'missing' | 'extra', key: string, text: string): void => {
    counts[kind]++
    if (examples.length < EXAMPLES) examples.push(`${kind} ${options.key}=${key}: ${text}`)
  }
  try {
    let here = await source.next()
    let there = await replica.next()
    while (here !== null || there !== null) {
      counts.rows++
      const order =
        here === null ? 1 : there === null ? -1 : here.key === there.key ? 0 : BigInt(here.key) < BigInt(there.key) ? -1 : 1
      if (order === 0 && here !== null && there !== null) {
        if (here.text === there.text) counts.equal++
        else note('different', here.key, `${here.text} is ${there.text}`)
      } else if (order < 0 && here !== null) note('missing', here.key, here.text)
      else if (there !== null) note('extra', there.key, there.text)
      if (order <= 0) here = await source.next()
      if (order >= 0) there = await replica.next()
    }
  } finally {
    await Promise.allSettled([source.close(), replica.close()])
  }
  return { ...counts, examples }
}

interface Row {
  readonly key: string
  readonly text: string
}

interface Reader {
  next(): Promise<Row | null>
  close(): Promise<void>
}

/** the rows of one side, by key, through a cursor of one snapshot */
async function openReader(
  url: string,
  { table, key, columns }: { table: string; key: string; columns: readonly string[] },
): Promise<Reader> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const id = client.escapeIdentifier(key)
  const list = columns.map((column) => client.escapeIdentifier(column)).join(', ')
  // the text of a time and of a float depends on settings: both sides get the same
  await client.query(`set datestyle = 'ISO'; set timezone = 'UTC'; set extra_float_digits = 1; set intervalstyle = 'postgres'`)
  await client.query('begin isolation level repeatable read read only')
  await client.query(
    `declare compared no scroll cursor for select ${id}::text as key, row(${list})::text as text from ${client.escapeIdentifier(table)} order by ${id}`,
  )
  let rows: Row[] = []
  let at = 0
  return {
    async next() {
      if (at === rows.length) {
        rows = (await client.query<Row>(`fetch ${CHUNK} from compared`)).rows
        at = 0
      }
      return rows[at++] ?? null
    },
    close: () => client.end(),
  }
}
