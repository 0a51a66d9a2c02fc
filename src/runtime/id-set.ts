import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadSqlite } from '../../connectors/queues/local/file.ts'
import type { IdSet } from '../pipeline/verify-outbox.ts'

/** Ids in a file of their own in the system's temporary folder: memory does not grow with them. */
export interface FiledIds extends IdSet {
  close(): Promise<void>
}

export async function fileIds(): Promise<FiledIds> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-ids-'))
  const { DatabaseSync } = loadSqlite()
  const db = new DatabaseSync(join(folder, 'ids.db'))
  db.exec('pragma journal_mode = off; pragma synchronous = off')
  db.exec('create table ids (id text primary key, created_at real) without rowid')
  const insert = db.prepare('insert or ignore into ids values (?, ?)')
  const remove = db.prepare('delete from ids where id = ?')
  const count = db.prepare('select count(*) as count from ids')
  const counted = db.prepare('select count(*) as count from ids where created_at is null or created_at >= ?')
  const listed = db.prepare('select id from ids where created_at is null or created_at >= ? order by id limit ?')
  const together = (work: () => void): void => {
    db.exec('begin')
    work()
    db.exec('commit')
  }

  return {
    add: (rows) =>
      together(() => {
        for (const { id, createdAt } of rows) insert.run(id, createdAt)
      }),
    remove: (ids) =>
      together(() => {
        for (const id of ids) remove.run(id)
      }),
    get size() {
      return Number(count.get()?.['count'])
    },
    since(time, limit) {
      const from = time ?? Number.NEGATIVE_INFINITY
      return {
        count: Number(counted.get(from)?.['count']),
        ids: listed.all(from, limit).map((row) => String(row['id'])),
      }
    },
    async close() {
      db.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
