import { z } from 'zod'
import type { ValidationIssue } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import { isSecretName } from './secrets.ts'

/** One thing that is wrong in a config: where, and what was expected. */
export interface ConfigIssue {
  readonly path: readonly string[]
  readonly message: string
}

export function configError(origin: string, issues: readonly ConfigIssue[]): MillraceError {
  const lines = issues.map((issue) => `  ${issue.path.length === 0 ? '' : `${issue.path.join('.')}: `}${issue.message}`)
  return new MillraceError('MILLRACE_CONFIG_INVALID', [`${origin} is not valid:`, ...lines].join('\n'), {
    remedy: 'correct the config; `millrace config --schema` prints its JSON Schema for your editor',
  })
}

/** The issues of any Standard Schema as ours. Those of zod know what was expected, others keep their own message. */
export function toConfigIssues(
  issues: readonly ValidationIssue[],
  value: unknown,
  schema: unknown,
  prefix: readonly string[] = [],
): ConfigIssue[] {
  return issues.flatMap((issue) => {
    const path = (issue.path ?? []).map((step) => String(typeof step === 'object' ? step.key : step))
    return explain(issue as ZodIssue, path, value, schema).map((one) => ({ ...one, path: [...prefix, ...one.path] }))
  })
}

interface ZodIssue extends ValidationIssue {
  readonly code?: string
  readonly expected?: string
  readonly keys?: readonly string[]
  readonly values?: readonly unknown[]
  readonly errors?: readonly (readonly ZodIssue[])[]
  readonly issues?: readonly ZodIssue[]
}

function explain(issue: ZodIssue, path: readonly string[], value: unknown, schema: unknown): ConfigIssue[] {
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = knownKeys(schema, path)
      return (issue.keys ?? []).map((key) => ({ path: [...path, key], message: `unknown key: ${suggestion(key, known)}` }))
    }
    case 'invalid_union': {
      const nested = closest(issue.errors ?? [])
      if (nested) return nested.flatMap((one) => explain(one, [...path, ...(one.path ?? []).map(String)], value, schema))
      const expected = own(issue) ?? [...new Set((issue.errors ?? []).flat().map(expectation))].join(' or ')
      return [{ path, message: `expected ${expected}, ${found(value, path)}` }]
    }
    case 'invalid_key':
      return [{ path, message: (issue.issues ?? [issue]).map((one) => one.message).join(', ') }]
    case 'invalid_type':
    case 'invalid_value':
      return [{ path, message: `expected ${expectation(issue)}, ${found(value, path)}` }]
    default:
      return [{ path, message: `${issue.message}${issue.message.startsWith('expected') ? `, ${found(value, path)}` : ''}` }]
  }
}

/** the branch of a union that was meant: the one whose issues lie deepest inside the value; null when none got past its first look */
function closest(branches: readonly (readonly ZodIssue[])[]): readonly ZodIssue[] | null {
  const depth = (branch: readonly ZodIssue[]): number =>
    Math.max(...branch.map((issue) => (issue.path ?? []).length + (issue.keys ? 1 : 0)))
  const best = [...branches].sort((a, b) => depth(b) - depth(a))[0]
  return best !== undefined && depth(best) > 0 ? best : null
}

/** the expectation that our own schemas write as their message */
function own(issue: ZodIssue): string | null {
  return issue.message.startsWith('expected ') ? issue.message.slice('expected '.length) : null
}

function expectation(issue: ZodIssue): string {
  const said = own(issue)
  if (said !== null) return said
  if (issue.code === 'invalid_value')
    return (issue.values ?? [])
      .map((one) => JSON.stringify(one))
      .join(', ')
      .replace(/, ([^,]*)$/, ' or $1')
  const name = issue.expected === 'record' ? 'object' : (issue.expected ?? 'different type')
  return name === 'undefined' ? 'nothing' : `${/^[aeiou]/.test(name) ? 'an' : 'a'} ${name}`
}

/** what stands at the path, in words; never a value that may be a secret */
function found(value: unknown, path: readonly string[]): string {
  let at = value
  for (const step of path) at = typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[step] : undefined
  if (at === undefined) return 'found nothing'
  if (at === null) return 'found null'
  if (Array.isArray(at)) return 'found an array'
  if (typeof at === 'object') return 'found an object'
  if (typeof at === 'function') return 'found a function'
  if (typeof at !== 'string') return `found ${String(at)}`
  if (path.some(isSecretName) || at.includes('://') || at.length > 60) return 'found a string'
  return `found ${JSON.stringify(at)}`
}

/** the keys that the schema has at the path, from its JSON Schema: works for whatever zod can print */
function knownKeys(schema: unknown, path: readonly string[]): readonly string[] {
  if (!(schema instanceof z.ZodType)) return []
  let at = [z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any', reused: 'inline' }) as JsonSchema]
  for (const step of path)
    at = at.flatMap(branches).flatMap((node) => {
      const next =
        node.properties?.[step] ?? (typeof node.additionalProperties === 'object' ? node.additionalProperties : node.items)
      return next === undefined ? [] : [next]
    })
  return [...new Set(at.flatMap(branches).flatMap((node) => Object.keys(node.properties ?? {})))]
}

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: JsonSchema | boolean
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
  readonly oneOf?: readonly JsonSchema[]
  readonly allOf?: readonly JsonSchema[]
}

function branches(node: JsonSchema): JsonSchema[] {
  return [node, ...[...(node.anyOf ?? []), ...(node.oneOf ?? []), ...(node.allOf ?? [])].flatMap(branches)]
}

function suggestion(word: string, known: readonly string[]): string {
  const near = nearest(word, known)
  if (near !== null) return `did you mean ${JSON.stringify(near)}?`
  return known.length === 0 ? 'nothing is expected here' : `expected ${known.length === 1 ? '' : 'one of '}${known.join(', ')}`
}

/** the known word within a third of its length in edits, letter case aside */
export function nearest(word: string, known: readonly string[]): string | null {
  let best: string | null = null
  let least = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    const distance = edits(word.toLowerCase(), candidate.toLowerCase())
    if (distance < least) [best, least] = [candidate, distance]
  }
  return best
}

/** Levenshtein's distance */
function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(
        (next[j - 1] as number) + 1,
        (row[j] as number) + 1,
        (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1),
      )
    row = next
  }
  return row[b.length] as number
}
