import type { StateStore } from '../../../src/core/queue.ts'
import type { LocalFile } from './file.ts'

/** The state store of one pipeline; several pipelines may share a file. */
export function openState(file: LocalFile, pipeline: string): StateStore {
  return {
    async read(prefix) {
      return file.snapshot('its state cannot be read', () => {
        const rows = file.sql('select key, value from state where pipeline = ? and substr(key, 1, length(?)) = ? order by key')
        return new Map(rows.all(pipeline, prefix, prefix).map(({ key, value }) => [String(key), String(value)]))
      })
    },
    async write(key, value) {
      file.transaction('its state cannot be written', () => {
        file
          .sql('insert into state (pipeline, key, value) values (?, ?, ?) on conflict do update set value = excluded.value')
          .run(pipeline, key, value)
      })
    },
    async remove(key) {
      file.transaction('its state cannot be written', () => {
        file.sql('delete from state where pipeline = ? and key = ?').run(pipeline, key)
      })
    },
  }
}
