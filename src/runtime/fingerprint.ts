import { createHash } from 'node:crypto'

/**
 * A stable hash of everything that moves positions or partitions (PROTOCOL 2.2): which rows are events, which column
 * orders them, which topic they go to and how a partition is chosen. The relay halts when it changes before everything
 * published under the old one has been drained.
 */
export function fingerprint(parts: { readonly table: string; readonly columns: object; readonly topicTemplate: string }): string {
  const columns = Object.entries(parts.columns)
    .filter(([, column]) => typeof column === 'string')
    .sort(([a], [b]) => (a < b ? -1 : 1))
  const text = JSON.stringify({ table: parts.table, columns, topicTemplate: parts.topicTemplate, partitioner: 'murmur2' })
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}
