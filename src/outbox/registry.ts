import type { ValidationResult } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'

/**
 * A registry of events: which aggregates there are, which types of events each has, and what a payload of each type
 * looks like. It imports no database, so that writers and readers can share it as a package.
 */
export interface Events<Registry extends AggregateTypes = AggregateTypes> {
  /** by type; a type belongs to one aggregate */
  readonly types: ReadonlyMap<string, EventDefinition>
  /** the registry as a type: {@link EventOf} and {@link TombstoneOf} read it; there is no such property */
  readonly registry?: Registry
}

export interface EventDefinition {
  readonly aggregateType: string
  readonly schema: AnySchema | Tombstone
  /** the aggregate id, from a payload that passed the schema */
  readonly id: (payload: unknown) => AggregateId
}

/** Names of aggregate types, with their types of events. */
export type AggregateTypes = Readonly<Record<string, EventTypes>>
export type EventTypes = Readonly<Record<string, AnySchema | Tombstone>>

export interface Aggregate<Types extends EventTypes> {
  /** from a payload that passed its schema; an event may name its `aggregateId` instead */
  readonly id: (payload: PayloadOf<Types>) => AggregateId
  readonly types: Types
}

/** What becomes the record's key, as text. A number must be a safe integer. */
export type AggregateId = string | bigint | number

/** Any Standard Schema (standardschema.dev): zod, valibot, arktype and others, by structure. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => ValidationResult<Output> | Promise<ValidationResult<Output>>
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
  }
}

type AnySchema = StandardSchema<unknown, unknown>
type SchemaTypes<Schema extends AnySchema> = NonNullable<Schema['~standard']['types']>
type Schemas<Types extends EventTypes> = Extract<Types[keyof Types], AnySchema>
/** a payload as its schemas give it out */
export type PayloadOf<Types extends EventTypes> =
  Schemas<Types> extends infer Schema extends AnySchema ? SchemaTypes<Schema>['output'] : never

/** Stands where a schema would: events of this type have no payload and say that their key is gone. */
export interface Tombstone {
  readonly tombstone: true
}
export const tombstone: Tombstone = Object.freeze({ tombstone: true })

/** What may be said of any event beside its type and payload. */
export interface EventOptions {
  /** a UUID; default: a new one, of version 7 */
  readonly id?: string | undefined
  /** travel with the event as they are (`traceparent` …); `id`, `type`, `schema-version` and `millrace-*` are refused */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** chooses the partition; default: the aggregate id, which stays the record's key */
  readonly orderingKey?: AggregateId | undefined
  /** of the payload's schema; default: 1 */
  readonly version?: number | undefined
}

/** A payload that Millrace makes JSON of, or JSON text that passes as it was written. */
export type Payload<Value> =
  | { readonly payload: Value; readonly payloadText?: undefined }
  | { readonly payloadText: string; readonly payload?: undefined }

/** The events that a registry allows: the payload's type follows from `type`. */
export type EventOf<Registry extends AggregateTypes> = {
  [A in keyof Registry]: {
    [T in keyof Registry[A]]: Registry[A][T] extends AnySchema
      ? EventOptions & { readonly type: T; readonly aggregateId?: AggregateId | undefined } & Payload<
            SchemaTypes<Registry[A][T]>['input']
          >
      : never
  }[keyof Registry[A]]
}[keyof Registry]

export type TombstoneOf<Registry extends AggregateTypes> = {
  [A in keyof Registry]: {
    [T in keyof Registry[A]]: Registry[A][T] extends Tombstone
      ? EventOptions & { readonly type: T; readonly aggregateId: AggregateId }
      : never
  }[keyof Registry[A]]
}[keyof Registry]

export const AGGREGATE_TYPE = /^[A-Za-z0-9._-]{1,120}$/

/**
 *     export const shop = defineEvents({
 *       order: {
 *         id: (order) => order.id,
 *         types: { OrderPlaced: orderSchema, OrderPaid: paidSchema, OrderErased: tombstone },
 *       },
 *     })
 *
 * @throws MILLRACE_USAGE for an aggregate that could not be a topic, and for a type that two aggregates claim
 */
export function defineEvents<const Registry extends AggregateTypes>(
  aggregates: {
    readonly [A in keyof Registry]: Aggregate<Registry[A]>
  },
): Events<Registry> {
  const types = new Map<string, EventDefinition>()
  // what `id` takes has passed the schema of its type
  const entries = Object.entries(aggregates as unknown as Readonly<Record<string, Erased>>)
  for (const [aggregateType, aggregate] of entries) {
    if (!AGGREGATE_TYPE.test(aggregateType))
      throw new MillraceError(
        'MILLRACE_USAGE',
        `the aggregate type ${JSON.stringify(aggregateType)} does not match ${AGGREGATE_TYPE.source}`,
      )
    for (const [type, schema] of Object.entries(aggregate.types)) {
      const other = types.get(type)
      if (other !== undefined)
        throw new MillraceError(
          'MILLRACE_USAGE',
          `the type ${type} belongs to the aggregates ${other.aggregateType} and ${aggregateType}`,
          {
            remedy: 'give each type of event a name of its own: events are emitted by it',
          },
        )
      types.set(type, { aggregateType, schema, id: aggregate.id })
    }
  }
  return { types }
}

interface Erased {
  readonly id: (payload: unknown) => AggregateId
  readonly types: EventTypes
}

export function isTombstone(schema: EventDefinition['schema']): schema is Tombstone {
  return 'tombstone' in schema && schema.tombstone
}
