import { MillraceError } from '../core/errors.ts'
import { isReservedHeader } from '../core/record.ts'
import { jsonText, propertyPath, textProblem } from './json-text.ts'
import { AGGREGATE_TYPE, type AggregateId, type EventOptions } from './registry.ts'
import type { OutboxRow } from './statement.ts'
import { newId } from './uuid.ts'

/** An event as a row, proved to be one that the table's constraints accept; they know nothing of paths. */
export function toRow(event: {
  readonly aggregateType: unknown
  readonly aggregateId: unknown
  readonly type: unknown
  /** JSON text; null is a tombstone */
  readonly payload: string | null
  readonly options: EventOptions
}): OutboxRow {
  const { aggregateType, options } = event
  const type = sizedText(event.type, 'type', '')
  if (typeof aggregateType !== 'string' || !AGGREGATE_TYPE.test(aggregateType))
    throw invalid(type, '.aggregateType', `must match ${AGGREGATE_TYPE.source}: topics are named after it`)
  const version = options.version ?? 1
  if (!Number.isInteger(version) || version < 1 || version > 0x7fff_ffff)
    throw invalid(type, '.version', 'must be a whole number from 1 on')
  if (options.id !== undefined && !UUID.test(options.id)) throw invalid(type, '.id', 'must be a UUID')
  return {
    id: options.id ?? newId(),
    aggregateType,
    aggregateId: keyText(event.aggregateId, 'aggregateId', type),
    type,
    payload: event.payload,
    headers: headersText(options.headers, type),
    orderingKey: options.orderingKey === undefined ? null : keyText(options.orderingKey, 'orderingKey', type),
    version,
  }
}

/** @throws MILLRACE_EVENT_INVALID naming the path of what JSON does not have */
export function payloadJson(payload: unknown, type: string): string {
  const json = jsonText(payload)
  if ('problem' in json) throw invalid(type, `.payload${json.path}`, json.problem)
  return json.text
}

/** @throws MILLRACE_EVENT_INVALID; its message never quotes the text */
export function parsePayloadText(text: string, type: string): unknown {
  const problem = typeof text === 'string' ? textProblem(text) : 'must be JSON text'
  if (problem !== null) throw invalid(type, '.payloadText', problem)
  try {
    return JSON.parse(text)
  } catch {
    throw invalid(type, '.payloadText', 'is not JSON')
  }
}

/** `path` begins at the event: `.payload.items[2].price` */
export function invalid(type: string, path: string, problem: string): MillraceError {
  const at = path.replace(/^\./, '')
  return new MillraceError('MILLRACE_EVENT_INVALID', `${type === '' ? 'an event' : `event ${type}`}: ${at} ${problem}`, {
    fields: { type, path: at },
  })
}

const UUID = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i

function keyText(value: unknown, name: string, type: string): string {
  if (typeof value === 'bigint' || Number.isSafeInteger(value)) return String(value as AggregateId)
  if (typeof value === 'number')
    throw invalid(type, `.${name}`, 'must be a safe integer when it is a number: pass a string or a bigint')
  return sizedText(value, name, type)
}

const encoder = new TextEncoder()
const MAX_BYTES = 512

function sizedText(value: unknown, name: string, type: string): string {
  if (typeof value !== 'string')
    throw invalid(type, `.${name}`, `must be a ${name === 'type' ? 'string' : 'string, a bigint or a safe integer'}`)
  const problem = textProblem(value)
  if (problem !== null) throw invalid(type, `.${name}`, problem)
  const bytes = value.length * 3 <= MAX_BYTES ? value.length : encoder.encode(value).length
  if (bytes < 1 || bytes > MAX_BYTES) throw invalid(type, `.${name}`, `must be 1 to ${MAX_BYTES} bytes, is ${bytes}`)
  return value
}

function headersText(headers: EventOptions['headers'], type: string): string | null {
  if (headers === undefined) return null
  const entries = Object.entries(headers)
  for (const [name, value] of entries) {
    const path = `.headers${propertyPath(name)}`
    if (name === '' || isReservedHeader(name)) throw invalid(type, path, 'is a name that Millrace keeps for itself')
    if (typeof value !== 'string') throw invalid(type, path, 'must be a string')
    const problem = textProblem(name) ?? textProblem(value)
    if (problem !== null) throw invalid(type, path, problem)
  }
  return entries.length === 0 ? null : JSON.stringify(headers)
}
