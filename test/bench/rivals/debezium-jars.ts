import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, mkdir, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A pinned Debezium: a Connect worker's jars in `libs`, and the plug-ins as Debezium packs them in `plugins`. */
export interface DebeziumJars {
  readonly libs: string
  readonly plugins: string
  /** as the pom pins it */
  readonly version: string
}

const POM = join(import.meta.dirname, 'pom.xml')

/** Fetched through Maven (about 70 MB) into a cache that outlives the checkout; complete, or not under its name. */
export async function debeziumJars(): Promise<DebeziumJars> {
  const pom = await readFile(POM, 'utf8')
  const cache = join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'millrace')
  const folder = join(cache, `debezium-${createHash('sha256').update(pom).digest('hex').slice(0, 12)}`)
  const found = await access(folder).then(
    () => true,
    () => false,
  )
  if (!found) await fetchInto(folder)
  const version = /<debezium.version>(.+)<\/debezium.version>/.exec(pom)?.[1] ?? ''
  return { libs: join(folder, 'libs'), plugins: join(folder, 'plugins'), version }
}

async function fetchInto(folder: string): Promise<void> {
  const partial = `${folder}.${process.pid}.partial`
  await mkdir(partial, { recursive: true })
  try {
    await promisify(execFile)('mvn', ['-B', '-ntp', '-q', '-C', '-f', POM, 'initialize', `-Dinto=${partial}`], {
      timeout: 300_000,
    })
    await rename(partial, folder)
  } finally {
    await rm(partial, { recursive: true, force: true })
  }
}
