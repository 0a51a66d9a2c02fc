import { type ClientBase, type Connection, DatabaseError, type Submittable } from 'pg'

/** One statement of a transaction. A Buffer goes in Postgres' binary form, which for `json` is its text. */
export interface Statement {
  /** kept prepared on the connection under this name; one name always means one text. Null: parsed each time */
  readonly name: string | null
  readonly text: string
  readonly values: readonly (string | Buffer | null)[]
}

/** Why a transaction did not commit, and in which statement the server said so. */
export class StatementFailure extends Error {
  override readonly name = 'StatementFailure'
  /** index of the statement; as many as there are: at the commit. Null: the connection broke, the outcome is unknown */
  readonly statement: number | null

  constructor(statement: number | null, cause: unknown) {
    super(statement === null ? 'the connection broke' : `statement ${statement} failed`, { cause })
    this.statement = statement
  }
}

/** names kept on one connection; statements beyond are parsed each time */
const MAX_PREPARED = 200
const prepared = new WeakMap<Connection, Set<string>>()

/** the server ended the session: shut down, terminated, crashed, idle too long, connection broken */
const SESSION_ENDED = /^(57P|08|25P0[34])/

/**
 * Runs the statements as one transaction, in one round trip: they are sent in the extended protocol without a Sync
 * between them, so that the server runs them in one implicit transaction, skips what follows an error, and commits at
 * the Sync (postgresql.org, "protocol-flow", Pipelining). Each statement takes its own snapshot. `pg` itself sends a
 * Sync after every query, where each is a transaction of its own unless a `begin` before it succeeded.
 *
 * Resolves when the server has said that the commit is done.
 * @throws StatementFailure
 */
export function inOneTransaction(client: ClientBase, statements: readonly Statement[]): Promise<void> {
  return new Promise((resolve, reject) => {
    client.query(
      new Pipeline(statements, (error) => {
        if (error === null) resolve()
        else reject(error instanceof StatementFailure ? error : new StatementFailure(null, error))
      }),
    )
  })
}

/** an array of texts as a parameter */
export function textArray(values: readonly (string | null)[]): string {
  return `{${values.map((value) => (value === null ? 'null' : `"${value.replace(/[\\"]/g, '\\$&')}"`)).join(',')}}`
}

/** Driven by `pg.Client` as its own queries are: it hands over the server's messages, ReadyForQuery last. */
class Pipeline implements Submittable {
  /** `pg` looks for it by this name, to wrap it with a `query_timeout`; we set none */
  callback: (error: Error | null) => void
  readonly #statements: readonly Statement[]
  #connection: Connection | undefined
  readonly #parsing: (string | null)[] = []
  #completed = 0

  constructor(statements: readonly Statement[], callback: (error: Error | null) => void) {
    this.#statements = statements
    this.callback = callback
  }

  submit(connection: Connection): void {
    this.#connection = connection
    let known = prepared.get(connection)
    if (known === undefined) prepared.set(connection, (known = new Set()))
    const sent = new Set<string>()
    connection.on('parseComplete', this.#onParsed)
    connection.stream.cork()
    for (const { name, text, values } of this.#statements) {
      const there = name !== null && (known.has(name) || sent.has(name))
      const keep = there || (name !== null && known.size + sent.size < MAX_PREPARED) ? name : null
      if (!there) {
        connection.parse({ name: keep ?? '', text, types: [] }, true)
        this.#parsing.push(keep)
        if (keep !== null) sent.add(keep)
      }
      connection.bind({ statement: keep ?? '', values: [...values] }, true)
      connection.execute(null, true)
    }
    connection.sync()
    connection.stream.uncork()
  }

  // prepared only when the server has said so: what follows an error is never parsed
  readonly #onParsed = (): void => {
    const name = this.#parsing.shift()
    if (name) prepared.get(this.#connection as Connection)?.add(name)
  }

  handleCommandComplete(): void {
    this.#completed++
  }

  handleEmptyQuery(): void {
    this.#completed++
  }

  handleRowDescription(): void {}
  handleDataRow(): void {}
  handlePortalSuspended(): void {}

  handleReadyForQuery(): void {
    this.#end(null)
  }

  handleError(error: Error): void {
    const said = error instanceof DatabaseError && !SESSION_ENDED.test(error.code ?? '')
    this.#end(new StatementFailure(said ? this.#completed : null, error))
  }

  #end(failure: StatementFailure | null): void {
    this.#connection?.off('parseComplete', this.#onParsed)
    this.callback(failure)
  }
}
