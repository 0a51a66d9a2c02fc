import { MillraceError } from '../../../src/core/errors.ts'
import type { Event } from '../../../src/core/event.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import type { Feed, MappedColumn } from './mapping.ts'
import type { EventValue } from './options.ts'
import { type FieldName, fieldNamed, type RowWriter, rowWriter } from './rows.ts'
import type { FeedStatements, StatementText } from './statements.ts'
import type { Statement } from './transaction.ts'

/** One feed of a lane, with its statements. */
export interface PlannedFeed {
  readonly feed: Feed
  readonly statements: FeedStatements
}

/** the aggregate id, and the key as the payload says it */
const KEY = fieldNamed('k')
const AGREEMENT = fieldNamed('a')

/** A statement and whose rows it writes, its first value. */
export interface PlannedStatement extends Statement {
  readonly feed: Feed
}

/** What a lane plans with. */
export interface Planning {
  readonly sink: string
  readonly partition: TopicPartition
  /** in the order of their targets: the same in every transaction */
  readonly feeds: readonly PlannedFeed[]
  readonly unknownFields: (feed: Feed, event: Event, fields: readonly string[]) => void
}

/**
 * The statements that apply events, in an order that gives what applying them one by one in commit order would.
 * @throws MILLRACE_EVENT_UNMAPPED, MILLRACE_EVENT_REJECTED for what can be seen without the database
 */
export function planEvents(planning: Planning, events: readonly Event[]): readonly PlannedStatement[] {
  const statements: PlannedStatement[] = []
  // of several unfit events the first one is named: what stands before it can be applied
  let { fit, error } = firstUnmapped(planning, events)
  const plan = (planned: PlannedFeed, own: readonly Event[]): void => {
    try {
      statements.push(...planFeed(planning, planned, own))
    } catch (caught) {
      if (!(caught instanceof MillraceError)) throw caught
      const { position, source } = caught.fields
      error = caught
      fit = fit.slice(
        0,
        fit.findIndex((event) => event.position === position && event.source === source),
      )
    }
  }
  for (const group of byTarget(planning.feeds)) {
    if (group.length === 1) plan(group[0] as PlannedFeed, fit)
    // several feeds of one table share a lane only where a topic is shared: then their events count in one order
    else for (const event of fit) for (const planned of group) plan(planned, [event])
  }
  if (error !== null) throw error
  return statements
}

function firstUnmapped(
  { feeds, partition }: Planning,
  events: readonly Event[],
): { fit: readonly Event[]; error: MillraceError | null } {
  for (const [index, event] of events.entries())
    for (const { feed } of feeds)
      if (!feed.operations.has(event.type)) return { fit: events.slice(0, index), error: unmapped(partition, feed, event) }
  return { fit: events, error: null }
}

function byTarget(feeds: readonly PlannedFeed[]): readonly (readonly PlannedFeed[])[] {
  const groups = new Map<string, PlannedFeed[]>()
  for (const planned of feeds) groups.set(planned.feed.target.name, [...(groups.get(planned.feed.target.name) ?? []), planned])
  return [...groups.values()]
}

function planFeed(planning: Planning, planned: PlannedFeed, events: readonly Event[]): readonly PlannedStatement[] {
  const { feed, statements } = planned
  const merges = events.some((event) => feed.operations.get(event.type) === 'merge')
  if (merges) return planMerges(planning, planned, events)
  const writer = rowWriter(bytesOf(feed, events))
  for (const event of events) {
    const operation = feed.operations.get(event.type)
    if (operation !== 'ignore') writeRow(planning, feed, event, operation === 'delete' ? 'd' : 'u', writer)
  }
  if (writer.count === 0) return []
  if (feed.target.rows === 'append') return [statement(planning, feed, statements.append, writer.take())]
  return writes(planning, planned, writer.take())
}

/** about what the rows of events take: whole payloads, a position, a key twice, and a name a column */
function bytesOf({ columns }: Feed, events: readonly Event[]): number {
  let bytes = 64
  for (const { key, value } of events) bytes += 64 + 2 * key.length + (value?.length ?? 0) + 4 * columns.length
  return bytes
}

function writes(planning: Planning, { feed, statements }: PlannedFeed, rows: Buffer): readonly PlannedStatement[] {
  const { guard, write } = statements
  return [guard, write].flatMap((text) => (text === null ? [] : [statement(planning, feed, text, rows)]))
}

function statement({ sink }: Planning, feed: Feed, { name, text }: StatementText, rows: Buffer): PlannedStatement {
  return { feed, name, text, values: [rows, sink, feed.target.name] }
}

function writeRow(planning: Planning, feed: Feed, event: Event, operation: 'u' | 'd', writer: RowWriter): void {
  const { aggregateKey, agreement, columns, reader } = feed
  writer.begin(event.position, operation)
  if (aggregateKey !== null) writer.utf8(KEY, event.key)
  if (aggregateKey !== null && operation === 'd') return writer.end()
  const slots = readPayload(planning, feed, event)
  if (aggregateKey !== null && agreement !== -1 && (slots[agreement * 2] as number) !== -1)
    writer.slice(AGREEMENT, event.value as Uint8Array, slots[agreement * 2] as number, slots[agreement * 2 + 1] as number)
  for (let index = 0; index < columns.length; index++) {
    const column = columns[index] as MappedColumn
    if (index === aggregateKey || (operation === 'd' && !column.inKey)) continue
    const { from } = column
    if (typeof from !== 'number') {
      writer.text(column.field, eventValue(event, from))
      continue
    }
    const start = slots[from * 2] as number
    if (start === -1) throw absent(planning.partition, feed, event, column)
    writer.slice(column.field, event.value as Uint8Array, start, slots[from * 2 + 1] as number)
  }
  if (operation === 'u' && reader.unknown.length > 0) planning.unknownFields(feed, event, [...reader.unknown])
  writer.end()
}

/** The key alone of the row that an event is about, as a statement's rows; null: the event does not tell it. */
export function keyRow(planning: Planning, feed: Feed, event: Event): Buffer | null {
  const writer = rowWriter(bytesOf(feed, []))
  try {
    writeRow(planning, feed, event, 'd', writer)
  } catch (error) {
    if (error instanceof MillraceError) return null
    throw error
  }
  return writer.take()
}

const NOTHING = new Int32Array(0)

function readPayload({ partition }: Planning, feed: Feed, event: Event): Int32Array {
  if (feed.paths.length === 0) return NOTHING
  if (event.value === null)
    throw rejected(
      partition,
      feed,
      event,
      `it is a tombstone, and ${feed.target.name} needs a payload for ${feed.operations.get(event.type)}`,
    )
  try {
    return feed.reader.read(event.value)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw rejected(partition, feed, event, `its payload cannot be read: ${error.message}`)
  }
}

/** One column's value in a row that is being folded. */
interface Slice {
  readonly bytes: Uint8Array
  readonly start: number
  readonly end: number
}

/** What the events of one aggregate so far make of its row. */
interface Folded {
  /** null: nothing, or a partial write of what was there before */
  readonly base: 'u' | 'd' | null
  position: string
  basePosition: string
  agreement: Slice | null
  values: Map<number, Slice | string> | null
}

/**
 * With partial writes, the events of one aggregate are folded here, by presence of columns: at most one whole write or
 * delete, then one partial write. (Without them Postgres folds, by the typed key.)
 */
function planMerges(planning: Planning, planned: PlannedFeed, events: readonly Event[]): readonly PlannedStatement[] {
  const { feed, statements } = planned
  const rows = new Map<string, Folded>()
  for (const event of events) {
    const operation = feed.operations.get(event.type)
    if (operation === 'ignore') continue
    const key = keyOf(event)
    if (operation === 'delete') {
      rows.set(key, { base: 'd', position: event.position, basePosition: event.position, agreement: null, values: null })
      continue
    }
    const before = operation === 'merge' ? rows.get(key) : undefined
    rows.set(key, folded(planning, feed, event, operation === 'upsert', before))
  }
  const whole = rowWriter(bytesOf(feed, events))
  const partial = new Map<string, { present: readonly number[]; writer: RowWriter }>()
  for (const [key, row] of rows) {
    if (row.base !== null) writeFolded(whole, feed, key, row, row.base)
    if (row.base === 'u' || row.values === null) continue
    const present = [feed.aggregateKey as number, ...row.values.keys()].sort((a, b) => a - b)
    const set = present.join()
    const group = partial.get(set) ?? { present, writer: rowWriter(bytesOf(feed, events)) }
    partial.set(set, group)
    writeFolded(group.writer, feed, key, row, 'm')
  }
  return [
    ...(whole.count === 0 ? [] : writes(planning, planned, whole.take())),
    ...[...partial.values()].flatMap(({ present, writer }) => {
      const text = writer.take()
      return [statements.guard, statements.merge(present)].flatMap((sql) =>
        sql === null ? [] : [statement(planning, feed, sql, text)],
      )
    }),
  ]
}

function folded(planning: Planning, feed: Feed, event: Event, whole: boolean, before: Folded | undefined): Folded {
  const slots = readPayload(planning, feed, event)
  const bytes = event.value as Uint8Array
  const slice = (slot: number): Slice | null =>
    slot === -1 || slots[slot * 2] === -1 ? null : { bytes, start: slots[slot * 2] as number, end: slots[slot * 2 + 1] as number }
  const values = new Map(before?.values ?? [])
  for (const [index, column] of feed.columns.entries()) {
    if (index === feed.aggregateKey) continue
    const value = typeof column.from === 'number' ? slice(column.from) : eventValue(event, column.from)
    if (value !== null) values.set(index, value)
    else if (whole) throw absent(planning.partition, feed, event, column)
  }
  if (feed.reader.unknown.length > 0) planning.unknownFields(feed, event, [...feed.reader.unknown])
  return {
    base: whole ? 'u' : (before?.base ?? null),
    position: event.position,
    basePosition: before?.base === 'd' ? before.basePosition : event.position,
    agreement: slice(feed.agreement) ?? before?.agreement ?? null,
    values,
  }
}

function writeFolded(writer: RowWriter, feed: Feed, key: string, row: Folded, operation: 'u' | 'd' | 'm'): void {
  writer.begin(operation === 'd' ? row.basePosition : row.position, operation)
  writer.text(KEY, key)
  if (operation !== 'd') {
    if (row.agreement !== null) writer.slice(AGREEMENT, row.agreement.bytes, row.agreement.start, row.agreement.end)
    for (const [index, value] of row.values ?? []) writeValue(writer, (feed.columns[index] as MappedColumn).field, value)
  }
  writer.end()
}

function writeValue(writer: RowWriter, field: FieldName, value: Slice | string): void {
  if (typeof value === 'string') writer.text(field, value)
  else writer.slice(field, value.bytes, value.start, value.end)
}

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })

function keyOf(event: Event): string {
  return utf8.decode(event.key)
}

function eventValue(event: Event, value: EventValue): string {
  switch (value) {
    case '$id':
      return event.id
    case '$key':
      return keyOf(event)
    case '$type':
      return event.type
    case '$source':
      return event.source
    case '$position':
      return event.position
    case '$committed_at':
      return new Date(event.committedAt).toISOString()
  }
}

/** what names an event in an error: never its key, never a value */
export function eventFields(partition: TopicPartition, event: Event): Record<string, string | number> {
  const { source, position, id, type } = event
  return { topic: partition.topic, partition: partition.partition, source, position, id, type }
}

function unmapped(partition: TopicPartition, feed: Feed, event: Event): MillraceError {
  return new MillraceError(
    'MILLRACE_EVENT_UNMAPPED',
    `the event ${event.position} of ${partition.topic}/${partition.partition} has the type ${event.type}, which ${feed.target.name} does not map for ${feed.from}`,
    {
      remedy: `add ${event.type} to "on" of ${feed.target.name}: upsert, merge, append, delete or ignore`,
      fields: { ...eventFields(partition, event), aggregate: feed.from, table: feed.target.name },
    },
  )
}

function absent(partition: TopicPartition, feed: Feed, event: Event, column: MappedColumn): MillraceError {
  const path = (feed.paths[column.from as number] as readonly string[]).join('.')
  return rejected(
    partition,
    feed,
    event,
    `its payload has no ${path}, which the column ${column.name} of ${feed.target.name} takes`,
    {
      column: column.name,
      path,
    },
  )
}

export function rejected(
  partition: TopicPartition,
  feed: Feed | null,
  event: Event,
  why: string,
  fields: Readonly<Record<string, string>> = {},
): MillraceError {
  return new MillraceError(
    'MILLRACE_EVENT_REJECTED',
    `the event ${event.position} (${event.type}, id ${event.id}) of ${partition.topic}/${partition.partition} cannot be applied: ${why}`,
    {
      remedy: 'nothing of it was applied and its partition waits; correct the table or the mapping, then start again',
      fields: { ...eventFields(partition, event), ...(feed !== null && { table: feed.target.name }), ...fields },
    },
  )
}
