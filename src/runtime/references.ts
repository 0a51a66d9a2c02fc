import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { ConfigIssue } from './config-issues.ts'
import { isSecretName, type Secrets } from './secrets.ts'
import { describeThrown } from './thrown.ts'

/**
 * `${env:NAME}` and `${file:PATH}` inside the strings of a config; `$${` stands for a plain `${`. A path is taken from
 * the config's folder, and the last line break of a file is not part of its value.
 *
 * A `password` from a file becomes a function that reads the file again: it is called at every connect, so that a
 * rotated credential is found without a restart.
 */
export interface ReferenceContext {
  readonly env: Readonly<Record<string, string | undefined>>
  /** the folder of the config file */
  readonly folder: string
  readonly secrets: Secrets
}

const REFERENCE = /\$\$\{|\$\{([^}]*)\}/g

export function resolveReferences(
  config: unknown,
  context: ReferenceContext,
): { value: unknown; issues: readonly ConfigIssue[] } {
  const issues: ConfigIssue[] = []
  const walk = (value: unknown, path: readonly string[]): unknown => {
    if (typeof value === 'string') return text(value, path)
    if (typeof value === 'function' && isSecretName(path.at(-1) ?? ''))
      return learning(value as Credential, path, context.secrets)
    if (Array.isArray(value)) return value.map((item, index) => walk(item, [...path, String(index)]))
    if (!isPlain(value)) return value
    // whoever copies an object by assignment loses this key, and what it says, without a word
    if (Object.hasOwn(value, '__proto__')) issues.push({ path: [...path, '__proto__'], message: 'nothing can be called so' })
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, walk(item, [...path, name])]))
  }
  const text = (value: string, path: readonly string[]): unknown => {
    const found = issues.length
    const resolved = expand(value, context, (message) => issues.push({ path, message }))
    if (issues.length > found) return resolved
    context.secrets.learn(path.at(-1) ?? '', resolved)
    if (path.at(-1) === 'password' && value.includes('${file:')) return () => reread(value, context)
    return resolved
  }
  return { value: walk(config, []), issues }
}

/** a password, or a token with what belongs to it */
type Credential = () => unknown

/** What the function gives is a secret from then on; what it throws may hold one, and is told by its kind and place. */
function learning(credential: Credential, path: readonly string[], secrets: Secrets): Credential {
  return async () => {
    try {
      const found = await credential()
      const value = typeof found === 'object' && found !== null ? (found as { value?: unknown }).value : found
      if (typeof value === 'string') secrets.learn('password', value)
      return found
    } catch (error) {
      throw new Error(`the function of ${path.join('.')} threw: ${describeThrown(error)}`)
    }
  }
}

function expand(value: string, context: ReferenceContext, fail: (message: string) => void): string {
  return value.replace(REFERENCE, (whole, reference: string | undefined) => {
    if (reference === undefined) return '${'
    const [, kind, name] = /^(env|file):(.+)$/.exec(reference) ?? []
    if (kind === undefined || name === undefined) {
      fail(`${whole} is not a reference: expected \${env:NAME} or \${file:PATH} ($\${ for a plain \${)`)
      return whole
    }
    if (kind === 'env') {
      const found = context.env[name]
      if (found === undefined) fail(`${whole}: the environment variable ${name} is not set`)
      return found ?? whole
    }
    try {
      return withoutLineBreak(readFileSync(resolve(context.folder, name), 'utf8'))
    } catch (error) {
      fail(`${whole}: cannot read ${resolve(context.folder, name)} (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`)
      return whole
    }
  })
}

async function reread(value: string, context: ReferenceContext): Promise<string> {
  const parts = await Promise.all(
    value.split(/(\$\$\{|\$\{[^}]*\})/).map(async (part) => {
      const path = /^\$\{file:(.+)\}$/.exec(part)?.[1]
      if (path !== undefined) return withoutLineBreak(await readFile(resolve(context.folder, path), 'utf8'))
      return expand(part, context, () => {})
    }),
  )
  const password = parts.join('')
  context.secrets.learn('password', password)
  return password
}

function withoutLineBreak(text: string): string {
  return text.replace(/\r?\n$/, '')
}

/** what YAML and object literals make; class instances and functions pass as they are */
function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}
