import type { Queue } from './queue.ts'
import type { Sink } from './sink.ts'

/** What the house gives a connector. Nothing else is reached for: no global logger, no clock of its own. */
export interface ConnectorDeps {
  readonly log: Log
  /** the pipeline's name: client ids, group ids and application names carry it */
  readonly pipeline: string
  /** ms since the Unix epoch */
  readonly now: () => number
}

export interface SinkDeps extends ConnectorDeps {
  /** the sink's name: its identity in checkpoints */
  readonly sink: string
  /** which topic carries which aggregate type; absent: the default template */
  readonly topicTemplate?: string | undefined
}

/** The part of pino that connectors and loops use. Never a payload, never a secret. */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
  child(fields: object): Log
}

/**
 * The schema of a connector's options: any Standard Schema (standardschema.dev), zod and valibot among them. Written
 * out here so that no library's type is part of the contract.
 */
export interface OptionsSchema<Output> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => ValidationResult<Output> | Promise<ValidationResult<Output>>
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined
  }
}

export type ValidationResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly ValidationIssue[] }

export interface ValidationIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

export interface QueueConnector<Options = unknown> {
  readonly connector: 'queue'
  readonly contract: 1
  readonly name: string
  readonly options: OptionsSchema<Options>
  open(options: Options, deps: ConnectorDeps): Promise<Queue>
}

export interface SinkConnector<Options = unknown> {
  readonly connector: 'sink'
  readonly contract: 1
  readonly name: string
  readonly options: OptionsSchema<Options>
  /** the aggregate types it follows; null: every topic of the pipeline */
  follows(options: Options): readonly string[] | null
  open(options: Options, deps: SinkDeps): Promise<Sink>
}

export function defineQueue<Options>(
  definition: Omit<QueueConnector<Options>, 'connector' | 'contract'>,
): QueueConnector<Options> {
  return { connector: 'queue', contract: 1, ...definition }
}

export function defineSink<Options>(definition: Omit<SinkConnector<Options>, 'connector' | 'contract'>): SinkConnector<Options> {
  return { connector: 'sink', contract: 1, ...definition }
}
