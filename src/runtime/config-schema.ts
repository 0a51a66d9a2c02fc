import { z } from 'zod'
import { configSchema } from './config.ts'
import { KINDS, loadQueue, loadSink } from './registry.ts'

/** The JSON Schema of a config, the options of the house's connectors included: for editors. */
export async function configJsonSchema(): Promise<object> {
  const schema = jsonSchemaOf(configSchema) as { properties: Record<string, Section> }
  const here = { origin: 'config', folder: process.cwd() }
  const queue = schema.properties.queue as Section
  const sink = (schema.properties.sinks as Section).additionalProperties as Section
  const queues = await Promise.all(KINDS.queue.map(async (kind) => [kind, (await loadQueue(kind, here)).options] as const))
  const sinks = await Promise.all(KINDS.sink.map(async (kind) => [kind, (await loadSink(kind, kind, here)).options] as const))
  queue.allOf = queues.map(([kind, options]) => whenKind(kind, options))
  sink.allOf = sinks.map(([kind, options]) => whenKind(kind, options))
  return { title: 'A Millrace config', ...schema }
}

interface Section {
  properties?: Record<string, unknown>
  additionalProperties?: unknown
  allOf?: object[]
}

function whenKind(kind: string, options: unknown): object {
  const { $schema: _, additionalProperties: __, ...rest } = jsonSchemaOf(options)
  return { if: { properties: { kind: { const: kind } } }, then: rest }
}

/** functions, which only a TypeScript config can hold, are left open */
function jsonSchemaOf(schema: unknown): Record<string, unknown> {
  if (!(schema instanceof z.ZodType)) return {}
  return z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any', reused: 'inline' }) as Record<string, unknown>
}
