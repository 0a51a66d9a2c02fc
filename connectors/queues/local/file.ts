import { closeSync, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { setTimeout as wait } from 'node:timers/promises'
import { MillraceError } from '../../../src/core/errors.ts'
import { fileFailure, isBusy } from './failure.ts'

/** "Mill", as SQLite's application id: the file is ours */
const APPLICATION = 0x4d696c6c
/** of the tables and the batches in them; a file of a later one is refused */
const FORMAT = 1

/** ms; how long a statement waits for another process' commit */
const LOCK_PATIENCE = 5_000

/**
 * The tables. A batch's id grows over all partitions, so that the oldest come first whatever their partition. `log_start`
 * and `log_end` are kept beside the records: a partition that retention has emptied still knows where it ends.
 */
const SCHEMA = `
  create table partition (
    id integer primary key,
    topic text not null,
    number integer not null,
    log_start integer not null default 0,
    log_end integer not null default 0,
    unique (topic, number)
  );
  create table batch (
    id integer primary key,
    partition integer not null,
    base integer not null,
    count integer not null,
    timestamp integer not null,
    data blob not null
  );
  create unique index batch_place on batch (partition, base, timestamp);
  create table state (
    pipeline text not null,
    key text not null,
    value text not null,
    primary key (pipeline, key)
  ) without rowid;
  create table member (
    "group" text not null,
    id text not null,
    topics text not null,
    joined_at integer not null,
    expires_at integer not null,
    primary key ("group", id)
  ) without rowid;
  create table lease (
    "group" text not null,
    partition integer not null,
    member text not null,
    primary key ("group", partition)
  ) without rowid;
  pragma application_id = ${APPLICATION};
  pragma user_version = ${FORMAT};
`

/** The file, open: SQL over it, with SQLite's failures as ours. Synchronous, as node:sqlite is. */
export class LocalFile {
  readonly path: string
  readonly #db: DatabaseSync
  readonly #opened: { readonly ino: number; readonly dev: number }
  readonly #statements = new Map<string, StatementSync>()

  constructor(path: string, db: DatabaseSync) {
    this.path = path
    this.#db = db
    this.#opened = statSync(path)
  }

  /** the prepared statement of this text; for use within `snapshot` and `transaction` */
  sql(text: string): StatementSync {
    let statement = this.#statements.get(text)
    if (statement === undefined) {
      statement = this.#db.prepare(text)
      this.#statements.set(text, statement)
    }
    return statement
  }

  /** What is read in it belongs together. `doing` says in an error what could not be done. */
  snapshot<T>(doing: string, work: () => T): T {
    return this.#within('begin', work, (error) => fileFailure(error, this.path, doing))
  }

  /** All or nothing, durable when it returns. It has the write lock from the start: what it reads has not changed when it writes. */
  transaction<T>(doing: string, work: () => T, failure?: (error: unknown) => unknown): T {
    this.#requireInPlace()
    return this.#within('begin immediate', work, failure ?? ((error) => fileFailure(error, this.path, doing)))
  }

  /** changes whenever another connection has committed */
  version(): number {
    try {
      return this.pragma('data_version')
    } catch (error) {
      throw fileFailure(error, this.path, 'it cannot be read')
    }
  }

  pragma(name: string): number {
    return Number(this.sql(`pragma ${name}`).get()?.[name])
  }

  close(): void {
    if (this.#db.isOpen) this.#db.close()
  }

  /** What is written to a file that was removed is lost with the last process that has it open. */
  #requireInPlace(): void {
    const now = statSync(this.path, { throwIfNoEntry: false })
    if (now?.ino === this.#opened.ino && now.dev === this.#opened.dev) return
    throw new MillraceError(
      'MILLRACE_QUEUE_NOT_READY',
      `the queue's file ${this.path} was removed or replaced while it was open`,
      {
        remedy: 'stop every process that uses it and restore the file; what was acknowledged since may be in no other place',
        fields: { path: this.path },
      },
    )
  }

  #within<T>(begin: string, work: () => T, failure: (error: unknown) => unknown): T {
    if (!this.#db.isOpen) throw new MillraceError('MILLRACE_INTERNAL', `the queue's file ${this.path} was closed`)
    try {
      this.#db.exec(begin)
      try {
        const result = work()
        this.#db.exec('commit')
        return result
      } catch (error) {
        // SQLite has rolled back by itself after some failures, and then refuses this
        if (this.#db.isTransaction) this.#db.exec('rollback')
        throw error
      }
    } catch (error) {
      throw failure(error)
    }
  }
}

/**
 * Opens the file, or makes it.
 * @throws MILLRACE_QUEUE_NOT_READY when it is not a queue of ours, is damaged, or was made by a later version
 */
export async function openFile(path: string): Promise<LocalFile> {
  const { DatabaseSync } = loadSqlite()
  const deadline = performance.now() + LOCK_PATIENCE
  for (;;) {
    let db: DatabaseSync | undefined
    try {
      mkdirSync(dirname(path), { recursive: true })
      // payloads are nobody else's to read; SQLite gives the files beside it the same mode
      closeSync(openSync(path, 'a', 0o600))
      db = new DatabaseSync(path)
      prepare(db, path)
      return new LocalFile(path, db)
    } catch (error) {
      db?.close()
      // SQLite does not wait by itself when two processes make one file at the same time
      if (!isBusy(error) || performance.now() > deadline) throw fileFailure(error, path, 'it cannot be opened')
    }
    await wait(20)
  }
}

function prepare(db: DatabaseSync, path: string): void {
  // fullfsync: on macOS nothing else reaches the disk
  db.exec(`pragma busy_timeout = ${LOCK_PATIENCE}; pragma fullfsync = on; pragma checkpoint_fullfsync = on`)
  isMade(db, path)
  useWal(db, path)
  db.exec('pragma synchronous = full; pragma wal_autocheckpoint = 1000; pragma journal_size_limit = 67108864')
  make(db, path)
}

/**
 * Looks before anything is changed: the file may be another application's. The tables come first: another process may be
 * making them, and commits them together with what says whose they are.
 */
function isMade(db: DatabaseSync, path: string): boolean {
  if (db.prepare('select count(*) as tables from sqlite_schema').get()?.['tables'] === 0) return false
  const application = pragma(db, 'application_id')
  const format = pragma(db, 'user_version')
  if (application !== APPLICATION)
    throw new MillraceError('MILLRACE_QUEUE_NOT_READY', `${path} is a database, but not a queue of Millrace's`, {
      remedy: 'set queue.path to a file of its own',
      fields: { path },
    })
  if (format !== FORMAT)
    throw new MillraceError(
      'MILLRACE_QUEUE_NOT_READY',
      `the queue's file ${path} has format ${format}, this version reads ${FORMAT}`,
      {
        remedy: 'it was made by a later version of Millrace: run that version or a later one',
        fields: { path, format },
      },
    )
  return true
}

function useWal(db: DatabaseSync, path: string): void {
  // has an effect on a new file only
  db.exec('pragma page_size = 8192')
  const mode = db.prepare('pragma journal_mode = wal').get()?.['journal_mode']
  if (mode !== 'wal')
    throw new MillraceError(
      'MILLRACE_QUEUE_NOT_READY',
      `the queue's file ${path} cannot have a write-ahead log (${String(mode)})`,
      {
        remedy: 'set queue.path to a file on a disk of this machine: a network file system cannot be shared by processes',
        fields: { path },
      },
    )
}

function make(db: DatabaseSync, path: string): void {
  db.exec('begin immediate')
  try {
    // another process may have come first
    if (!isMade(db, path)) db.exec(SCHEMA)
    db.exec('commit')
  } catch (error) {
    db.exec('rollback')
    throw error
  }
}

function pragma(db: DatabaseSync, name: string): number {
  return Number(db.prepare(`pragma ${name}`).get()?.[name])
}

/**
 * Node's own SQLite, without the warning that Node 22 prints for it: a user of the queue has not chosen it. Nothing else
 * runs in between, so no other warning is held back.
 */
export function loadSqlite(): typeof import('node:sqlite') {
  const { emitWarning } = process
  process.emitWarning = (warning: string | Error, ...rest: unknown[]) => {
    if (!String(warning).startsWith('SQLite is an experimental feature')) Reflect.apply(emitWarning, process, [warning, ...rest])
  }
  try {
    const sqlite = process.getBuiltinModule('node:sqlite') as typeof import('node:sqlite') | undefined
    if (sqlite !== undefined) return sqlite
  } finally {
    process.emitWarning = emitWarning
  }
  throw new MillraceError('MILLRACE_QUEUE_NOT_READY', 'this Node.js was built without SQLite, which the local queue stands on', {
    remedy: 'use Node.js 22.18 or later from nodejs.org or npm',
  })
}
