import { z } from 'zod'
import { configSchema } from './config-schema.ts'
import { KINDS, loadQueue, loadSink } from './registry.ts'

/** The JSON Schema of a config, with the options of the house's connectors in it: for editors. */
export async function configJsonSchema(): Promise<object> {
  const schema = jsonSchemaOf(configSchema)
  const queue = schema.properties?.['queue'] as Schema
  const sinks = schema.properties?.['sinks'] as Schema
  const here = { origin: 'config', folder: process.cwd() }
  const queues = await Promise.all(
    KINDS.queue.map(async (kind) => withOptions(queue, kind, (await loadQueue(kind, here)).options)),
  )
  const kinds = await Promise.all(
    KINDS.sink.map(async (kind) =>
      withOptions(sinks.additionalProperties as Schema, kind, (await loadSink(kind, kind, here)).options),
    ),
  )
  return {
    ...schema,
    title: 'A Millrace config',
    properties: {
      ...schema.properties,
      queue: { anyOf: [...queues, ofOneself(queue)] },
      sinks: { ...sinks, additionalProperties: { anyOf: [...kinds, ofOneself(sinks.additionalProperties as Schema)] } },
    },
  }
}

interface Schema {
  readonly properties?: Readonly<Record<string, unknown>>
  readonly required?: readonly string[]
  readonly additionalProperties?: unknown
}

/** the section of a connector of the house: what every one has, and its own */
function withOptions(section: Schema, kind: string, options: unknown): Schema {
  const own = jsonSchemaOf(options)
  return {
    ...section,
    properties: { ...section.properties, kind: { const: kind }, ...own.properties },
    required: [...new Set([...(section.required ?? []), ...(own.required ?? [])])],
    additionalProperties: false,
  }
}

/** the section of a module of the user's own, whose options only it knows */
function ofOneself(section: Schema): Schema {
  return { ...section, properties: { ...section.properties, kind: { type: 'string', pattern: '^(\\.|/|file:)' } } }
}

/** functions, which only a TypeScript config can hold, are left open */
function jsonSchemaOf(schema: unknown): Schema {
  if (!(schema instanceof z.ZodType)) return {}
  return z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any', reused: 'inline' }) as Schema
}
