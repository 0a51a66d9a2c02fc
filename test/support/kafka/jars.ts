import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { answerOf, isInstalled } from '../program.ts'

/**
 * A pinned Kafka as a folder of jars, fetched through Maven into a cache that outlives the checkout. Maven verifies the
 * checksums and keeps what an interrupted fetch had; the folder appears under its name in one rename, complete, with a list
 * of what belongs into it. Two runs that fetch at once do the work twice and agree on the first's folder.
 */
export async function kafkaJars(cache = cacheFolder()): Promise<string> {
  const pom = await readFile(POM)
  const folder = join(cache, `kafka-${createHash('sha256').update(pom).digest('hex').slice(0, 12)}`)
  if (await complete(folder)) return folder
  // what stands under the name and is not complete is damaged, never a fetch under way
  await rm(folder, { recursive: true, force: true })
  await mkdir(cache, { recursive: true })
  const partial = await mkdtemp(`${folder}-partial-`)
  try {
    await maven(partial)
    await writeFile(join(partial, LIST), JSON.stringify(await sizes(partial)))
    await rename(partial, folder).catch(async (cause) => {
      if (!(await complete(folder))) throw cause
    })
  } finally {
    await rm(partial, { recursive: true, force: true })
  }
  return folder
}

/** Whether bare brokers can be had here: Java, and Maven unless the jars are there already. Null, or what is missing. */
export async function javaMissing(): Promise<string | null> {
  const version = /version "(\d+)/.exec((await answerOf('java', '-version')) ?? '')?.[1]
  if (Number(version ?? 0) < 17) return 'no Java 17 or newer'
  return (await isInstalled('mvn')) || (await fetched()) ? null : 'no Maven'
}

const POM = join(import.meta.dirname, 'pom.xml')
const LIST = 'complete.json'
const COPY = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies'

const cacheFolder = (): string => join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'millrace')

async function fetched(): Promise<boolean> {
  const names = await readdir(cacheFolder()).catch(() => [])
  return names.some((name) => /^kafka-[0-9a-f]{12}$/.test(name))
}

async function complete(folder: string): Promise<boolean> {
  try {
    const expected = JSON.parse(await readFile(join(folder, LIST), 'utf8')) as Record<string, number>
    const found = await sizes(folder)
    return Object.entries(expected).every(([name, size]) => found[name] === size)
  } catch {
    return false
  }
}

async function sizes(folder: string): Promise<Record<string, number>> {
  const jars = (await readdir(folder)).filter((name) => name.endsWith('.jar')).sort()
  return Object.fromEntries(await Promise.all(jars.map(async (name) => [name, (await stat(join(folder, name))).size] as const)))
}

async function maven(folder: string): Promise<void> {
  const args = ['-B', '-ntp', '-q', '-C', '-f', POM, COPY, `-DoutputDirectory=${folder}`, '-DincludeScope=runtime']
  const child = spawn('mvn', args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 300_000 })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      said = (said + chunk).slice(-4_000)
    })
  }
  const [code, signal] = await once(child, 'exit')
  if (code !== 0) throw new Error(`Kafka could not be fetched through Maven (${signal ?? code}): ${said}`)
}
