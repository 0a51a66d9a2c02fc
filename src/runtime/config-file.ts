import { access, readFile } from 'node:fs/promises'
import { dirname, extname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseDocument } from 'yaml'
import { MillraceError } from '../core/errors.ts'

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
  if (kind === '.yaml' || kind === '.yml' || kind === '.json') return readYaml(path)
  if (kind === '.ts' || kind === '.mts' || kind === '.js' || kind === '.mjs') return readModule(path)
  throw new MillraceError('MILLRACE_CONFIG_INVALID', `${path}: expected a config that ends in .yaml, .json, .ts or .js`)
}

async function readYaml(path: string): Promise<unknown> {
  // a number that JavaScript cannot hold must not be rounded in silence, nor a key be taken twice
  const document = parseDocument(await readFile(path, 'utf8'), { intAsBigInt: false, uniqueKeys: true, strict: true })
  const wrong = document.errors.map((error) => `  ${error.message.split('\n')[0]}`)
  if (wrong.length > 0) throw new MillraceError('MILLRACE_CONFIG_INVALID', [`${path} is not YAML:`, ...wrong].join('\n'))
  return document.toJS({ maxAliasCount: 100 })
}

async function readModule(path: string): Promise<unknown> {
  let module: { default?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as { default?: unknown }
  } catch (cause) {
    throw new MillraceError('MILLRACE_CONFIG_INVALID', `${path} cannot be loaded: ${(cause as Error).message}`, { cause })
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
