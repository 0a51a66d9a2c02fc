import type { ValidationIssue, ValidationResult } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import { type BackfillOptions, type BackfillProgress, runBackfill } from './backfill.ts'
import type { BackfillDatabase } from './backfill-database.ts'
import { propertyPath } from './json-text.ts'
import {
  type AggregateId,
  type AggregateTypes,
  type EventDefinition,
  type EventOf,
  type EventOptions,
  type Events,
  isTombstone,
  type Payload,
  type TombstoneOf,
} from './registry.ts'
import { invalid, parsePayloadText, payloadJson, toRow } from './row.ts'
import { insertMany, insertOne, type OutboxRow, type Statement } from './statement.ts'
import { execute, type OutboxTransaction, requireTransaction } from './transaction.ts'

/**
 * The service's side of the outbox. Every event is proved before anything is sent, so that a refused one leaves the
 * transaction as it was.
 *
 * All of them throw MILLRACE_NOT_A_TRANSACTION, MILLRACE_EVENT_UNKNOWN (a type that is not in the registry) or
 * MILLRACE_EVENT_INVALID (naming the path); what the database refuses (an event over its size limit: constraint
 * `outbox_event_size`) comes as its client says it.
 */
export interface Outbox<Event, Tombstone> {
  emit(tx: OutboxTransaction, event: Event): Promise<{ readonly id: string }>
  /** In one statement, in the given order; ids in the same order. */
  emitAll(tx: OutboxTransaction, events: readonly Event[]): Promise<{ readonly ids: readonly string[] }>
  /** An event without a payload: the aggregate is gone. */
  tombstone(tx: OutboxTransaction, event: Tombstone): Promise<{ readonly id: string }>
  /**
   * Makes events of rows that are older than the outbox, in transactions of its own; whoever changes a row later has the
   * last word. Goes on where it stood when it is called again, and is done at once when it was finished.
   * @throws MILLRACE_USAGE, MILLRACE_SCHEMA_OUTDATED before `init` or `migrate`, MILLRACE_SOURCE_UNREACHABLE when one chunk
   *   fails again and again
   */
  backfill<Row = Readonly<Record<string, unknown>>>(
    db: BackfillDatabase,
    options: BackfillOptions<Row, Event>,
  ): Promise<BackfillProgress>
  /** For a client of any kind, to be run in the transaction. A schema that validates asynchronously is refused here. */
  statement(event: Event): Statement
}

/** An event without a registry. */
export type FreeEvent = FreeTombstone & Payload<unknown>

export interface FreeTombstone extends EventOptions {
  readonly aggregateType: string
  readonly aggregateId: AggregateId
  readonly type: string
}

/** An event as any caller, of any types or none, may give it. */
type GivenEvent = EventOptions & {
  readonly type: string
  readonly aggregateType?: string
  readonly aggregateId?: AggregateId | undefined
  readonly payload?: unknown
  readonly payloadText?: string | undefined
}

export function createOutbox(): Outbox<FreeEvent, FreeTombstone>
export function createOutbox<Registry extends AggregateTypes>(options: {
  readonly events: Events<Registry>
}): Outbox<EventOf<Registry>, TombstoneOf<Registry>>
export function createOutbox(options: { readonly events?: Events } = {}): Outbox<GivenEvent, GivenEvent> {
  const { events } = options
  const prepare = events === undefined ? freeRow : (event: GivenEvent) => registeredRow(events, event)
  const prepareTombstone = events === undefined ? freeTombstone : (event: GivenEvent) => registeredTombstone(events, event)

  async function prepareAll(tx: OutboxTransaction, list: readonly GivenEvent[]): Promise<readonly OutboxRow[]> {
    requireTransaction(tx)
    const prepared = list.map(prepare)
    return prepared.some(isPromise) ? Promise.all(prepared) : (prepared as OutboxRow[])
  }

  return {
    async emit(tx, event) {
      requireTransaction(tx)
      const prepared = prepare(event)
      const row = isPromise(prepared) ? await prepared : prepared
      await execute(tx, insertOne(row))
      return { id: row.id }
    },
    async emitAll(tx, list) {
      const rows = await prepareAll(tx, list)
      if (rows.length > 0) await execute(tx, insertMany(rows))
      return { ids: rows.map((row) => row.id) }
    },
    backfill: (db, how) =>
      runBackfill(db, how, async (tx, list) => {
        const { text, values } = insertMany(await prepareAll(tx, list))
        await execute(tx, { text, values })
        return (values[0] as string).length
      }),
    async tombstone(tx, event) {
      requireTransaction(tx)
      const row = prepareTombstone(event)
      await execute(tx, insertOne(row))
      return { id: row.id }
    },
    statement(event) {
      const prepared = prepare(event)
      if (!isPromise(prepared)) return insertOne(prepared)
      prepared.catch(() => {})
      throw invalid(event.type, '.payload', 'is validated asynchronously: a statement cannot wait for that, emit can')
    },
  }
}

function freeRow(event: GivenEvent): OutboxRow {
  const { aggregateType, aggregateId, type, payloadText } = event
  requirePayload(event)
  if (payloadText !== undefined) parsePayloadText(payloadText, type)
  return toRow({ aggregateType, aggregateId, type, payload: payloadText ?? payloadJson(event.payload, type), options: event })
}

function freeTombstone(event: GivenEvent): OutboxRow {
  const { aggregateType, aggregateId, type } = event
  return toRow({ aggregateType, aggregateId, type, payload: null, options: event })
}

/** A payload is validated and written as its schema gives it out; a payload text is validated and written as it stands. */
function registeredRow(events: Events, event: GivenEvent): OutboxRow | Promise<OutboxRow> {
  const { type, payloadText } = event
  const definition = definitionOf(events, type)
  const { aggregateType, schema } = definition
  if (isTombstone(schema)) throw invalid(type, '.type', 'is a tombstone: write it with tombstone()')
  requirePayload(event)
  const given = payloadText === undefined ? event.payload : parsePayloadText(payloadText, type)
  const finish = (result: ValidationResult<unknown>): OutboxRow => {
    if (result.issues !== undefined) throw refused(type, result.issues)
    return toRow({
      aggregateType,
      aggregateId: event.aggregateId ?? definition.id(result.value),
      type,
      payload: payloadText ?? payloadJson(result.value, type),
      options: event,
    })
  }
  const result = schema['~standard'].validate(given)
  return isPromise(result) ? result.then(finish) : finish(result)
}

function registeredTombstone(events: Events, event: GivenEvent): OutboxRow {
  const { type, aggregateId } = event
  const { aggregateType, schema } = definitionOf(events, type)
  if (!isTombstone(schema)) throw invalid(type, '.type', 'is not a tombstone: write it with emit()')
  return toRow({ aggregateType, aggregateId, type, payload: null, options: event })
}

function definitionOf(events: Events, type: string): EventDefinition {
  const definition = events.types.get(type)
  if (definition !== undefined) return definition
  const known = [...events.types.keys()].sort()
  throw new MillraceError('MILLRACE_EVENT_UNKNOWN', `${JSON.stringify(type)} is not a type of the registry`, {
    remedy: `known are: ${known.slice(0, 50).join(', ')}${known.length > 50 ? ' …' : ''}`,
    fields: { type: String(type) },
  })
}

/** JSON null is a payload, its absence is not. */
function requirePayload({ type, payload, payloadText }: GivenEvent): void {
  if (payload !== undefined && payloadText !== undefined) throw invalid(type, '.payload', 'and payloadText are both given')
  if (payload === undefined && payloadText === undefined)
    throw invalid(type, '.payload', 'is missing: an event without one is a tombstone')
}

const SHOWN_ISSUES = 5

function refused(type: string, issues: readonly ValidationIssue[]): MillraceError {
  const told = issues.slice(0, SHOWN_ISSUES).map((issue) => `${issuePath(issue)}: ${issue.message}`)
  const more = issues.length > SHOWN_ISSUES ? `; and ${issues.length - SHOWN_ISSUES} more` : ''
  return new MillraceError('MILLRACE_EVENT_INVALID', `event ${type}: ${told.join('; ')}${more}`, {
    fields: { type, path: issues[0] === undefined ? 'payload' : issuePath(issues[0]) },
  })
}

function issuePath(issue: ValidationIssue): string {
  let path = 'payload'
  for (const part of issue.path ?? []) {
    const key = typeof part === 'object' ? part.key : part
    path += typeof key === 'number' ? `[${key}]` : propertyPath(String(key))
  }
  return path
}

function isPromise<Value>(value: Value | Promise<Value>): value is Promise<Value> {
  return typeof (value as { then?: unknown } | undefined)?.then === 'function'
}
