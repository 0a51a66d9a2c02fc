import type { RowTraits } from '../../../src/core/copy.ts'
import { MillraceError } from '../../../src/core/errors.ts'
import { topicOf } from '../../../src/core/topic-template.ts'
import type { CatalogTable } from './catalog.ts'
import {
  type EventValue,
  GUARD_COLUMN,
  isEventValue,
  type Operation,
  type PostgresSinkSettings,
  type TableSettings,
} from './options.ts'
import { type PayloadReader, payloadReader } from './payload.ts'
import { type FieldName, fieldNamed } from './rows.ts'

/** A table that is fed. */
export interface Target {
  /** `schema.table`: its name in guards, markers and messages */
  readonly name: string
  readonly schema: string
  readonly table: string
  readonly key: readonly string[]
  readonly guard: 'column' | 'table'
  /** `append`: a row is an event, written once; `keyed`: a row is what its key's events made of it */
  readonly rows: 'append' | 'keyed'
  /** several partitions may write one row, so their transactions share a lock (PROTOCOL 2.4) */
  readonly shared: boolean
}

/** How the events of one aggregate type become rows of one table. */
export interface Feed {
  readonly from: string
  readonly target: Target
  readonly operations: ReadonlyMap<string, Operation>
  readonly columns: readonly MappedColumn[]
  /** the key is the aggregate id: index of its column. Null: the key comes from the payload */
  readonly aggregateKey: number | null
  /** index of the path where a payload may say its aggregate id, which must then agree; -1: none */
  readonly agreement: number
  readonly paths: readonly (readonly string[])[]
  readonly reader: PayloadReader
}

export interface MappedColumn {
  readonly name: string
  readonly type: string
  readonly inKey: boolean
  /** its name in the rows that go to Postgres: its index */
  readonly field: FieldName
  /** index of a path, or a value of the event itself */
  readonly from: number | EventValue
}

/** The mapping of a target as it is kept in the sink, to see that it has not changed. */
export interface KeptMapping {
  readonly key: readonly string[]
  readonly guard: string
  readonly feeds: Readonly<
    Record<string, { readonly columns: Readonly<Record<string, string>>; readonly on: Readonly<Record<string, Operation>> }>
  >
  /** rows of this mapping and of an older one stand side by side: nobody may apply (`remap.ts`) */
  readonly rebuilding?: true
}

export function targetName({ into }: TableSettings): string {
  return `${into.schema}.${into.name}`
}

export function isAppend({ on }: TableSettings): boolean {
  return Object.values(on).includes('append')
}

/** the key of a keyed table is the aggregate id */
export function keyedByAggregate(table: TableSettings): boolean {
  return !isAppend(table) && table.key.length === 1 && table.keyFrom !== 'payload'
}

/** Where a column takes its value: `$key`, `$id` …, or a path; null when it is left to the database. */
export function originOf(table: TableSettings, column: string): string | null {
  const said = ofOwn(table.columns, column)
  if (said === false) return null
  if (isAppend(table) && column === table.key[0]) return '$id'
  if (said !== undefined) return said
  return table.naming === 'snake_case' ? camelCase(column) : column
}

/** `order_no` → `orderNo` */
function camelCase(column: string): string {
  return column.replace(/(?<=.)_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

/** the columns that are written, of those the table has */
export function writtenColumns(table: TableSettings, catalog: CatalogTable): readonly string[] {
  return [...catalog.columns]
    .filter(([name, { generated }]) => name !== GUARD_COLUMN && !(generated && ofOwn(table.columns, name) === undefined))
    .map(([name]) => name)
    .filter((name) => originOf(table, name) !== null)
}

/**
 * The feeds of a sink, resolved against the tables that are there.
 * @throws MILLRACE_SINK_NOT_READY for a table or a column that is missing, and for feeds of one table that write different columns
 */
export function resolveFeeds(settings: PostgresSinkSettings, catalog: ReadonlyMap<string, CatalogTable>): readonly Feed[] {
  const targets = new Map<string, Target>()
  for (const table of settings.tables) {
    const name = targetName(table)
    if (!targets.has(name))
      targets.set(
        name,
        targetOf(
          table,
          settings.tables.filter((other) => targetName(other) === name),
        ),
      )
  }
  const feeds = settings.tables.map((table) => {
    const name = targetName(table)
    const found = catalog.get(name)
    if (found === undefined) throw notReady(`there is no table ${name}, or the role may not see it`)
    for (const column of [...table.key, ...Object.keys(table.columns)])
      if (!found.columns.has(column)) throw notReady(`${name} has no column ${column}`)
    return feedOf(table, targets.get(name) as Target, found)
  })
  for (const target of targets.values())
    requireSameColumns(
      target,
      feeds.filter((feed) => feed.target === target),
    )
  // a field that another table of the aggregate takes is known
  for (const feed of feeds) for (const other of feeds) if (other !== feed && other.from === feed.from) passOverFields(feed, other)
  return feeds
}

/**
 * One guard per row cannot order partial writes from two partitions: of two events on one row, the older one's columns would be
 * written or not, as it came first or second.
 */
function requireSameColumns(target: Target, feeds: readonly Feed[]): void {
  const [first, ...others] = feeds.map(({ from, columns }) => ({ from, names: columns.map(({ name }) => name) }))
  for (const other of target.rows === 'keyed' ? others : []) {
    const odd = [...(first?.names ?? []), ...other.names].find(
      (name) => first?.names.includes(name) !== other.names.includes(name),
    )
    if (odd !== undefined)
      throw new MillraceError(
        'MILLRACE_SINK_NOT_READY',
        `${target.name} is fed from ${first?.from} and ${other.from}, and only one of them writes its column ${odd}: one guard per row cannot order the partial writes of two`,
        { remedy: 'let both write the same columns, or feed a table from each', fields: { table: target.name, column: odd } },
      )
  }
}

function passOverFields(feed: Feed, other: Feed): void {
  const own = new Set(feed.paths.map(([first]) => first))
  for (const [first] of other.paths) if (first !== undefined && !own.has(first)) feed.reader.passOver(first)
}

/** whether rows are made of parts, or by events of several keys: what it takes to know the state of one */
export function rowTraits({ tables }: PostgresSinkSettings): RowTraits {
  return {
    parts: tables.some(({ on }) => Object.values(on).includes('merge')),
    shared: tables.some((table) => isShared(tables.filter((other) => targetName(other) === targetName(table)))),
  }
}

/** several partitions may write one row of the table that these feed */
function isShared(feeding: readonly TableSettings[]): boolean {
  const [first, ...others] = feeding as [TableSettings, ...TableSettings[]]
  if (isAppend(first)) return false
  const ownedByAggregate = keyedByAggregate(first) || first.key.some((column) => originOf(first, column) === '$key')
  return others.length > 0 || !ownedByAggregate
}

function targetOf(first: TableSettings, feeding: readonly TableSettings[]): Target {
  const { schema, name: table } = first.into
  return {
    name: targetName(first),
    schema,
    table,
    key: first.key,
    guard: first.guard,
    rows: isAppend(first) ? 'append' : 'keyed',
    shared: isShared(feeding),
  }
}

function feedOf(table: TableSettings, target: Target, catalog: CatalogTable): Feed {
  const paths: string[][] = []
  const slotOf = (path: string): number => {
    const fields = path.split('.')
    const known = paths.findIndex((other) => other.join('.') === path)
    return known === -1 ? paths.push(fields) - 1 : known
  }
  const columns: MappedColumn[] = []
  let aggregateKey: number | null = null
  let agreement = -1
  for (const name of writtenColumns(table, catalog)) {
    const origin = originOf(table, name) as string
    const inKey = target.key.includes(name)
    const field = fieldNamed(String(columns.length))
    const { type } = catalog.columns.get(name) as { type: string }
    if (inKey && keyedByAggregate(table)) {
      aggregateKey = columns.length
      if (!isEventValue(origin)) agreement = slotOf(origin)
      columns.push({ name, type, inKey, field, from: '$key' })
    } else columns.push({ name, type, inKey, field, from: isEventValue(origin) ? origin : slotOf(origin) })
  }
  const operations = new Map(Object.entries(table.on))
  return { from: table.from, target, operations, columns, aggregateKey, agreement, paths, reader: payloadReader(paths) }
}

/**
 * The feeds of a topic. A topic that several aggregate types share does not tell an event's own: then each of its tables
 * must map every event type.
 */
export function feedsOfTopic(feeds: readonly Feed[], topic: string, template: string): readonly Feed[] {
  return feeds.filter(({ from }) => topicOf(template, from) === topic)
}

export function keptMapping(target: Target, feeds: readonly Feed[]): KeptMapping {
  const own = feeds.filter((feed) => feed.target === target).sort((a, b) => (a.from < b.from ? -1 : 1))
  return {
    key: target.key,
    guard: target.guard,
    feeds: Object.fromEntries(
      own.map((feed) => [
        feed.from,
        {
          columns: Object.fromEntries(
            feed.columns.map(({ name, from }) => [
              name,
              typeof from === 'number' ? (feed.paths[from] as string[]).join('.') : from,
            ]),
          ),
          on: Object.fromEntries(feed.operations),
        },
      ]),
    ),
  }
}

/**
 * What a mapping changed so that rows written before differ from those to come, in words. An event type more is no
 * such change: an unmapped type halts, so none was ever passed over; a type less halts when it comes.
 */
export function mappingChanges(name: string, kept: KeptMapping, now: KeptMapping): readonly string[] {
  const changes: string[] = []
  if (kept.rebuilding) changes.push(`${name} is being rebuilt, and some of its rows are of an older mapping`)
  if (kept.key.join() !== now.key.join()) changes.push(`the key of ${name} was ${kept.key.join(', ')}`)
  if (kept.guard !== now.guard) changes.push(`the guard of ${name} was ${kept.guard}`)
  for (const from of union(kept.feeds, now.feeds)) {
    const before = ofOwn(kept.feeds, from)
    const after = ofOwn(now.feeds, from)
    if (before === undefined || after === undefined) {
      changes.push(`${name} was ${before === undefined ? 'not ' : ''}fed from ${from}`)
      continue
    }
    for (const column of union(before.columns, after.columns))
      if (ofOwn(before.columns, column) !== ofOwn(after.columns, column))
        changes.push(
          `${name}.${column} was ${ofOwn(before.columns, column) === undefined ? 'not mapped' : `mapped to ${ofOwn(before.columns, column)}`}`,
        )
    for (const type of union(before.on, after.on)) {
      const [was, is] = [ofOwn(before.on, type), ofOwn(after.on, type)]
      if (was !== undefined && is !== undefined && was !== is) changes.push(`${type} was ${was} on ${name}`)
    }
  }
  return changes
}

/** What is kept from now on: a type that was mapped once stays known, so that it cannot come back as something else. */
export function mergedMapping(kept: KeptMapping, now: KeptMapping): KeptMapping {
  const feeds = Object.entries(now.feeds).map(([from, feed]) => [from, { ...feed, on: { ...kept.feeds[from]?.on, ...feed.on } }])
  return { ...now, feeds: Object.fromEntries(feeds) }
}

function union(a: object, b: object): readonly string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()
}

export function notReady(message: string): MillraceError {
  return new MillraceError('MILLRACE_SINK_NOT_READY', message, { remedy: 'run millrace check, which names all that is missing' })
}

/** columns and event types may be called what every object inherits: constructor, toString … */
function ofOwn<Value>(said: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(said, name) ? said[name] : undefined
}
