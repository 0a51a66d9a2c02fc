import { access, readFile } from 'node:fs/promises'
import { dirname, extname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseDocument } from 'yaml'
import { MillraceError } from '../core/errors.ts'
import { describeThrown } from './thrown.ts'

/** A config as its file holds it: not yet checked, references as written. */
export interface ConfigFile {
  readonly path: string
  readonly folder: string
  readonly raw: unknown
}

const DEFAULTS = ['millrace.config.ts', 'millrace.yaml'] as const

/**
 * Reads the config at the path, or the one of the current folder.
 * @throws MILLRACE_CONFIG_INVALID when there is none, or it cannot be read as what its name says
 */
export async function readConfigFile(path: string | undefined, folder = process.cwd()): Promise<ConfigFile> {
  const file = path === undefined ? await findConfigFile(folder) : resolve(folder, path)
  return { path: file, folder: dirname(file), raw: await read(file) }
}

async function findConfigFile(folder: string): Promise<string> {
  const found: string[] = []
  for (const name of DEFAULTS) if (await exists(join(folder, name))) found.push(name)
  if (found.length === 2)
    throw new MillraceError('MILLRACE_CONFIG_INVALID', `${folder} has both ${found.join(' and ')}`, {
      remedy: 'say which one: --config PATH',
    })
  if (found.length === 0)
    throw new MillraceError('MILLRACE_CONFIG_INVALID', `there is neither ${DEFAULTS.join(' nor ')} in ${folder}`, {
      remedy: 'name the file: --config PATH',
    })
  return join(folder, found[0] as string)
}

async function read(path: string): Promise<unknown> {
  const kind = extname(path)
  if (!(await exists(path))) throw new MillraceError('MILLRACE_CONFIG_INVALID', `there is no config at ${path}`)
  if (kind === '.yaml' || kind === '.yml' || kind === '.json') return parseYaml(await readFile(path, 'utf8'), path)
  if (kind === '.ts' || kind === '.mts' || kind === '.js' || kind === '.mjs') return readModule(path)
  throw new MillraceError('MILLRACE_CONFIG_INVALID', `${path}: expected a config that ends in .yaml, .json, .ts or .js`)
}

/**
 * The parser's own messages quote what they are about, which may be a secret (`password: *hunter2` is an alias to it): its
 * code and the place say as much.
 * @throws MILLRACE_CONFIG_INVALID
 */
export function parseYaml(text: string, path: string): unknown {
  const refuse = (lines: readonly string[]): never => {
    throw new MillraceError('MILLRACE_CONFIG_INVALID', [`${path} is not YAML:`, ...lines.map((line) => `  ${line}`)].join('\n'), {
      remedy: 'a text that begins with one of * & ! | > % @ or holds ": " or " #" must stand in quotes',
    })
  }
  try {
    // a number that JavaScript cannot hold must not be rounded in silence, nor a key be taken twice
    const document = parseDocument(text, { intAsBigInt: false, uniqueKeys: true, strict: true, logLevel: 'error' })
    const { errors, warnings } = document
    if (errors.length > 0 || warnings.length > 0)
      return refuse(
        [...errors, ...warnings].map(({ code, linePos }) => {
          const what = code.toLowerCase().replaceAll('_', ' ')
          return linePos === undefined ? what : `line ${linePos[0].line}, column ${linePos[0].col}: ${what}`
        }),
      )
    return document.toJS({ maxAliasCount: 100 })
  } catch (error) {
    if (error instanceof MillraceError) throw error
    // an alias without its anchor, or so many that they fill the memory; nesting beyond the stack
    return refuse([
      error instanceof ReferenceError ? 'an alias (*name) without an anchor (&name), or too many of them' : 'it nests too deep',
    ])
  }
}

async function readModule(path: string): Promise<unknown> {
  let module: { default?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as { default?: unknown }
  } catch (error) {
    throw new MillraceError('MILLRACE_CONFIG_INVALID', `${path} cannot be loaded: ${describeThrown(error)}`, {
      remedy: `see all of it: node ${path}`,
    })
  }
  if (module.default === undefined)
    throw new MillraceError(
      'MILLRACE_CONFIG_INVALID',
      `${path} has no default export: expected export default defineConfig({ … })`,
    )
  return module.default
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
