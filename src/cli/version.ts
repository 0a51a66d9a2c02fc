import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** the version in the nearest package.json above: the sources and the built package lie at different depths */
function versionOf(folder: string): string {
  try {
    const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
      name?: string
      version?: string
    }
    if (name === 'millrace' && version !== undefined) return version
  } catch {
    // no package here: look above
  }
  const parent = dirname(folder)
  return parent === folder ? 'unknown' : versionOf(parent)
}

export const VERSION = versionOf(import.meta.dirname)
